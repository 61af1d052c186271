"""One measurement of eager PyTorch on the benchmark's sizes: python train.py dense|moe|fine STEPS THREADS -> one JSON line.

Settings are PyTorch's best on a CPU: fused AdamW, scaled_dot_product_attention, fixed thread count.
"""
import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

SIZE, STEPS, THREADS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
HIDDEN, LAYERS, HEADS, SEQUENCE, BATCH, VOCAB, INNER = 256, 4, 4, 256, 8, 4096, 704
EXPERTS, TOP_K, EXPERT_INNER = {"dense": (0, 0, 0), "moe": (8, 2, INNER), "fine": (64, 8, INNER // 8)}[SIZE]
torch.set_num_threads(THREADS)
torch.manual_seed(0)


def linear(inputs, outputs, std=0.04):
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=std)
    return layer


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x):
        return F.rms_norm(x, (HIDDEN,), self.weight, 1e-5)


class SwiGlu(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.gate, self.up, self.down = linear(HIDDEN, inner), linear(HIDDEN, inner), linear(inner, HIDDEN)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Moe(nn.Module):
    """Dropless top-k mixture: a loop over experts with gather and index_add, as transformers' eager path does it."""

    def __init__(self):
        super().__init__()
        self.router = linear(HIDDEN, EXPERTS, 0.1)
        self.experts = nn.ModuleList(SwiGlu(EXPERT_INNER) for _ in range(EXPERTS))

    def forward(self, x):
        rows = x.reshape(-1, HIDDEN)
        weights, chosen = torch.topk(self.router(rows), TOP_K, dim=-1)
        weights = F.softmax(weights, dim=-1)
        out = torch.zeros_like(rows)
        for expert, network in enumerate(self.experts):
            token, slot = torch.where(chosen == expert)
            out.index_add_(0, token, network(rows[token]) * weights[token, slot, None])
        return out.view_as(x)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = Norm(), Norm()
        self.q, self.k, self.v, self.o = (linear(HIDDEN, HIDDEN) for _ in range(4))
        self.ffn = Moe() if EXPERTS else SwiGlu(INNER)

    def forward(self, x, cos, sin):
        h = self.norm1(x)
        q, k, v = (p(h).view(BATCH, SEQUENCE, HEADS, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
        q, k = (y * cos + torch.cat((-y[..., y.shape[-1] // 2:], y[..., : y.shape[-1] // 2]), -1) * sin for y in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(mixed.transpose(1, 2).reshape(BATCH, SEQUENCE, HIDDEN))
        return x + self.ffn(self.norm2(x))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = Norm(), linear(HIDDEN, VOCAB)
        size = HIDDEN // HEADS
        angle = torch.arange(SEQUENCE)[:, None] * 10000 ** (-torch.arange(0, size, 2) / size)[None]
        self.cos, self.sin = torch.cat((angle, angle), -1).cos(), torch.cat((angle, angle), -1).sin()

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.head(self.norm(x))


model = Decoder()
if "compile" in sys.argv:
    model = torch.compile(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
times, losses = [], []
for step in range(STEPS):
    text = (torch.rand(BATCH, SEQUENCE + 1) ** 2 * VOCAB).long()
    start = time.perf_counter()
    loss = F.cross_entropy(model(text[:, :-1]).view(-1, VOCAB), text[:, 1:].reshape(-1))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    times.append((time.perf_counter() - start) * 1000)
warm = sorted(times[2:])
middle = warm[len(warm) // 2]
print(json.dumps({
    "engine": f"torch {torch.__version__}", "size": SIZE, "stepMs": middle, "minMs": warm[0], "tokensPerSecond": BATCH * SEQUENCE / middle * 1000,
    "peakBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "losses": losses,
}))
