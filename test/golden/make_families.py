"""Golden models of dense families, and models of many configs to compare with, all made by Hugging Face transformers.

    python3 test/golden/make_families.py                    writes the golden models named in GOLDEN anew
    python3 test/golden/make_families.py --only NAME ...    writes these only
    python3 test/golden/make_families.py --variants DIR     writes a folder for each config in VARIANTS

Each folder gets config.json, model.safetensors, expected.safetensors (input_ids, logits, loss) and
gradients.safetensors (of the loss, by the names of the stored tensors). Needs PyTorch and transformers on a CPU.
`read-families.mjs` in test/external compares the variants with this toolkit.
"""

import argparse
import json
import zlib
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
HERE = Path(__file__).parent
SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def sizes(without=(), **changed):
    """The usual sizes, some of them changed or left out."""
    return {key: value for key, value in {**SIZES, **changed}.items() if key not in without}


YARN = {
    "rope_type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 8,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}

# Folder -> class of the config and what it is given.
GOLDEN = {
    "glm": ("Glm", sizes(head_dim=8)),
    "glm4": ("Glm4", sizes(head_dim=8)),
    "seed_oss": ("SeedOss", sizes(head_dim=8)),
    "arcee": ("Arcee", sizes()),
    "exaone4": ("Exaone4", sizes(sliding_window=8, layer_types=["sliding_attention", "full_attention"])),
    "cohere2": ("Cohere2", sizes(sliding_window=8, layer_types=["sliding_attention", "full_attention"])),
    "ernie4_5": ("Ernie4_5", sizes(head_dim=8)),
    "hunyuan_v1_dense": ("HunYuanDenseV1", sizes(head_dim=8)),
    "helium": ("Helium", sizes(head_dim=8)),
    "ministral": ("Ministral", sizes(head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention"])),
}

# Name -> the same, for what released files have and the golden models have not.
VARIANTS = {
    "glm with wide heads, no biases, tied": (
        "Glm",
        sizes(head_dim=16, attention_bias=False, tie_word_embeddings=True, num_key_value_heads=1),
    ),
    "glm turning whole heads": ("Glm", sizes(head_dim=8, partial_rotary_factor=1.0)),
    "glm4 with biases, linear rope": (
        "Glm4",
        sizes(head_dim=12, attention_bias=True, rope_parameters={**LINEAR, "partial_rotary_factor": 0.5}),
    ),
    "glm4 of three layers, four key heads": ("Glm4", sizes(head_dim=8, num_hidden_layers=3, num_key_value_heads=4)),
    "seed_oss with all biases": (
        "SeedOss",
        sizes(head_dim=16, attention_out_bias=True, mlp_bias=True, rope_parameters={"rope_type": "default", "rope_theta": 1e7}),
    ),
    "seed_oss without biases, tied": ("SeedOss", sizes(head_dim=8, attention_bias=False, tie_word_embeddings=True)),
    "arcee with YaRN, as AFM-4.5B": (
        "Arcee",
        sizes(head_dim=8, rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, "factor": 20.0, "beta_slow": 1.0, "mscale": 1.0, "original_max_position_embeddings": 16}),
    ),
    "arcee with biases, silu": ("Arcee", sizes(attention_bias=True, mlp_bias=True, hidden_act="silu", tie_word_embeddings=True)),
    "exaone4 without a window, as 1.2B": (
        "Exaone4",
        sizes(head_dim=8, sliding_window=None, sliding_window_pattern=None, layer_types=["full_attention"] * 2, rope_parameters=LLAMA3, tie_word_embeddings=True),
    ),
    "exaone4 with a pattern, as 32B": (
        "Exaone4",
        sizes(head_dim=12, sliding_window=6, sliding_window_pattern=4, num_hidden_layers=5, rope_parameters=LLAMA3),
    ),
    "exaone4 with full attention only, but a window": (
        "Exaone4",
        sizes(sliding_window=6, layer_types=["full_attention"] * 2),
    ),
    "cohere2 with a pattern, as Command R7B": (
        "Cohere2",
        sizes(sliding_window=6, num_hidden_layers=5, logit_scale=0.25, rope_parameters={"rope_type": "default", "rope_theta": 50000.0}),
    ),
    "cohere2 with biases, untied, another pattern": (
        "Cohere2",
        sizes(sliding_window=5, sliding_window_pattern=2, attention_bias=True, tie_word_embeddings=False, num_hidden_layers=3),
    ),
    "ernie4_5 with biases, untied": (
        "Ernie4_5",
        sizes(head_dim=16, use_bias=True, tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
    ),
    "ernie4_5 with derived heads": ("Ernie4_5", sizes(head_dim=None, num_key_value_heads=1)),
    "hunyuan_v1_dense with alpha rope, biases": (
        "HunYuanDenseV1",
        sizes(head_dim=12, attention_bias=True, tie_word_embeddings=True, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "alpha": 1000.0, "factor": 1.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}),
    ),
    "helium with biases, tied": ("Helium", sizes(head_dim=8, attention_bias=True, mlp_bias=True, tie_word_embeddings=True)),
    "helium with grouped keys, linear rope": ("Helium", sizes(head_dim=8, num_key_value_heads=1, rope_parameters=LINEAR)),
    "ministral with a window on every layer": ("Ministral", sizes(head_dim=12, sliding_window=5)),
    "ministral with full attention": (
        "Ministral",
        sizes(head_dim=8, layer_types=["full_attention"] * 2, rope_parameters=LINEAR),
    ),
    "ministral as 8B": (
        "Ministral",
        sizes(
            head_dim=8, sliding_window=6, num_hidden_layers=4, num_key_value_heads=1,
            layer_types=["full_attention", "sliding_attention", "sliding_attention", "sliding_attention"],
        ),
    ),
}


def randomise(model, generator):
    """Weights large enough that every part shows in the logits."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() >= 2:
            scale = 0.3 if "embed" in name or "wte" in name or "wpe" in name else parameter.shape[-1] ** -0.5
            parameter.data = scale * noise
        elif name.endswith("bias"):
            parameter.data = 0.2 * noise
        else:
            parameter.data = parameter.data + 0.2 * noise


def make(name, entry, folder):
    """Writes a model of the config with random weights, what it computes, and the gradients of its loss."""
    prefix, settings = entry
    config = getattr(transformers, f"{prefix}Config")(**settings, dtype="float32")
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    torch.manual_seed(0)
    classes = [f"{prefix}ForCausalLM", f"{prefix}LMHeadModel"]
    model = next(getattr(transformers, each) for each in classes if hasattr(transformers, each))(config)
    model = model.float().eval()
    randomise(model, generator)
    model.tie_weights()
    # Padding's embedding has no gradient in PyTorch, so no text holds it.
    ids = torch.randint(3, config.vocab_size, (2, 24), generator=generator)
    output = model(ids, labels=ids, use_cache=False)
    output.loss.backward()
    model.save_pretrained(folder)
    stored = load_file(Path(folder) / "model.safetensors")
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    save_file(
        {"input_ids": ids.int(), "logits": output.logits.detach().contiguous(), "loss": output.loss.detach().reshape(1)},
        Path(folder) / "expected.safetensors",
    )
    unknown = set(gradients) - set(stored)
    assert not unknown, unknown
    save_file({key: value.contiguous() for key, value in gradients.items()}, Path(folder) / "gradients.safetensors")
    count = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    return [output.loss.item(), count, type(model).__name__]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=Path)
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    if arguments.variants is not None:
        for name, entry in VARIANTS.items():
            if arguments.only and not any(name.startswith(one) for one in arguments.only):
                continue
            folder = arguments.variants / name.replace(" ", "-").replace(",", "")
            folder.mkdir(parents=True, exist_ok=True)
            print(name, *make(name, entry, folder))
        return
    index_file = HERE / "index.json"
    index = json.loads(index_file.read_text())
    for name, entry in GOLDEN.items():
        if arguments.only and name not in arguments.only:
            continue
        index[f"dense/{name}"] = make(name, entry, HERE / "dense" / name)
        print(name, *index[f"dense/{name}"])
    index_file.write_text(json.dumps(index, indent=1))


main()
