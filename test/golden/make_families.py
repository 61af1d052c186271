"""Golden models of dense families, and models of many configs to compare with, all made by Hugging Face transformers.

    python3 test/golden/make_families.py                    writes the golden models named in GOLDEN anew
    python3 test/golden/make_families.py --only NAME ...    writes these only
    python3 test/golden/make_families.py --variants DIR     writes a folder for each config in VARIANTS
    python3 test/golden/make_families.py --check DIR        reads what read-families.mjs has written to DIR-rewritten

Each folder gets config.json, model.safetensors, expected.safetensors (input_ids, logits, loss) and
gradients.safetensors (of the loss, by the names of the stored tensors). Needs PyTorch and transformers on a CPU.
`read-families.mjs` in test/external compares the variants with this toolkit.
"""

import argparse
import copy
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



def falcon(**changed):
    return sizes(("intermediate_size", "num_key_value_heads"), **{"ffn_hidden_size": 64, **changed})


def opt(**changed):
    return sizes(("intermediate_size", "num_key_value_heads"), **{"ffn_dim": 64, **changed})


def gptj(without=(), **changed):
    usual = {"vocab_size": 96, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 128, "n_inner": 64, "rotary_dim": 4, "bos_token_id": 1, "eos_token_id": 2}
    return {key: value for key, value in {**usual, **changed}.items() if key not in without}


def neo(**changed):
    layers = {"num_layers": 2, "num_heads": 4, "window_size": 8, "attention_types": [[["global", "local"], 1]]}
    return sizes(("num_hidden_layers", "num_attention_heads", "num_key_value_heads"), **{**layers, **changed})


