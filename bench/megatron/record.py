"""Runs Megatron-LM's pretrain_gpt.py as it is, in its folder, and records the first batch that the model sees.

    RECORD=FILE.json torchrun --nproc-per-node N .../record.py ARGUMENTS

Writes the ids, the labels and the mean of the token losses of the first GPTModel.forward: on rank 0, or, with several pipeline
stages, the ids on the first stage and the rest on the last one, into FILE.json.RANK, which join.py puts together. Only the standard
library and torch are imported beside Megatron-LM.
"""

import atexit
import json
import os
import runpy
import sys

sys.path.insert(0, os.getcwd())
target = os.environ.get("RECORD")
rank = int(os.environ.get("RANK", "0"))

if target:
    import torch
    from megatron.core import parallel_state
    from megatron.core.models.gpt import GPTModel

    original = GPTModel.forward
    recorded = []

    def forward(self, input_ids, position_ids, attention_mask, *rest, **named):
        result = original(self, input_ids, position_ids, attention_mask, *rest, **named)
        if recorded:
            return result
        recorded.append(True)
        # The first rank of each stage stands for its stage.
        others = [
            parallel_state.get_tensor_model_parallel_rank(),
            parallel_state.get_data_parallel_rank(with_context_parallel=True),
        ]
        if any(others):
            return result
        found = {}
        if self.pre_process and input_ids is not None:
            found["ids"] = input_ids.tolist()
        if self.post_process and named.get("labels") is not None:
            found["labels"] = named["labels"].tolist()
            with torch.no_grad():
                found["loss"] = result.double().mean().item()
            print(f"recorded the first batch, mean loss {found['loss']:.9g}", flush=True)
        with open(f"{target}.{rank}", "w") as file:
            json.dump(found, file)
        return result

    GPTModel.forward = forward


def norms_of_parts():
    """
    PyTorch's norms with --sequence-parallel, which Megatron-LM refuses: each rank norms its part of the tokens, and the weights are
    marked, so that Megatron-LM sums their gradients over the ranks as it does for its own fused norms.
    """
    from megatron.core.transformer import torch_norm

    plain = torch_norm.WrappedTorchNorm.__new__

    def norm(cls, config, *rest, **named):
        if not config.sequence_parallel:
            return plain(cls, config, *rest, **named)
        config.sequence_parallel = False
        try:
            made = plain(cls, config, *rest, **named)
        finally:
            config.sequence_parallel = True
        for weight in made.parameters():
            weight.sequence_parallel = True
        return made

    torch_norm.WrappedTorchNorm.__new__ = norm


def tell_memory():
    """The most that this rank held, and what the device has in use: both in bytes."""
    import torch

    free, total = torch.cuda.mem_get_info()
    peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    print(f"peak memory of rank {rank}: allocated {peaks[0]} reserved {peaks[1]} device {total - free}", flush=True)


if "--sequence-parallel" in sys.argv and "local" in sys.argv:
    norms_of_parts()
if "RANK" in os.environ:
    atexit.register(tell_memory)
sys.argv = ["pretrain_gpt.py", *sys.argv[1:]]
runpy.run_path("pretrain_gpt.py", run_name="__main__")
