"""Tiny models of any causal model type of transformers: sizes shrunk by the names of attributes, weights drawn anew.

`tiny_settings(type)` gives the keyword arguments of the type's config class; `build(config)` the model. Attributes
whose names say what they measure are shrunk for all types alike; `special` holds what a type needs beyond that.
"""
import copy
import dataclasses
import inspect
import json
import math
import re

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

VOCABULARY = 96
LAYERS = 2
SEQUENCE = 24

# The first pattern that an integer attribute's name matches as a whole gives its size.
sizes = [
    (r"(decoder_)?(hidden_size|d_model|n_embd|dim|model_dim)|embedding_size|input_embedding_size|word_embed_proj_dim", 32),
    (r"(num_|n_|encoder_|decoder_)?(hidden_layers|layers|layer|num_layers|n_layers|n_layer)|num_hidden_layers|num_layers|encoder_layers|decoder_layers|num_encoder_layers|num_decoder_layers|depth|num_blocks", LAYERS),
    (r"(num_|n_)?(attention_|encoder_attention_|decoder_attention_)?(heads|head)|num_attention_heads|encoder_attention_heads|decoder_attention_heads|num_heads|n_heads|n_head|linear_num_key_heads|linear_num_value_heads|mamba_n_heads|mamba_num_heads|index_n_heads|num_global_heads", 4),
    (r"num_key_value_heads|num_kv_heads|n_head_kv|kv_n_heads|num_global_key_value_heads|swa_num_key_value_heads|num_mem_heads", 2),
    (r"swa_num_attention_heads|num_swa_attention_heads", 4),
    (r"(.*_)?head_dim|attention_head_size|kv_channels|mamba_d_head|qk_nope_head_dim|qk_rope_head_dim|v_head_dim|global_head_dim|mamba_head_dim|d_kv|linear_key_head_dim|linear_value_head_dim|index_head_dim", 8),
    (r"q_lora_rank|kv_lora_rank|rotary_dim|o_lora_rank|attention_hidden_size|lora_rank|adapter_rank", 8),
    (r"vocab_size|text_vocab_size|vocab_size_per_layer_input|ple_vocab_size", VOCABULARY),
    (r"(.*_)?(intermediate_size|ffn_dim|n_inner|d_ff|ffn_hidden_size|mlp_dim|intermediate_dim)|shared_expert_intermediate_size|dim_ff|decoder_ffn_dim|encoder_ffn_dim", 48),
    (r"(moe_)?(num_experts|n_routed_experts|num_local_experts|n_experts|num_routed_experts)|moe_num_experts", 8),
    (r"num_experts_per_tok|num_experts_per_token|moe_k|moe_top_k|top_k_experts|moe_topk|num_selected_experts", 2),
    (r"n_group|topk_group|num_expert_groups|num_limited_groups", 2),
    (r"max_position_embeddings|n_positions|n_ctx|max_seq_len|max_sequence_length|max_source_positions|max_target_positions|original_max_position_embeddings|model_max_length", 128),
    (r"(.*_)?sliding_window|attention_window_size|local_attention|window_size|attention_chunk_size|attention_window", 8),
    (r"mamba_d_state|state_size|mamba_d_conv|d_state|ssm_state_size", 4),
    (r"patch_size|vision_patch_size", 4),
    (r"image_size", 8),
    (r"mamba_n_groups|n_groups", 1),
    (r"chunk_size|mamba_chunk_size", 8),
]
# Token ids outside of the tiny vocabulary become these.
token_ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def causal_types():
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def multimodal_types():
    """Types that hold a text model beside towers for images or sound, and that no causal class knows."""
    return sorted(set(MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES) - set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))


def shrunk(name, value, layers):
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, dict):
        return shrink(value, layers)
    name = str(name)
    if name.endswith("_token_id") or name.endswith("_token_index") or name.endswith("_token_ids"):
        ids = value if isinstance(value, list) else [value]
        if all(isinstance(one, int) and one < VOCABULARY for one in ids):
            return value
        # Ids of different roles stay different ones.
        return token_ids.get(name, 3 + sum(map(ord, name)) % (VOCABULARY - 3))
    if isinstance(value, int):
        for pattern, size in sizes:
            if re.fullmatch(pattern, name):
                return min(size, value) if value > 0 else value
        return value
    if isinstance(value, (list, tuple)) and len(value) == layers and layers > LAYERS:
        return list(value[:LAYERS])
    return value


