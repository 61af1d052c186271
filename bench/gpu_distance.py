"""PyTorch's side of bench/gpu-distance.mjs: how far autocast in bfloat16 is from float32.

usage: gpu_distance.py gradients|trajectory FOLDER...
Prints a JSON line for each folder: {"distance": ...} or {"error": ...}.
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


def opened(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).to(D).eval()
    if getattr(model.config, "router_aux_loss_coef", None):
        model.config.output_router_logits = True
    return model


def gradients(model, ids, half):
    model.zero_grad()
    with torch.autocast(D, torch.bfloat16, enabled=half):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])


def gradient_distance(folder):
    ids = load_file(os.path.join(folder, "expected.safetensors"))["input_ids"].long().to(D)
    model = opened(folder)
    exact = gradients(model, ids, False)
    return ((gradients(model, ids, True) - exact).norm() / exact.norm()).item()


def trajectory_distance(folder):
    trajectory = json.load(open(os.path.join(folder, "trajectory.json")))
    batches = load_file(os.path.join(folder, "batches.safetensors"))["input_ids"].long().to(D)
    o = trajectory["optimizer"]
    model = opened(folder)
    kind = dict(lr=o["lr"], betas=tuple(o["betas"]), eps=o["eps"], weight_decay=o["weight_decay"])
    optimizer = torch.optim.AdamW(model.parameters(), **kind)
    total = 0.0
    for step, expected in enumerate(trajectory["steps"]):
        optimizer.zero_grad()
        with torch.autocast(D, torch.bfloat16):
            loss = model(input_ids=batches[step], labels=batches[step], use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), o["clip_grad_norm"])
        optimizer.step()
        total += (loss.item() - expected["loss"]) ** 2
    return (total / len(trajectory["steps"])) ** 0.5


measure = {"gradients": gradient_distance, "trajectory": trajectory_distance}[sys.argv[1]]
for folder in sys.argv[2:]:
    try:
        print(json.dumps({"distance": measure(folder)}), flush=True)
    except Exception as error:  # a class that this transformers does not have, or that this GPU does not run
        print(json.dumps({"error": f"{type(error).__name__}: {error}"[:200]}), flush=True)
