"""What transformers says of golden models' routers, and what it loses without or with merged experts.

Writes <model>.safetensors for each model: of layer L, for input_ids of the model's expected.safetensors,
  L.logits [N, E], L.weights [N, K], L.chosen [N, K], L.entropy (mean over tokens, nats), L.mass (mean), and
  loss: the model's own mean loss;
  without.layers, without.experts, without.loss: of a checkpoint that does not have these experts at all (one of each
    layer), or, where a router's groups forbid that, whose router's correction keeps them from being chosen;
  merged.layers, merged.experts [.., 2], merged.loss: of a checkpoint with the mean of two experts' weights in both.

python test/golden/routers/make.py   (transformers 5.18, PyTorch 2.13, float32 on a CPU)
"""
import copy
import pathlib
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

here = pathlib.Path(__file__).parent
names = ["mixtral", "qwen2_moe", "qwen3_moe_norm", "olmoe", "deepseek_v3", "glm4_moe", "gpt_oss"]


def routers(model):
    return [(int(n.split(".")[2]), m) for n, m in model.named_modules() if type(m).__name__.lower().endswith("topkrouter")]


def observe(model, ids):
    found = {}

    def hook(layer):
        def keep(module, inputs, outputs):
            x = inputs[0].reshape(-1, inputs[0].shape[-1])
            bias = getattr(module, "bias", None)
            logits = torch.nn.functional.linear(x, module.weight, bias)
            found[layer] = (logits, outputs[1], outputs[2])

        return keep

    handles = [m.register_forward_hook(hook(layer)) for layer, m in routers(model)]
    model(input_ids=ids)
    for handle in handles:
        handle.remove()
    return found


def loss_of(model, ids):
    return model(input_ids=ids, labels=ids).loss


@torch.no_grad()
def make(name):
    folder = here.parent / "moe" / name
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if hasattr(model, "router_aux_loss_coef"):
        model.router_aux_loss_coef = 0.0
    ids = load_file(folder / "expected.safetensors")["input_ids"].long()
    out = {"loss": loss_of(model, ids)}
    sigmoid = name in ("deepseek_v3", "glm4_moe")
    dropped, merged = [], []
    for layer, (logits, weights, chosen) in observe(model, ids).items():
        p = torch.softmax(logits.double(), -1)
        scores = torch.sigmoid(logits.double()) if sigmoid else p
        picked = scores.gather(1, chosen)
        out |= {
            f"{layer}.logits": logits,
            f"{layer}.weights": weights,
            f"{layer}.chosen": chosen.int(),
            f"{layer}.entropy": torch.special.entr(p).sum(-1).mean().float(),
            f"{layer}.mass": (picked.sum(-1) / scores.sum(-1)).mean().float(),
        }
        counts = torch.bincount(chosen.flatten(), minlength=logits.shape[1])
        busy = torch.argsort(counts, descending=True)
        dropped.append((layer, int(busy[0])))
        merged.append((layer, int(busy[0]), int(busy[1])))
    out |= {
        "without.layers": torch.tensor([d[0] for d in dropped], dtype=torch.int32),
        "without.experts": torch.tensor([d[1] for d in dropped], dtype=torch.int32),
        "without.loss": loss_of(without(model, dropped, sigmoid), ids),
        "merged.layers": torch.tensor([m[0] for m in merged], dtype=torch.int32),
        "merged.experts": torch.tensor([m[1:] for m in merged], dtype=torch.int32),
        "merged.loss": loss_of(with_mean(model, merged), ids),
    }
    save_file({key: value.contiguous() for key, value in out.items()}, here / f"{name}.safetensors")
    print(name, {key: value.item() for key, value in out.items() if key.endswith("loss")})


def without(model, dropped, grouped):
    if grouped:
        changed = copy.deepcopy(model)
        for layer, expert in dropped:
            dict(routers(changed))[layer].e_score_correction_bias[expert] = -1e30
        return changed
    config = copy.deepcopy(model.config)
    key = "num_local_experts" if "num_local_experts" in config.to_dict() else "num_experts"
    setattr(config, key, getattr(config, key) - 1)
    changed = AutoModelForCausalLM.from_config(config).eval().float()
    if hasattr(changed, "router_aux_loss_coef"):
        changed.router_aux_loss_coef = 0.0
    gone = dict(dropped)
    state = {}
    for key, value in model.state_dict().items():
        own = changed.state_dict()[key]
        if own.shape != value.shape:
            expert = gone[int(key.split(".")[2])]
            value = torch.cat([value[:expert], value[expert + 1 :]])
        state[key] = value
    changed.load_state_dict(state)
    return changed


def with_mean(model, merged):
    changed = copy.deepcopy(model)
    for layer, a, b in merged:
        for parameter in changed.model.layers[layer].mlp.experts.parameters():
            mean = (parameter[a] + parameter[b]) / 2
            parameter[a] = mean
            parameter[b] = mean
    return changed


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in names:
        make(name)