def shrink(settings, layers=None):
    layers = next((settings[key] for key in ("num_hidden_layers", "n_layer", "num_layers", "decoder_layers", "n_layers", "num_decoder_layers") if isinstance(settings.get(key), int)), layers)
    return {name: shrunk(name, value, layers) for name, value in settings.items()}


def default_settings(config_class):
    """What a config class declares, before it derives one attribute from another; parts of a model as dictionaries."""
    if not dataclasses.is_dataclass(config_class):
        return {}
    base = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    settings = {}
    for field in dataclasses.fields(config_class):
        if field.name in config_class.sub_configs:
            settings[field.name] = part_settings(config_class, field.name)
        elif field.name in base:
            continue
        elif field.default is not dataclasses.MISSING:
            settings[field.name] = copy.deepcopy(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            settings[field.name] = field.default_factory()
    return settings


def part_settings(config_class, name):
    """Of one part of a model; the whole model's defaults say of which type it is where the class leaves that open."""
    part = config_class.sub_configs[name]
    if part is not AutoConfig:
        return default_settings(part)
    if config_class.has_no_defaults_at_init:
        return None
    chosen = getattr(config_class(), name)
    return None if chosen is None else {"model_type": chosen.model_type, **default_settings(type(chosen))}


def tiny_settings(model_type):
    settings = shrink(default_settings(CONFIG_MAPPING[model_type]))
    if settings.get("kv_lora_rank") is not None:
        # Latent attention has a key and a value per head.
        settings["num_key_value_heads"] = settings["num_attention_heads"]
    return merged(settings, special.get(model_type, {}))


def plain(value):
    """Without absent values, since most config.json files name only what they set, and as JSON says it."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, float) and not math.isfinite(value):
        return {"__float__": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def merged(settings, change):
    result = dict(settings)
    for key, value in change.items():
        if value is Ellipsis:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict) and value:
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def randomise(model, seed=7):
    """Weights of a size at which every part of the model moves the logits; transformers' own are near zero or one."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda tensor: torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
    with torch.no_grad():
        tensors = list(model.named_parameters())
        tensors += [(name, tensor) for name, tensor in model.named_buffers() if re.search(r"correction_bias|expert_bias|router_bias", name)]
        for name, tensor in tensors:
            if not tensor.dtype.is_floating_point or tensor.numel() == 0:
                continue
            if tensor.dim() >= 2:
                # Embeddings are looked up, all else sums over its last axis or the one before.
                scale = 1.0 if re.search(r"embed|wte|wpe", name) else 1.2 * tensor.shape[-1] ** -0.5
                tensor.copy_(draw(tensor) * scale)
            elif re.search(r"(norm|ln|layernorm|layer_norm)[^.]*\.weight$|ln_[^.]*\.weight$|scale$", name, re.I):
                tensor.copy_(tensor + 0.3 * draw(tensor))
            else:
                tensor.copy_(tensor + 0.3 * draw(tensor))
    return model


def build(config):
    torch.manual_seed(0)
    causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    loader = AutoModelForCausalLM if causal else AutoModelForMultimodalLM
    model = loader.from_config(config, attn_implementation="eager")
    return randomise(model.float().eval())


def input_ids():
    return torch.randint(3, VOCABULARY, (2, SEQUENCE), generator=torch.Generator().manual_seed(3))


def logits(model, ids):
    with torch.no_grad():
        accepted = inspect.signature(model.forward).parameters
        extra = {"use_cache": False} if "use_cache" in accepted or "kwargs" in accepted else {}
        return model(input_ids=ids, **extra).logits.float()


full = ["full_attention"] * LAYERS
compass_ropes = {"full_attention": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}}
head = {"head_dim": 8}
three_axes = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}
byte_layers = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 48}

