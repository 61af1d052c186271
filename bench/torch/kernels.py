"""How near to peak the kernels of training come on a GPU: `python bench/torch/kernels.py [OUT.json]`, needs PyTorch with CUDA.

Times bfloat16 matrix products over sides, grouped products over experts, and causal attention forward and backward, each as the median of
20 after 5 for warm-up. `upcycle plan` takes its default efficiencies from the result in bench/results.
"""
import json
import sys

import torch
import torch.nn.functional as F

device = "cuda"
props = torch.cuda.get_device_properties(0)


def seconds(work, rounds=20, warm=5):
    for _ in range(warm):
        work()
    torch.cuda.synchronize()
    taken = []
    for _ in range(rounds):
        begin, end = torch.cuda.Event(True), torch.cuda.Event(True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        taken.append(begin.elapsed_time(end) / 1e3)
    return sorted(taken)[rounds // 2]


def matrix(rows, columns):
    return torch.randn(rows, columns, device=device, dtype=torch.bfloat16)


results = {"device": props.name, "torch": torch.__version__, "matmul": [], "grouped": [], "attention": []}
for m, k, n in [(8192, 8192, 8192), (4096, 4096, 14336), (4096, 14336, 4096), (8192, 4096, 14336), (4096, 4096, 6144), (4096, 2048, 8192), (4096, 8192, 2048),
                (2048, 4096, 14336), (1024, 4096, 14336), (512, 4096, 14336), (256, 4096, 14336), (128, 4096, 14336),
                (4096, 4096, 7168), (4096, 4096, 3584), (4096, 4096, 1792), (4096, 4096, 896), (4096, 4096, 448), (4096, 2048, 768), (4096, 2048, 128256), (8192, 1024, 4096), (4096, 512, 1408)]:
    a, b = matrix(m, k), matrix(n, k)
    t = seconds(lambda: a @ b.T)
    results["matmul"].append({"m": m, "k": k, "n": n, "tflops": 2 * m * k * n / t / 1e12})
for experts, rows, k, n in [(8, 1024, 4096, 14336), (8, 4096, 4096, 14336), (8, 512, 4096, 14336), (1, 8192, 4096, 14336), (64, 512, 4096, 1792), (8, 4096, 4096, 1792), (8, 512, 4096, 1792),
                            (128, 256, 2048, 768), (16, 2048, 2048, 768), (64, 512, 2048, 1024), (8, 1024, 2048, 8192), (8, 128, 4096, 14336)]:
    try:
        a = matrix(experts * rows, k)
        w = torch.randn(experts, n, k, device=device, dtype=torch.bfloat16).transpose(1, 2)
        offsets = torch.arange(1, experts + 1, device=device, dtype=torch.int32) * rows
        t = seconds(lambda: torch._grouped_mm(a, w, offs=offsets))
        results["grouped"].append({"experts": experts, "rows": rows, "k": k, "n": n, "tflops": 2 * experts * rows * k * n / t / 1e12})
    except Exception as error:
        results["grouped"].append({"experts": experts, "rows": rows, "k": k, "n": n, "error": str(error)[:200]})
for heads, size, sequence in [(32, 128, 4096), (32, 128, 8192), (32, 64, 4096)]:
    q, k, v = (torch.randn(2, heads, sequence, size, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    forward = seconds(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    grad = torch.randn_like(out)
    backward = seconds(lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True))
    work = 2 * heads * 4 * size * sequence * sequence / 2
    results["attention"].append({"heads": heads, "size": size, "sequence": sequence, "forward": work / forward / 1e12, "backward": 2 * work / backward / 1e12})
text = json.dumps(results, indent=1)
print(text)
if len(sys.argv) > 1:
    open(sys.argv[1], "w").write(text + "\n")
