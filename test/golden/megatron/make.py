"""Writes upcycled.safetensors with Megatron-LM's own code: `python make.py upcycling_utils.py` in this folder.

The argument is megatron/core/transformer/moe/upcycling_utils.py of the public repository NVIDIA/Megatron-LM. It runs as it is, behind stand-ins for the
three classes that it imports; the models are bare state dicts of one layer of width 2, whose FFN has 8 hidden units, in PyTorch on a CPU.

<kind>.<dtype>.{fc1,fc1_bias,fc2,fc2_bias}       the dense layer; gated: fc1 holds the gate rows, then the up rows
<kind>.<dtype>.<recipe>.<order>.{...}             the same of all experts, in Megatron's order; `router` where the order is topk-softmax
scales, scale_values                               rows (E, G, T, 2 or 3 for a square or cube root), softmax-topk, and the factor that each of them gives
"""
import importlib.util
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

here = Path(__file__).parent


class Experts:
    pass


class Layer:
    def named_modules(self):
        return [("experts", Experts())]


def stub(name, **members):
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module


for name in ("megatron", "megatron.core", "megatron.core.transformer", "megatron.core.transformer.moe"):
    stub(name)
stub("megatron.core.transformer.moe.experts", SequentialMLP=Experts, TEGroupedMLP=type("TEGroupedMLP", (), {}))
stub("megatron.core.transformer.moe.moe_layer", BaseMoELayer=Layer)
loaded = importlib.util.spec_from_file_location("upcycling_utils", sys.argv[1])
utils = importlib.util.module_from_spec(loaded)
loaded.loader.exec_module(utils)


class Model:
    """What the code asks of a model: named modules and a state dict."""

    def __init__(self, modules, state):
        self.modules, self.state = modules, state

    def named_modules(self):
        return self.modules.items()

    def state_dict(self):
        return self.state


def silu():
    pass


def gelu():
    pass


def squared_relu():
    pass


HIDDEN, INNER = 2, 8
KINDS = {"gated": (silu, True), "gelu": (gelu, False), "relu2": (squared_relu, False)}


def upcycle(kind, state, expansion, granularity, top_k, pre_softmax):
    function, gated = KINDS[kind]
    experts = expansion * granularity
    layer = Layer()
    layer.num_local_experts = experts
    layer.ep_group = types.SimpleNamespace(rank=lambda: 0)
    layer.config = types.SimpleNamespace(
        num_moe_experts=experts, gated_linear_unit=gated, moe_router_topk=top_k, moe_router_pre_softmax=pre_softmax,
        moe_ffn_hidden_size=state["mlp.linear_fc2.weight"].shape[1] // granularity, activation_func=function,
    )
    dense_mlp = types.SimpleNamespace(config=types.SimpleNamespace(ffn_hidden_size=state["mlp.linear_fc2.weight"].shape[1]))
    router = torch.arange(experts * HIDDEN, dtype=state["mlp.linear_fc2.weight"].dtype).reshape(experts, HIDDEN)
    moe = Model({"mlp": layer}, {"mlp.router.weight": router})
    made = utils.upcycle_state_dict([moe], [Model({"mlp": dense_mlp}, state)])["model"]
    stack = lambda part: torch.stack([made[f"mlp.experts.local_experts.{e}.{part}"] for e in range(experts)]).contiguous()
    return {
        "fc1": stack("linear_fc1.weight"), "fc1_bias": stack("linear_fc1.bias"),
        "fc2": stack("linear_fc2.weight"), "fc2_bias": stack("linear_fc2.bias"), "router": made["mlp.router.weight"],
    }


out = {}
torch.manual_seed(0)
for kind, (_, gated) in KINDS.items():
    for dtype, name in ((torch.float32, "F32"), (torch.bfloat16, "BF16")):
        rows = 2 * INNER if gated else INNER
        state = {
            "mlp.linear_fc1.weight": torch.randn(rows, HIDDEN).to(dtype), "mlp.linear_fc1.bias": torch.randn(rows).to(dtype),
            "mlp.linear_fc2.weight": torch.randn(HIDDEN, INNER).to(dtype), "mlp.linear_fc2.bias": torch.randn(HIDDEN).to(dtype),
        }
        for key, value in state.items():
            out[f"{kind}.{name}.{key.removeprefix('mlp.linear_').replace('.weight', '').replace('.bias', '_bias')}"] = value
        for expansion, granularity, top_k in ((3, 1, 1), (2, 1, 2), (3, 2, 4), (2, 4, 4), (3, 4, 8), (2, 8, 8), (1, 8, 8)):
            for pre_softmax in (False, True):
                made = upcycle(kind, state, expansion, granularity, top_k, pre_softmax)
                recipe = f"E{expansion}G{granularity}T{top_k}.{'softmax-topk' if pre_softmax else 'topk-softmax'}"
                for part, value in made.items():
                    if part != "router" or (name == "F32" and kind == "gated" and not pre_softmax):
                        out[f"{kind}.{name}.{recipe}.{part}"] = value

# The scale alone, read off a weight of 1: for many more recipes.
cases, values = [], []
for expansion in range(2, 65):
    for granularity in (1, 2, 4, 8, 16, 32, 64):
        for top_k in {granularity, 2 * granularity, 6 * granularity, 8 * granularity}:
            if top_k > expansion * granularity or expansion % 4 > 1:
                continue
            for kind, root in (("gelu", 2), ("relu2", 3)):
                ones = {
                    "mlp.linear_fc1.weight": torch.ones(granularity, HIDDEN), "mlp.linear_fc1.bias": torch.ones(granularity),
                    "mlp.linear_fc2.weight": torch.ones(HIDDEN, granularity), "mlp.linear_fc2.bias": torch.ones(HIDDEN),
                }
                cases.append((expansion, granularity, top_k, root))
                values.append(upcycle(kind, ones, expansion, granularity, top_k, True)["fc2"][0, 0, 0].item())
out["scales"] = torch.tensor(cases, dtype=torch.uint16)
out["scale_values"] = torch.tensor(values, dtype=torch.float32)
save_file(out, here / "upcycled.safetensors")
print(f"torch {torch.__version__}", file=sys.stderr)
