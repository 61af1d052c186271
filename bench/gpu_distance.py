"""PyTorch's side of bench/gpu-distance.mjs: how far autocast in bfloat16 is from float32.

usage: gpu_distance.py gradients|trajectory|losses FOLDER...
Prints a JSON line for each folder and a distance for each residual stream, in float32 as autocast leaves it and in
bfloat16 as in the training step that speed is compared with: {"float32": ..., "bfloat16": ...} or {"error": ...}.
"""
import json
import os
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

logging.set_verbosity_error()
torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
D = "cuda" if torch.cuda.is_available() else "cpu"
STREAMS = ("float32", "bfloat16")


class Embedded:
    """While it lasts, embeddings come out in bfloat16, and with them the residual stream."""

    def __init__(self, model, stream):
        self.modules = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)] if stream == "bfloat16" else []

    def __enter__(self):
        self.hooks = [m.register_forward_hook(lambda _m, _i, out: out.bfloat16()) for m in self.modules]

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


def opened(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).to(D).eval()
    if getattr(model.config, "router_aux_loss_coef", None):
        model.config.output_router_logits = True
    return model


def loss_of(model, ids, stream):
    """The loss of a batch; in float32 throughout where `stream` is None."""
    with Embedded(model, stream), torch.autocast(D, torch.bfloat16, enabled=stream is not None):
        return model(input_ids=ids, labels=ids, use_cache=False).loss


def gradients(model, ids, stream):
    model.zero_grad()
    loss_of(model, ids, stream).backward()
    return torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])


def gradient_distances(folder):
    ids = load_file(os.path.join(folder, "expected.safetensors"))["input_ids"].long().to(D)
    model = opened(folder)
    exact = gradients(model, ids, None)
    return {stream: ((gradients(model, ids, stream) - exact).norm() / exact.norm()).item() for stream in STREAMS}


def trained(folder, batches, stream, o):
    """Losses of a training on the batches."""
    model = opened(folder)
    kind = dict(lr=o["lr"], betas=tuple(o["betas"]), eps=o["eps"], weight_decay=o["weight_decay"])
    optimizer = torch.optim.AdamW(model.parameters(), **kind)
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = loss_of(model, batch, stream)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), o["clip_grad_norm"])
        optimizer.step()
        losses.append(loss.item())
    return losses


def root_mean_square(found, expected):
    return (sum((a - b) ** 2 for a, b in zip(found, expected)) / len(expected)) ** 0.5


def trajectory_distances(folder):
    """From the golden trajectory."""
    trajectory = json.load(open(os.path.join(folder, "trajectory.json")))
    batches = load_file(os.path.join(folder, "batches.safetensors"))["input_ids"].long().to(D)
    expected = [step["loss"] for step in trajectory["steps"]]
    return {s: root_mean_square(trained(folder, batches, s, trajectory["optimizer"]), expected) for s in STREAMS}


def loss_distances(folder):
    """Of a short training on batches made of the golden input, from the same training in float32."""
    ids = load_file(os.path.join(folder, "expected.safetensors"))["input_ids"].long().to(D)
    o = json.loads(os.environ["OPTIMIZER"])
    vocabulary = opened(folder).config.vocab_size
    batches = [(ids + o["shift"] * step) % vocabulary for step in range(o["steps"])]
    exact = trained(folder, batches, None, o)
    found = {stream: root_mean_square(trained(folder, batches, stream, o), exact) for stream in STREAMS}
    return {**found, "first": exact[0]}


kinds = {"gradients": gradient_distances, "trajectory": trajectory_distances, "losses": loss_distances}
measure = kinds[sys.argv[1]]
for folder in sys.argv[2:]:
    try:
        print(json.dumps(measure(folder)), flush=True)
    except Exception as error:  # a class that this transformers does not have, or that this machine does not run
        print(json.dumps({"error": f"{type(error).__name__}: {error}"[:200]}), flush=True)