MPT = {"vocab_size": 96, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128}

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
    "ministral3": ("Ministral3", sizes(head_dim=8, rope_parameters=YARN)),
    "apertus": ("Apertus", sizes()),
    "cwm": ("Cwm", sizes(head_dim=8, sliding_window=8)),
    "jais2": ("Jais2", sizes()),
    "hyperclovax": (
        "HyperCLOVAX",
        sizes(embedding_multiplier=3.0, residual_multiplier=0.5, logits_scaling=0.25, attention_multiplier=0.2),
    ),
    "vaultgemma": ("VaultGemma", sizes(head_dim=8, sliding_window=8)),
    "falcon": ("Falcon", falcon(num_kv_heads=2, new_decoder_architecture=True)),
    "opt": ("OPT", opt()),
    "mpt": ("Mpt", MPT),
    "gptj": ("GPTJ", gptj()),
    "codegen": ("CodeGen", gptj(n_inner=None, n_ctx=128)),
    "phi": ("Phi", sizes(num_key_value_heads=4)),
    "gpt_neo": ("GPTNeo", neo()),
    "gpt_bigcode": ("GPTBigCode", gptj(("rotary_dim",))),
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
    "ministral3 within the first length": (
        "Ministral3",
        sizes(head_dim=12, num_key_value_heads=1, rope_parameters={**YARN, "original_max_position_embeddings": 64, "factor": 4.0, "llama_4_scaling_beta": 0.3}),
    ),
    "ministral3 with a window, tied": (
        "Ministral3",
        sizes(head_dim=8, sliding_window=6, tie_word_embeddings=True, rope_parameters={**YARN, "original_max_position_embeddings": 5}),
    ),
    "ministral3 with plain rope": (
        "Ministral3",
        sizes(head_dim=8, rope_parameters={"rope_type": "default", "rope_theta": 1e6, "llama_4_scaling_beta": 0.2, "original_max_position_embeddings": 6}),
    ),
    "apertus as 8B": (
        "Apertus",
        sizes(head_dim=12, rope_parameters={**LLAMA3, "rope_theta": 12000000.0}, tie_word_embeddings=True, attention_bias=True),
    ),
    "apertus with plain rope and another activation": (
        "Apertus",
        sizes(num_key_value_heads=4, hidden_act="relu2", rope_parameters={"rope_type": "default", "rope_theta": 100.0}),
    ),
    "cwm as released": ("Cwm", sizes(head_dim=12, sliding_window=6, num_hidden_layers=5, rope_parameters=LLAMA3, mlp_bias=True)),
    "cwm with full attention": ("Cwm", sizes(head_dim=8, layer_types=["full_attention"] * 2)),
    "jais2 without biases, tied": ("Jais2", sizes(attention_bias=False, mlp_bias=False, tie_word_embeddings=True, head_dim=12)),
    "hyperclovax without norms behind, biases": (
        "HyperCLOVAX",
        sizes(use_post_norm=False, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, logits_scaling=2.0),
    ),
    "hyperclovax as 14B": ("HyperCLOVAX", sizes(head_dim=12, residual_multiplier=0.3, rope_parameters=LINEAR)),
    "vaultgemma with small caps, biases": (
        "VaultGemma",
        sizes(head_dim=12, sliding_window=5, num_hidden_layers=3, attn_logit_softcapping=1.5, final_logit_softcapping=2.0, query_pre_attn_scalar=7, attention_bias=True),
    ),
    "vaultgemma without caps": (
        "VaultGemma",
        sizes(head_dim=8, attn_logit_softcapping=None, final_logit_softcapping=None, tie_word_embeddings=False, layer_types=["full_attention"] * 2),
    ),
    "falcon as 7B": ("Falcon", falcon(multi_query=True, ffn_hidden_size=None)),
    "falcon as RW 1B": ("Falcon", falcon(multi_query=False, parallel_attn=False, alibi=True, bias=True, ffn_hidden_size=None)),
    "falcon as RW, eleven heads": (
        "Falcon",
        falcon(multi_query=False, parallel_attn=False, alibi=True, bias=True, hidden_size=88, num_attention_heads=11, ffn_hidden_size=40),
    ),
    "falcon as 11B": (
        "Falcon",
        falcon(num_kv_heads=1, new_decoder_architecture=True, num_ln_in_parallel_attn=1, tie_word_embeddings=False, rope_parameters=LINEAR),
    ),
    "falcon of the new form with linear biases": (
        "Falcon",
        falcon(num_kv_heads=4, new_decoder_architecture=True, alibi=True, bias=True, activation="relu"),
    ),
    "falcon with all heads' keys, parallel, biases": ("Falcon", falcon(multi_query=False, bias=True)),
    "falcon with blocks in sequence and one key": ("Falcon", falcon(multi_query=True, parallel_attn=False)),
    "opt untied, another activation": ("OPT", opt(tie_word_embeddings=False, activation_function="gelu", num_hidden_layers=3)),
    "opt as Galactica": ("OPT", opt(enable_bias=False, layer_norm_elementwise_affine=False, activation_function="gelu")),
    "mpt clipped and scaled": ("Mpt", {**MPT, "attn_config": {"clip_qkv": 0.5, "softmax_scale": 0.2}}),
    "mpt with six heads, untied": ("Mpt", {**MPT, "d_model": 48, "n_heads": 6, "tie_word_embeddings": False, "max_seq_len": 40}),
    "gptj turning whole heads, usual width, tied": ("GPTJ", gptj(rotary_dim=8, n_inner=None, tie_word_embeddings=True)),
    "gptj with relu": ("GPTJ", gptj(rotary_dim=2, activation_function="relu")),
    "phi with grouped keys, linear rope": (
        "Phi",
        sizes(rope_parameters={**LINEAR, "partial_rotary_factor": 0.25}, partial_rotary_factor=0.25, hidden_act="relu"),
    ),
    "phi as 2, tied": ("Phi", sizes(num_key_value_heads=4, rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}, tie_word_embeddings=True)),
    "gpt_neo of four layers, usual width": (
        "GPTNeo",
        neo(num_layers=4, attention_types=[[["global", "local"], 2]], window_size=5, intermediate_size=None, tie_word_embeddings=False),
    ),
    "gpt_neo with global layers only": ("GPTNeo", neo(attention_types=[[["global"], 2]], activation_function="gelu")),
    "gpt_bigcode with all heads' keys": ("GPTBigCode", gptj(("rotary_dim",), multi_query=False, n_inner=None, tie_word_embeddings=False)),
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
        elif name.endswith("bias") or "alpha_" in name:
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
    # PyTorch's own attention knows no soft cap, and leaves it out without a word.
    if getattr(config, "attn_logit_softcapping", None) is not None:
        model.set_attn_implementation("eager")
    randomise(model, generator)
    model.tie_weights()
    # Padding's embedding has no gradient in PyTorch, so no text holds it.
    ids = torch.randint(3, config.vocab_size, (2, 24), generator=generator)
    output = model(ids, labels=ids, use_cache=False)
    # Gradients of scalars are sums in which much cancels: float32's own could be further off than the test allows.
    exact = copy.deepcopy(model).double()
    exact(ids, labels=ids, use_cache=False).loss.backward()
    model.save_pretrained(folder)
    stored = load_file(Path(folder) / "model.safetensors")
    gradients = {key: p.grad.float() for key, p in exact.named_parameters() if p.grad is not None}
    save_file(
        {"input_ids": ids.int(), "logits": output.logits.detach().contiguous(), "loss": output.loss.detach().reshape(1)},
        Path(folder) / "expected.safetensors",
    )
    unknown = set(gradients) - set(stored)
    assert not unknown, unknown
    save_file({key: value.contiguous() for key, value in gradients.items()}, Path(folder) / "gradients.safetensors")
    count = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    return [output.loss.item(), count, type(model).__name__]


def check(folder, rewritten):
    """Largest difference of the logits of a rewritten model, and what loading found wrong with its tensors."""
    expected = load_file(folder / "expected.safetensors")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        rewritten, dtype=torch.float32, output_loading_info=True
    )
    if getattr(model.config, "attn_logit_softcapping", None) is not None:
        model.set_attn_implementation("eager")
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    with torch.no_grad():
        logits = model.eval()(expected["input_ids"].long(), use_cache=False).logits
    return (logits - expected["logits"]).abs().max().item(), wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=Path)
    parser.add_argument("--check", type=Path)
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    if arguments.check is not None:
        problems = 0
        for folder in sorted(arguments.check.iterdir()):
            rewritten = arguments.check.with_name(f"{arguments.check.name}-rewritten") / folder.name
            try:
                worst, wrong = check(folder, rewritten)
            except Exception as error:  # A config that the class does not take is a problem of that model.
                worst, wrong = float("nan"), [repr(error)]
            problems += not (worst < 1e-4 and not wrong)
            print(f"{worst:.1e}", folder.name, *wrong)
        print(problems, "problems")
        raise SystemExit(problems > 0)
    if arguments.variants is not None:
        for name, entry in VARIANTS.items():
            if arguments.only and not any(name.startswith(one) for one in arguments.only):
                continue
            folder = arguments.variants / name.replace(" ", "-").replace(",", "").replace("'", "")
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
