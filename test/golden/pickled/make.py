"""Writes the files of this folder with torch: `python make.py` in it. Small, so that they can be committed.

tensors.bin       every dtype, parameters, transposed, sliced and tied tensors, one state dict with `_metadata`
expected.safetensors   the same tensors, contiguous, as safetensors
protocol4.bin     two tensors, pickle protocol 4
legacy.bin        the format of torch before 1.6
llama/            the golden Llama as two shards with an index, saved from one fused storage per shard
"""
import json
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

here = Path(__file__).parent
torch.manual_seed(0)


def values(*shape):
    return torch.randn(*shape)


base = values(6, 8)
floats = {
    "plain": values(3, 5),
    "transposed": values(4, 7).t(),
    "columns": base[:, 2:5],
    "rows": base[1:4],
    "every_other": base[::2, ::3],
    "permuted": values(2, 3, 4).permute(2, 0, 1),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
    "parameter": torch.nn.Parameter(values(2, 2)),
    "half": values(5).half(),
    "bfloat16": values(5).bfloat16(),
    "double": values(5).double(),
    "e4m3": values(9).to(torch.float8_e4m3fn),
    "e5m2": values(9).to(torch.float8_e5m2),
    "uint16": torch.arange(3).to(torch.uint16),
    "int64": torch.arange(3),
    "int32": torch.arange(3, dtype=torch.int32),
    "int16": torch.arange(3, dtype=torch.int16),
    "int8": torch.arange(3, dtype=torch.int8),
    "uint8": torch.arange(3, dtype=torch.uint8),
    "bool": torch.tensor([True, False]),
}
state = OrderedDict(floats)
state["tied"] = state["plain"]
state._metadata = OrderedDict({"": {"version": 1}})
torch.save(state, here / "tensors.bin")
save_file({name: tensor.detach().contiguous().clone() for name, tensor in state.items()}, here / "expected.safetensors")
torch.save({"a": base, "b": base.t()}, here / "protocol4.bin", pickle_protocol=4)
torch.save({"a": base}, here / "legacy.bin", _use_new_zipfile_serialization=False)

llama = load_file(here.parent / "dense/llama/model.safetensors")
names = sorted(llama)
weight_map = {}
(here / "llama").mkdir(exist_ok=True)
for index, part in enumerate((names[:11], names[11:])):
    # One storage for all, matrices stored the other way round: what a careless script leaves behind.
    storage = torch.cat([llama[name].t().flatten() if llama[name].dim() == 2 else llama[name] for name in part])
    views, at = {}, 0
    for name in part:
        shape, count = llama[name].shape, llama[name].numel()
        flat = storage[at : at + count]
        views[name] = flat.view(shape[1], shape[0]).t() if len(shape) == 2 else flat
        at += count
    file = f"pytorch_model-0000{index + 1}-of-00002.bin"
    torch.save(views, here / "llama" / file)
    weight_map |= {name: file for name in part}
total = sum(tensor.numel() * 4 for tensor in llama.values())
index = {"metadata": {"total_size": total}, "weight_map": weight_map}
(here / "llama/pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")
print(f"torch {torch.__version__}", file=sys.stderr)
