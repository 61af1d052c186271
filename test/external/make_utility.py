"""Makes test/surgery/calibration/golden/utility.json with transformers: what each expert of a golden model is worth.

usage: python test/external/make_utility.py

`load`: tokens that each expert serves. `gradient`: the squared norm of the gradient of the mean cross entropy on each
expert's weights, the gradient being the mean over sequences. In float32, on fixed token ids.
"""

import json
import pathlib

import torch
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent.parent
LENGTH, SEQUENCES = 16, 4


def measure(name):
    model = AutoModelForCausalLM.from_pretrained(HERE / "golden/moe" / name, dtype=torch.float32)
    model.eval()
    generator = torch.Generator().manual_seed(3)
    # The ids of the eight words that test/support/word-tokenizer.ts knows.
    ids = torch.randint(3, 11, (SEQUENCES, LENGTH), generator=generator)
    config = model.config
    layers = model.model.layers
    sparse = [i for i, layer in enumerate(layers) if hasattr(layer.mlp, "experts")]
    load = {i: torch.zeros(layers[i].mlp.experts.num_experts, dtype=torch.int64) for i in sparse}
    for sequence in ids:
        out = model(sequence[None], output_router_logits=True)
        for i, logits in zip(sparse, out.router_logits):
            chosen = logits.softmax(-1).topk(config.num_experts_per_tok, -1).indices.flatten()
            load[i] += torch.bincount(chosen, minlength=len(load[i]))
        loss = torch.nn.functional.cross_entropy(out.logits[0, :-1], sequence[1:])
        (loss / SEQUENCES).backward()
    gradient = {
        i: sum(
            weight.grad.double().pow(2).sum(dim=(1, 2)) for weight in layers[i].mlp.experts.parameters()
        ).tolist()
        for i in sparse
    }
    return {
        "model": name,
        "sequence": LENGTH,
        "ids": ids.flatten().tolist(),
        "load": [load[i].tolist() if i in load else None for i in range(len(layers))],
        "gradient": [gradient.get(i) for i in range(len(layers))],
    }


def main():
    cases = [measure(name) for name in ("mixtral", "qwen2_moe", "qwen3_moe_mixed")]
    path = HERE / "surgery/calibration/golden/utility.json"
    path.write_text(json.dumps(cases) + "\n")


main()
