"""Prompt and generation speed of Hugging Face transformers on a GPU, for bench/generate.mjs, which starts this script and asks it for rounds in turn with ours.

usage: generate_gpu.py FOLDER PROMPT NEW BATCH MODE
bf16 weights, static cache, greedy decoding. The decoding step is compiled: with MODE `reduce-overhead` as generate() does it, its CUDA graph made by PyTorch; with `graph` by the default mode, and the whole step, choice of the token included, captured in one CUDA graph that feeds itself. Prompts are read eagerly and by a compiled model, and the faster one counts.
Prints one JSON line when it is ready; then, for each line on stdin, one with the milliseconds of a round.
"""
import json
import sys
import time

# Files beside this one must not be taken for packages of their names.
sys.path.pop(0)

folder, prompt, new, batch, mode = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, StaticCache

began = time.time()
transformers.utils.logging.set_verbosity_error()
torch.set_grad_enabled(False)
torch.set_float32_matmul_precision("high")
kinds = AutoConfig.from_pretrained(folder).model_type == "mixtral"
# Many tokens are sorted by expert; one gathers its experts' weights.
experts = {"experts_implementation": "grouped_mm"} if kinds else {}
stepExperts = "batched_mm" if batch == 1 else "grouped_mm"
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa", **experts).cuda().eval()
ids = torch.tensor([[(37 * i + 11 * row + 5) % model.config.vocab_size for i in range(prompt)] for row in range(batch)]).cuda()
cache = StaticCache(config=model.config, max_cache_len=prompt + new)


def empty():
    for layer in cache.layers:
        if torch.is_tensor(layer.cumulative_length):
            layer.cumulative_length.zero_()


def use(implementation):
    if kinds and model.config._experts_implementation != implementation:
        model.set_experts_implementation(implementation)


def read(ids):
    return model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1].argmax(-1, keepdim=True)


token = read(ids)
empty()
readers = {"eager": read}
try:
    fast = torch.compile(read)
    for _ in range(2):
        fast(ids)
        empty()
    readers["compiled"] = fast
except Exception as error:
    print(f"a compiled model does not read prompts: {error}"[:300], file=sys.stderr)
    torch._dynamo.reset()
    empty()


def step(token):
    return model(token, past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1, keepdim=True)


use(stepExperts)
# A function of its own, so that a step is not taken for a short prompt.
fast_step = torch.compile(step, mode="reduce-overhead" if mode == "reduce-overhead" else None)
for _ in range(4):
    torch.compiler.cudagraph_mark_step_begin()
    token = fast_step(token).clone()
if mode == "graph":
    fed = token.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            fed.copy_(fast_step(fed))
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fed.copy_(fast_step(fed))


def write(token):
    texts = [token]
    if mode == "graph":
        fed.copy_(token)
        for _ in range(new - 1):
            graph.replay()
            texts.append(fed.clone())
        return texts
    for _ in range(new - 1):
        torch.compiler.cudagraph_mark_step_begin()
        token = fast_step(token).clone()
        texts.append(token)
    return texts


def timed(work):
    torch.cuda.synchronize()
    start = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1000, result


def rounds():
    reads = {}
    use("grouped_mm")
    for name, reader in readers.items():
        empty()
        reads[name], token = timed(lambda: reader(ids))
    best = min(reads, key=reads.get)
    use(stepExperts)
    ms, texts = timed(lambda: write(token))
    return {"promptMs": reads[best], "reader": best, "newMs": ms}, texts


rounds()
print(json.dumps({"engine": "transformers", "torch": torch.__version__, "transformers": transformers.__version__, "mode": mode,
                  **({"experts": [experts["experts_implementation"], stepExperts]} if kinds else {}), "gpu": torch.cuda.get_device_name(), "warmSeconds": round(time.time() - began, 1)}), flush=True)
for line in sys.stdin:
    times, texts = rounds()
    print(json.dumps({**times, "ids": torch.cat(texts, 1).tolist()}), flush=True)
