"""equal.py SAVED BACK FILE.json: whether two checkpoints of Megatron-LM hold the same tensors, read by PyTorch alone.

SAVED is what Megatron-LM saved, BACK what upcycle import and upcycle export made of it. Every tensor of SAVED must be in BACK with the
same shape, the same precision and the same bits. BACK may hold more: names that other versions and Transformer Engine ask for.
"""

import json
import os
import sys

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

saved, back, target = sys.argv[1:]


def folder(path):
    with open(f"{path}/latest_checkpointed_iteration.txt") as file:
        named = file.read().strip()
    return os.path.join(path, named if named == "release" else f"iter_{int(named):07d}")


def tensors(path):
    described = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    return {key: value for key, value in described.items() if isinstance(value, TensorStorageMetadata)}


def read(path, key, described):
    state = {key: torch.empty(described.size, dtype=described.properties.dtype)}
    dcp.load(state, storage_reader=dcp.FileSystemReader(path), no_dist=True)
    return state[key]


saved, back = folder(saved), folder(back)
ours, theirs = tensors(back), tensors(saved)
differing = []
count = 0
for key, described in sorted(theirs.items()):
    other = ours.get(key)
    if other is None or other.size != described.size or other.properties.dtype != described.properties.dtype:
        differing.append(f"{key}: {None if other is None else [list(other.size), str(other.properties.dtype)]}")
        continue
    one, two = read(saved, key, described), read(back, key, other)
    count += one.numel()
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    if not torch.equal(one.view(bits), two.view(bits)):
        differing.append(f"{key}: other values")
result = {"tensors": len(theirs), "values": count, "differing": differing}
with open(target, "w") as file:
    json.dump(result, file)
print(json.dumps(result))
sys.exit(1 if differing or not theirs else 0)