# What a type needs beyond smaller sizes: attributes whose class defaults are no model, or which hang together.
special = {
    "blt": {
        "patcher_config": byte_layers,
        "encoder_config": {**byte_layers, "hidden_size_global": 64},
        "decoder_config": {**byte_layers, "hidden_size_global": 64},
        "global_config": {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 48},
        "encoder_hash_byte_group_vocab": 64,
    },
    "cohere": {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}},
    "cohere_compass_text": {"rope_parameters": compass_ropes},
    "dbrx": {"attn_config": {"rope_theta": 10_000.0, "kv_n_heads": 2, "clip_qkv": 8.0}, "ffn_config": {"moe_num_experts": 8, "moe_top_k": 2}},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_group": 1, "n_group": 1, "first_k_dense_replace": 1},
    "deepseek_v3": {"first_k_dense_replace": 1},
    "dots1": {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1},
    "gemma3n_text": {"num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"], "intermediate_size": 48},
    "glm4_moe": {"first_k_dense_replace": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    # Its class reads a token of sound as the first one, which is none of the ids that are tried.
    **{name: {"audio_token_index": 2} for name in ("granite_speech", "granite_speech_plus")},
    "hunyuan_v1_dense": head,
    "hunyuan_v1_moe": head,
    "lfm2_moe": {"layer_types": full, "num_dense_layers": 1},
    "mamba2": {"num_heads": 8},
    "ministral": head,
    "nemotron": {**head, "num_key_value_heads": 2},
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "local"], "local_attn_chunk_length": 8},
    **{name: {"text_config": {"rope_parameters": three_axes}} for name in ("qwen2_vl", "qwen2_5_vl")},
    "recurrent_gemma": {"lru_width": 32},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"]},
    "zamba2": {"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"]},
}

assistant = "a drafter, which takes the hidden states of another model beside the tokens"
musicgen = "its causal class takes the config of its decoder, which is of no type that AutoConfig knows"
# Types that transformers cannot make a model of from a config.json alone that runs on token ids.
impossible = {
    "gemma3n": "its vision tower needs the packages timm and PIL; its text part is gemma3n_text",
    "gemma4_assistant": assistant,
    "gemma4_unified_assistant": assistant,
    "musicgen": musicgen,
    "musicgen_melody": musicgen,
}

activations = ["gelu", "gelu_pytorch_tanh", "relu", "relu2", "silu", "quick_gelu", "tanh"]
PAIRS = 4
rope_types = [
    {"rope_type": "linear", "factor": 3.0},
    {"rope_type": "dynamic", "factor": 3.0},
    {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0, "beta_slow": 0.5, "mscale": 1.0, "mscale_all_dim": 0.5, "truncate": False},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "attention_factor": 1.3},
    {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 16, "short_factor": [1.0] * PAIRS, "long_factor": [1.0, 1.5, 2.5, 4.0]},
    {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 64, "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 1.5, 2.5, 4.0]},
    {"rope_type": "proportional", "partial_rotary_factor": 0.5},
    {"rope_type": "default", "partial_rotary_factor": 0.5},
    {"rope_type": "default", "rope_theta": 300.0},
]
# Values tried for attributes that are absent or null by default, by the attribute's name.
absent = [
    (r"layer_types", [["sliding_attention", "full_attention"], ["full_attention"] * LAYERS, ["sliding_attention"] * LAYERS]),
    (r"mlp_layer_types", [["dense", "sparse"], ["sparse"] * LAYERS]),
    (r"mlp_only_layers", [[0], [1]]),
    (r"no_rope_layers", [[0, 1], [1, 1]]),
    (r"layer_rope_theta", [[0.0, 500.0]]),
    (r"(.*_)?sliding_window|attention_window", [5]),
    (r"num_key_value_heads|kv_n_heads", [1, 4]),
    (r"(.*_)?head_dim|kv_channels", [16]),
    (r"n_inner|(.*_)?intermediate_size", [40]),
    (r".*softcap.*|clip_qkv|.*_cap", [0.7]),
    (r"rope_scaling", rope_types),
    (r"rope_parameters", [{"rope_theta": 10_000.0, **rope} for rope in rope_types]),
    (r"rope_theta|.*rope_theta|rotary_emb_base|rope_local_base_freq", [300.0]),
    (r"partial_rotary_factor|rotary_pct", [0.5]),
    (r"hidden_act|hidden_activation", activations),
    (r"(bos|eos|pad)_token_id", []),
]
# Other sizes than the tiny ones, which still fit together.
other_sizes = [
    (r"hidden_size|d_model|n_embd", [48]),
    (r"num_hidden_layers|n_layers?|num_layers", [3]),
    (r"num_attention_heads|n_heads?", [2]),
    (r"num_key_value_heads|kv_n_heads", [1, 4]),
    (r"(.*_)?head_dim", [16]),
    (r"vocab_size", [112]),
    (r".*intermediate_size|n_inner|ffn_hidden_size", [40]),
    (r"(moe_)?num_(local_)?experts|n_routed_experts", [4]),
    (r"num_experts_per_tok|moe_k|moe_top_k", [1, 3]),
    (r"n_group|topk_group", [1, 4]),
    (r"max_position_embeddings|n_positions|max_seq_len|original_max_position_embeddings", [64, 24]),
    (r".*sliding_window|attention_window", [5]),
]


