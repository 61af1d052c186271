"""Prompt and generation speed of Hugging Face transformers on the CPU: generate.py FOLDER THREADS PROMPT NEW BATCH ROUNDS -> one JSON line."""
import json
import sys
import time

# Files beside this one must not be taken for packages of their names.
sys.path.pop(0)

folder, threads, prompt, new, batch, rounds = sys.argv[1], *map(int, sys.argv[2:7])
import torch
import transformers

torch.set_num_threads(threads)
transformers.utils.logging.set_verbosity_error()
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
ids = torch.tensor([[(37 * i + 11 * row + 5) % model.config.vocab_size for i in range(prompt)] for row in range(batch)])
texts, reads, writes = [], [], []
with torch.inference_mode():
    for _ in range(rounds + 1):
        start = time.perf_counter()
        out = model(ids, use_cache=True, logits_to_keep=1)
        reads.append(time.perf_counter() - start)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        texts = [token]
        start = time.perf_counter()
        for _ in range(new - 1):
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            texts.append(token)
        writes.append(time.perf_counter() - start)
median = lambda times: sorted(times[1:])[len(times[1:]) // 2]
print(json.dumps({
    "engine": "transformers", "torch": torch.__version__, "transformers": transformers.__version__,
    "promptTokensPerSecond": batch * prompt / median(reads), "tokensPerSecond": batch * (new - 1) / median(writes), "ids": torch.cat(texts, 1).tolist(),
}))
