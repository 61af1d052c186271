"""Runs Megatron-LM's pretrain_gpt.py as it is, in its folder, and records the first batch that the model sees.

    RECORD=FILE.json torchrun --nproc-per-node N .../record.py ARGUMENTS

Writes the ids, the labels and the mean of the token losses of the first GPTModel.forward, on rank 0. Only the standard library and
torch are imported beside Megatron-LM.
"""

import json
import os
import runpy
import sys

sys.path.insert(0, os.getcwd())
target = os.environ.get("RECORD") if os.environ.get("RANK", "0") == "0" else None

if target:
    import torch
    from megatron.core.models.gpt import GPTModel

    original = GPTModel.forward
    recorded = []

    def forward(self, input_ids, position_ids, attention_mask, *rest, **named):
        result = original(self, input_ids, position_ids, attention_mask, *rest, **named)
        if not recorded and named.get("labels") is not None and input_ids is not None:
            recorded.append(True)
            with torch.no_grad():
                loss = result.double().mean().item()
            with open(target, "w") as file:
                json.dump({"ids": input_ids.tolist(), "labels": named["labels"].tolist(), "loss": loss}, file)
            print(f"recorded the first batch, mean loss {loss:.9g}", flush=True)
        return result

    GPTModel.forward = forward

sys.argv = ["pretrain_gpt.py", *sys.argv[1:]]
runpy.run_path("pretrain_gpt.py", run_name="__main__")
