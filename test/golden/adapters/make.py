"""Writes the files of this folder with torch and peft: `python make.py` in it. Small, so that they can be committed.

llama/    ranks and alphas by pattern, float32 factors
rslora/   rank-stabilized, of the golden Llama's attention output, up projection, embedding and head, as adapter_model.bin
phi3/     fused tensors (qkv_proj, gate_up_proj), bfloat16 factors
gpt2/     matrices stored [in, out] (Conv1D, fan_in_fan_out)
expected.json   sha256 of every changed tensor, merged in float64 and rounded once: to float32 (`F32`), and of a base rounded to bfloat16 to float32 and
                then to bfloat16 (`BF16`); peft's own merge in float32 is held to it here
"""
import hashlib
import json
import sys
from pathlib import Path

import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

here = Path(__file__).parent
cases = {
    "llama": ("llama", dict(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "gate_proj", "down_proj"],
                            rank_pattern={"down_proj": 3, r"layers\.1\.self_attn\.q_proj": 2}, alpha_pattern={"v_proj": 5, "layers.0.mlp.gate_proj": 7})),
    "rslora": ("llama", dict(r=3, lora_alpha=8, use_rslora=True, target_modules=["o_proj", "up_proj", "embed_tokens", "lm_head"])),
    "phi3": ("phi3", dict(r=4, lora_alpha=8, target_modules=["qkv_proj", "gate_up_proj", "down_proj"])),
    "gpt2": ("gpt2", dict(r=2, lora_alpha=3, fan_in_fan_out=True, target_modules=["c_attn", "c_fc", "c_proj"])),
}


def sha(tensor):
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


expected = {}
for case, (base, settings) in cases.items():
    torch.manual_seed(len(expected))
    folder = here.parent / "dense" / base
    weights = load_file(folder / "model.safetensors")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    out = here / case
    model.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)
    config = json.loads((out / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = None
    config["target_modules"] = sorted(config["target_modules"])
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    file = out / "adapter_model.safetensors"
    factors = load_file(file)
    if case == "phi3":
        factors = {name: factor.bfloat16() for name, factor in factors.items()}
        save_file(factors, file)
    if case == "rslora":
        torch.save(factors, out / "adapter_model.bin")
        file.unlink()
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    merged = PeftModel.from_pretrained(again, out, autocast_adapter_dtype=True)
    scaling = {name.removeprefix("base_model.model."): layer.scaling["default"] for name, layer in merged.named_modules() if isinstance(getattr(layer, "scaling", None), dict)}
    state = merged.merge_and_unload().state_dict()
    expected[case] = {}
    for module, scale in sorted(scaling.items()):
        name = f"{module}.weight"
        prefix = f"base_model.model.{module}.lora_"
        if f"{prefix}embedding_A" in factors:
            delta = (factors[f"{prefix}embedding_B"].double() @ factors[f"{prefix}embedding_A"].double()).T
        else:
            delta = factors[f"{prefix}B.weight"].double() @ factors[f"{prefix}A.weight"].double()
        if base == "gpt2":
            delta = delta.T
        exact = (weights[name].double() + scale * delta).float()
        torch.testing.assert_close(state[name], exact, rtol=1e-6, atol=1e-6)
        low = (weights[name].bfloat16().double() + scale * delta).float().bfloat16()
        expected[case][name] = {"F32": sha(exact), "BF16": sha(low)}
(here / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")
print(f"torch {torch.__version__}, peft {peft.__version__}", file=sys.stderr)
