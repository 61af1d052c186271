"""Reads distributed checkpoints with PyTorch's own reader: `python read_dcp.py FOLDER...` prints every tensor's bytes as JSON."""

import json
import sys

import torch
import torch.distributed.checkpoint as dcp


def tensors(folder):
    reader = dcp.FileSystemReader(folder)
    listed = reader.read_metadata().state_dict_metadata
    state = {key: torch.zeros(one.size, dtype=one.properties.dtype) for key, one in listed.items() if hasattr(one, "size")}
    dcp.load(state, storage_reader=reader, no_dist=True)
    return {key: bytes(one.contiguous().untyped_storage().tolist()).hex() for key, one in state.items()}


json.dump({folder: tensors(folder) for folder in sys.argv[1:]}, sys.stdout)
