"""One measurement of PyTorch on the benchmark's sizes -> one JSON line.

    python train.py dense|moe|fine STEPS THREADS --start FILE [settings]

FILE holds weights and tokens as bench/start.mjs writes them. The settings are ways to compute the same function; which is
fastest depends on size, machine and build, so bench/train.mjs tries them and compares with the best.
"""
import argparse
import json
import platform
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("size", choices=("dense", "moe", "fine"))
parser.add_argument("steps", type=int)
parser.add_argument("threads", type=int)
parser.add_argument("--start", required=True)
parser.add_argument("--rate", type=float, default=1e-3)
parser.add_argument("--attention", choices=("sdpa", "plain"), default="sdpa")
parser.add_argument("--optimizer", choices=("fused", "foreach", "plain"), default="fused")
parser.add_argument("--experts", choices=("loop", "sorted", "grouped"), default="loop")
parser.add_argument("--joined", action="store_true", help="one matrix for q, k, v and one for gate and up")
parser.add_argument("--compile", action="store_true")
args = parser.parse_args()

HIDDEN, LAYERS, HEADS, SEQUENCE, BATCH, VOCAB, INNER = 256, 4, 4, 256, 8, 4096, 704
EXPERTS, TOP_K, EXPERT_INNER = {"dense": (0, 0, 0), "moe": (8, 2, INNER), "fine": (64, 8, INNER // 8)}[args.size]
torch.set_num_threads(args.threads)


def read_safetensors(path):
    """The tensors of a file; so small that PyTorch is the only package this script needs."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = bytearray(file.read())
    types = {"F32": torch.float32, "I32": torch.int32}
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[name] = torch.frombuffer(data[begin:end], dtype=types[entry["dtype"]]).view(entry["shape"])
    return tensors


start = read_safetensors(args.start)
TOKENS = start.pop("tokens").long()


def take(*keys):
    """Start weights by key, one below the other."""
    return torch.cat([start.pop(key) for key in keys])


class Linear(nn.Module):
    """nn.Linear without bias, from start weights."""

    def __init__(self, *keys):
        super().__init__()
        self.weight = nn.Parameter(take(*keys))

    def forward(self, x):
        return F.linear(x, self.weight)


class Norm(nn.Module):
    def __init__(self, key):
        super().__init__()
        self.weight = nn.Parameter(take(key))

    def forward(self, x):
        return F.rms_norm(x, (HIDDEN,), self.weight, 1e-5)


class SwiGlu(nn.Module):
    def __init__(self, at):
        super().__init__()
        if args.joined:
            self.gate_up = Linear(f"{at}.gate", f"{at}.up")
        else:
            self.gate, self.up = Linear(f"{at}.gate"), Linear(f"{at}.up")
        self.down = Linear(f"{at}.down")

    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, -1) if args.joined else (self.gate(x), self.up(x))
        return self.down(F.silu(gate) * up)


class Moe(nn.Module):
    """Dropless top-k mixture."""

    def __init__(self, at):
        super().__init__()
        self.router = Linear(f"{at}.router")
        experts = [f"{at}.experts.{expert}" for expert in range(EXPERTS)]
        if args.experts == "grouped":
            gate_up = [take(f"{expert}.gate", f"{expert}.up") for expert in experts]
            self.gate_up = nn.Parameter(torch.stack(gate_up))
            self.down = nn.Parameter(torch.stack([take(f"{expert}.down") for expert in experts]))
        else:
            self.experts = nn.ModuleList(SwiGlu(expert) for expert in experts)

    def forward(self, x):
        rows = x.reshape(-1, HIDDEN)
        weights, chosen = torch.topk(self.router(rows), TOP_K, dim=-1)
        weights = F.softmax(weights, dim=-1)
        mix = self.loop if args.experts == "loop" else self.by_expert
        return mix(rows, weights, chosen).view_as(x)

    def loop(self, rows, weights, chosen):
        """As transformers' eager path does it: per expert, gather its tokens and add its outputs."""
        out = torch.zeros_like(rows)
        for expert, network in enumerate(self.experts):
            token, slot = torch.where(chosen == expert)
            out.index_add_(0, token, network(rows[token]) * weights[token, slot, None])
        return out

    def by_expert(self, rows, weights, chosen):
        """All rows sorted by expert once, then cut."""
        flat = chosen.flatten()
        order = torch.argsort(flat, stable=True)
        counts = torch.bincount(flat, minlength=EXPERTS)
        routed = rows[order // TOP_K]
        if args.experts == "grouped":
            ends = counts.cumsum(0).to(torch.int32)
            gate, up = F.grouped_mm(routed, self.gate_up.transpose(1, 2), offs=ends).chunk(2, -1)
            out = F.grouped_mm(F.silu(gate) * up, self.down.transpose(1, 2), offs=ends)
        else:
            parts = routed.split(counts.tolist())
            out = torch.cat([network(part) for network, part in zip(self.experts, parts)])
        by_token = out[torch.argsort(order)].view(-1, TOP_K, HIDDEN)
        return (by_token * weights[..., None]).sum(1)


class Block(nn.Module):
    def __init__(self, layer):
        super().__init__()
        at = f"layers.{layer}"
        self.norm1, self.norm2 = Norm(f"{at}.inputNorm"), Norm(f"{at}.ffnNorm")
        if args.joined:
            self.qkv = Linear(f"{at}.q", f"{at}.k", f"{at}.v")
        else:
            self.q, self.k, self.v = Linear(f"{at}.q"), Linear(f"{at}.k"), Linear(f"{at}.v")
        self.o = Linear(f"{at}.o")
        self.ffn = Moe(at) if EXPERTS else SwiGlu(at)

    def forward(self, x, cos, sin, mask):
        h = self.norm1(x)
        projected = self.qkv(h).chunk(3, -1) if args.joined else (self.q(h), self.k(h), self.v(h))
        q, k, v = (y.view(BATCH, SEQUENCE, HEADS, -1).transpose(1, 2) for y in projected)
        q, k = (y * cos + torch.cat((-y[..., y.shape[-1] // 2:], y[..., : y.shape[-1] // 2]), -1) * sin for y in (q, k))
        if args.attention == "sdpa":
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-1, -2) * (HIDDEN // HEADS) ** -0.5 + mask
            mixed = F.softmax(scores, -1) @ v
        x = x + self.o(mixed.transpose(1, 2).reshape(BATCH, SEQUENCE, HIDDEN))
        return x + self.ffn(self.norm2(x))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Parameter(take("embed"))
        self.blocks = nn.ModuleList(Block(layer) for layer in range(LAYERS))
        self.norm, self.head = Norm("finalNorm"), Linear("head")
        size = HIDDEN // HEADS
        angle = torch.arange(SEQUENCE)[:, None] * 10000 ** (-torch.arange(0, size, 2) / size)[None]
        self.cos, self.sin = torch.cat((angle, angle), -1).cos(), torch.cat((angle, angle), -1).sin()
        self.mask = torch.full((SEQUENCE, SEQUENCE), float("-inf")).triu(1)

    def forward(self, ids):
        x = F.embedding(ids, self.embed)
        for block in self.blocks:
            x = block(x, self.cos, self.sin, self.mask)
        return self.head(self.norm(x))


model = Decoder()
if start:
    sys.exit(f"start weights not used: {list(start)[:3]}")
parameters = sum(p.numel() for p in model.parameters())
kind = {"fused": {"fused": True}, "foreach": {"foreach": True}, "plain": {"foreach": False}}[args.optimizer]
optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, **kind)
if args.compile:
    model = torch.compile(model)
times, losses = [], []
for step in range(args.steps):
    tokens = TOKENS[step % len(TOKENS)]
    ids, targets = tokens[:-1].view(BATCH, SEQUENCE).contiguous(), tokens[1:].contiguous()
    began = time.perf_counter()
    loss = F.cross_entropy(model(ids).view(-1, VOCAB), targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    times.append((time.perf_counter() - began) * 1000)
warm = sorted(times[2:])
middle = warm[len(warm) // 2]
usage = resource.getrusage(resource.RUSAGE_SELF)
# Kilobytes on Linux, bytes on macOS.
peak = usage.ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
print(json.dumps({
    "engine": f"torch {torch.__version__}", "python": platform.python_version(), "size": args.size, "parameters": parameters, "stepMs": middle,
    "minMs": warm[0], "tokensPerSecond": BATCH * SEQUENCE / middle * 1000, "peakBytes": peak,
    "cpuMs": (usage.ru_utime + usage.ru_stime) * 1000, "losses": losses,
}))
