"""Writes megatron.json: what Megatron-LM's own functions give for small routers.

    git -C Megatron-LM show HEAD:megatron/core/transformer/moe/moe_utils.py > moe_utils.py
    python make.py moe_utils.py

Takes functions out of that file and runs them with PyTorch on the CPU in float64, so that nothing else of Megatron-LM is needed. The order in which they are called is that of
TopKRouter in router.py. Nothing of it is copied here.
"""
import ast
import json
import math
import pathlib
import sys
from typing import List, Optional, Tuple, Union

import torch

torch.manual_seed(1)
torch.set_default_dtype(torch.float64)

wanted = {
    "sinkhorn", "get_capacity", "apply_router_token_dropping", "switch_load_balancing_loss_func",
    "compute_routing_scores_for_aux_loss", "topk_routing_with_score_function", "get_updated_expert_bias",
}
tree = ast.parse(pathlib.Path(sys.argv[1]).read_text())
tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in wanted]
for node in tree.body:
    node.decorator_list = []
names = {"torch": torch, "math": math, "Optional": Optional, "Tuple": Tuple, "List": List, "Union": Union, "RouterReplay": object}
names["is_batch_invariant_mode_enabled"] = lambda: False
exec(compile(tree, "moe_utils.py", "exec"), names)
torch.distributed.all_reduce = lambda *_, **__: None
g = lambda name: names[name]

listed = lambda x: x.tolist()
# softmax(dtype=float32) inside would cost half of the digits.
softmax = torch.softmax
torch.softmax = lambda x, dim, dtype=None: softmax(x, dim=dim)
torch.Tensor.float = lambda self: self


def chosen(routing_map):
    return [[e for e, on in enumerate(row) if on] for row in routing_map.tolist()]


def sinkhorns():
    for tokens, experts, std, k in [(8, 4, 0.5, 1), (30, 6, 1.5, 2), (64, 8, 0.1, 3), (12, 5, 3.0, 1)]:
        logits = (torch.randn(tokens, experts) * std).float().double()
        matrix = g("sinkhorn")(logits)
        _, indices = torch.topk(matrix, k=k, dim=1)
        scores = torch.sigmoid(logits) if k == 1 else torch.softmax(logits, dim=-1)
        yield {"k": k, "logits": listed(logits), "matrix": listed(matrix), "chosen": listed(indices.sort(dim=1)[0]), "weights": listed(scores.gather(1, indices.sort(dim=1)[0]))}


def drops():
    for tokens, experts, k, factor, bias, pre in [(12, 4, 2, 1.0, 0, False), (12, 4, 2, 0.5, 1, True), (16, 8, 3, 0.75, 2, False), (9, 3, 1, 1.25, 2, True), (10, 5, 5, 0.3, 0, True)]:
        logits = (torch.randn(tokens, experts) + bias * torch.arange(experts) / experts).float().double()
        probs, routing_map = g("topk_routing_with_score_function")(logits, k, use_pre_softmax=pre)
        case = {"k": k, "factor": factor, "renormalised": not pre, "logits": listed(logits), "capacity": g("get_capacity")(tokens * k, experts, factor)}
        for policy in ("probs", "position"):
            if policy == "position":
                # torch.topk breaks ties as it likes; the intended order, the first tokens first, is made explicit.
                order = torch.arange(tokens, 0, -1).unsqueeze(1) / (2 * tokens)
                kept = g("apply_router_token_dropping")(routing_map * order, routing_map, k, factor, "probs")[1]
                case[policy] = listed(probs * kept)
            else:
                case[policy] = listed(g("apply_router_token_dropping")(probs, routing_map, k, factor, policy)[0])
        yield case


def losses():
    for score in ("softmax", "sigmoid"):
        batch, sequence, experts, k, micros = 3, 7, 5, 2, 3
        logits = (torch.randn(micros, batch * sequence, experts) + torch.arange(experts) / 3).float().double().requires_grad_()
        case = {"score": score, "batch": batch, "k": k, "logits": listed(logits)}
        tokens = batch * sequence
        counts = torch.zeros(experts)
        results = {"layer": [], "sequence": [], "running": []}
        for micro in range(micros):
            routing_map, scores = g("compute_routing_scores_for_aux_loss")(logits[micro], k, score)
            loss = lambda p, n, t: g("switch_load_balancing_loss_func")(p, n, t, k, experts, 1.0)
            results["layer"].append(loss(scores, routing_map.sum(0), tokens))
            # Megatron's tokens stand in the order [sequence, batch].
            turned = lambda x: x.reshape(batch, sequence, experts).transpose(0, 1).reshape(sequence, batch * experts)
            results["sequence"].append(loss(turned(scores), turned(routing_map).sum(0), sequence) / batch)
            counts += routing_map.sum(0)
            results["running"].append(loss(scores, counts / (micro + 1), tokens))
        for name, values in results.items():
            (gradient,) = torch.autograd.grad(sum(values), logits, retain_graph=True)
            case[name] = {"values": [float(v.detach()) for v in values], "gradient": listed(gradient)}
        yield case


def biases():
    counts = torch.tensor([5.0, 1.0, 3.0, 3.0])
    bias = torch.tensor([0.1, -0.2, 0.0, 0.5])
    yield {"counts": listed(counts), "bias": listed(bias), "rate": 0.01, "moved": listed(g("get_updated_expert_bias")(counts, bias, 0.01, object()))}


out = {"sinkhorn": list(sinkhorns()), "drop": list(drops()), "loss": list(losses()), "bias": list(biases())}
pathlib.Path(__file__).with_name("megatron.json").write_text(json.dumps(out) + "\n")