def alternatives(name, value):
    """Other values that an attribute may have."""
    if name.endswith("_token_id"):
        return []
    if isinstance(value, bool):
        return [not value]
    for pattern, others in other_sizes if isinstance(value, int) else []:
        if re.fullmatch(pattern, name):
            return others
    if isinstance(value, int):
        return [value + 1, 0] if value > 0 else [1, 2]
    if isinstance(value, float):
        return [0.1 if "eps" in name else value * 1.7 if value else 0.3]
    if isinstance(value, str):
        return [one for one in activations if one != value] if "act" in name else ["other"]
    for pattern, others in absent:
        if re.fullmatch(pattern, name):
            return [one for one in others if one != value]
    if isinstance(value, list):
        return [[]] if not value else [value[::-1], value[:1] * len(value), []]
    return [True, 2, 0.7] if value is None else []


def variants(model_type, config):
    """(what changed, config.json) for every attribute that the class declares or the config has."""
    declared = default_settings(CONFIG_MAPPING[model_type])
    yield from changes(config, declared, "")
    for name, value in generic.items():
        if name not in config and name not in declared:
            for other in value:
                yield f"{name} = {json.dumps(other)}", {**config, name: other}


def changes(config, declared, path):
    for name in [*config, *(one for one in declared if one not in config)]:
        if name in ("model_type",):
            continue
        value = config.get(name)
        others = alternatives(name, value)
        if isinstance(value, dict):
            inner = declared.get(name)
            for change, changed in changes(value, inner if isinstance(inner, dict) else {}, f"{path}{name}."):
                yield change, {**config, name: changed}
        for other in others:
            yield f"{path}{name} = {json.dumps(other)}", {**config, name: other}
        if value is not None:
            is_size = isinstance(value, int) and not isinstance(value, bool) and any(re.fullmatch(pattern, name) for pattern, _ in sizes)
            if not is_size:
                yield f"{path}{name} absent", {key: one for key, one in config.items() if key != name}
            yield f"{path}{name} = null", {**config, name: None}


def opens_others(change):
    """Whether a change may make a class look at attributes that it passed over."""
    return change.endswith(("= true", "= false")) or change.startswith("rope_parameters = {") or "types = [" in change


# Keys that configs carry whether or not their class declares them.
generic = {
    "rope_theta": [300.0],
    "rope_scaling": rope_types,
    "partial_rotary_factor": [0.5],
    "layer_types": [["sliding_attention", "full_attention"], ["full_attention"] * LAYERS],
    "sliding_window": [5],
    "use_sliding_window": [True],
    "head_dim": [16],
    "attention_bias": [True],
    "mlp_bias": [True],
    "qkv_bias": [True, False],
    "tie_word_embeddings": [True],
    "attn_logit_softcapping": [0.7],
    "final_logit_softcapping": [0.7],
    "clip_qkv": [0.7],
    "use_qk_norm": [True],
    "use_bidirectional_attention": [True],
    "is_causal": [False],
    "is_decoder": [False],
    "per_layer_config": [{"1": {"intermediate_size": 40}}, {"0": {"num_key_value_heads": 1}}, {"1": {"rms_norm_eps": 0.1}}],
    "original_max_position_embeddings": [16],
    "norm_topk_prob": [True, False],
    "n_shared_experts": [1],
    "attention_multiplier": [0.5],
    "logits_scaling": [2.0],
    "embedding_multiplier": [2.0],
    "residual_multiplier": [0.5],
    "logit_scale": [2.0],
    "num_local_experts": [4],
    "num_experts": [4],
    "scoring_func": ["softmax", "sigmoid"],
    "topk_method": ["greedy"],
    "hidden_act": ["relu"],
    "hidden_activation": ["relu"],
    "tie_last_hidden_states": [False],
    "output_attentions": [True],
    "num_nextn_predict_layers": [1],
}
