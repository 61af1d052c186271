"""PyTorch's training step for the sizes of bench/gpu.mjs, which starts this script and asks it for runs in turn with ours.

bf16 autocast with fp32 master weights, fused AdamW, clipping, SDPA, torch.compile; a mixture of experts is dropless by
sorting and grouped_mm. With mode `graph` the whole step, optimizer included, is captured in one CUDA graph.

usage: gpu_anchor.py SIZE_JSON BATCH SEQUENCE MODE
Prints one JSON line when it is ready; then, for each line on stdin that holds a number of steps, one with their ms.
"""
import json
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.allow_tf32 = True
D = "cuda"


class RMS(nn.Module):
    def __init__(s, d): super().__init__(); s.w = nn.Parameter(torch.ones(d))
    def forward(s, x): return F.rms_norm(x, (x.shape[-1],), s.w.to(x.dtype), 1e-5)
def rope(x, cos, sin):
    a, b = x.chunk(2, -1); return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
class Attn(nn.Module):
    def __init__(s, d, h): super().__init__(); s.h = h; s.qkv = nn.Linear(d, 3 * d, bias=False); s.o = nn.Linear(d, d, bias=False)
    def forward(s, x, cos, sin):
        B, S, d = x.shape; q, k, v = s.qkv(x).view(B, S, 3, s.h, d // s.h).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = rope(q, cos, sin), rope(k, cos, sin)
        return s.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, S, d))
class MLP(nn.Module):
    def __init__(s, d, f): super().__init__(); s.gu = nn.Linear(d, 2 * f, bias=False); s.dn = nn.Linear(f, d, bias=False)
    def forward(s, x): g, u = s.gu(x).chunk(2, -1); return s.dn(F.silu(g) * u), x.new_zeros(())
class MoE(nn.Module):
    def __init__(s, d, f, E, T):
        super().__init__(); s.E, s.T = E, T; s.r = nn.Linear(d, E, bias=False)
        s.gu = nn.Parameter(torch.randn(E, d, 2 * f) * .02); s.dn = nn.Parameter(torch.randn(E, f, d) * .02)
    def forward(s, x):
        B, S, d = x.shape; x = x.reshape(-1, d); N = x.shape[0]
        with torch.autocast(D, enabled=False): p = (x.float() @ s.r.weight.float().t()).softmax(-1)
        w, i = p.topk(s.T, -1); w = w / w.sum(-1, keepdim=True)
        fl = i.reshape(-1); o = fl.argsort(); cnt = torch.zeros(s.E, device=x.device, dtype=torch.int64).scatter_add_(0, fl, torch.ones_like(fl))
        offs = cnt.cumsum(0).to(torch.int32); tok = o // s.T
        xs = x[tok].bfloat16(); g, u = F.grouped_mm(xs, s.gu.bfloat16(), offs=offs).chunk(2, -1)
        y = F.grouped_mm(F.silu(g) * u, s.dn.bfloat16(), offs=offs) * w.reshape(-1)[o, None].bfloat16()
        out = torch.zeros(N, d, device=x.device, dtype=torch.bfloat16).index_add_(0, tok, y)
        aux = s.E * ((cnt.float() / (N * s.T)) * p.mean(0)).sum()
        return out.view(B, S, d), aux
class LM(nn.Module):
    def __init__(s, V, d, L, h, f, E=0, T=0):
        super().__init__(); s.e = nn.Embedding(V, d); s.hd = d // h
        s.a = nn.ModuleList(Attn(d, h) for _ in range(L)); s.m = nn.ModuleList((MoE(d, f, E, T) if E else MLP(d, f)) for _ in range(L))
        s.n1 = nn.ModuleList(RMS(d) for _ in range(L)); s.n2 = nn.ModuleList(RMS(d) for _ in range(L)); s.nf = RMS(d); s.head = nn.Linear(d, V, bias=False)
        for q in s.parameters():
            if q.dim() == 2: nn.init.normal_(q, 0, .02)
    def forward(s, ids, tgt, cos, sin):
        x = s.e(ids).bfloat16(); aux = 0.
        for a, m, n1, n2 in zip(s.a, s.m, s.n1, s.n2):
            x = x + a(n1(x), cos, sin); y, l = m(n2(x)); x = x + y; aux = aux + l
        return F.cross_entropy(s.head(s.nf(x)).float().view(-1, s.head.weight.shape[0]), tgt.view(-1)) + .01 * aux

def prepare(c, B, S, mode):
    torch.manual_seed(0)
    m = LM(**c).to(D)
    opt = torch.optim.AdamW(m.parameters(), 3e-4, betas=(.9, .95), weight_decay=.1, fused=True, capturable=mode == "graph")
    pos = torch.arange(S, device=D)[:, None] / 1e4 ** (torch.arange(0, m.hd, 2, device=D)[None] / m.hd)
    cos, sin = pos.cos().bfloat16(), pos.sin().bfloat16()
    ids, tgt = (torch.randint(0, c["V"], (B, S), device=D) for _ in range(2))
    f = m if mode == "eager" else torch.compile(m)

    def step():
        with torch.autocast(D, torch.bfloat16):
            loss = f(ids, tgt, cos, sin)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0, foreach=True)
        opt.step()
        opt.zero_grad(set_to_none=True)
        return loss

    for _ in range(4):
        step()
    if mode != "graph":
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


if __name__ == "__main__":
    size, batch, sequence, mode = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    began = time.time()
    step = prepare(size, batch, sequence, mode)
    step()
    torch.cuda.synchronize()
    ready = {"torch": torch.__version__, "mode": mode, "warmSeconds": round(time.time() - began, 1)}
    print(json.dumps({**ready, "peakGigabytes": round(torch.cuda.max_memory_allocated() / 1e9, 2)}), flush=True)
    for line in sys.stdin:
        steps = int(line)
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
        print(json.dumps({"ms": (time.perf_counter() - began) * 1000 / steps}), flush=True)
