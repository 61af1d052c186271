"""
Writes the folders beside this file: tiny models as people have them, with the logits that transformers computes
(transformers 5.18, torch 2.13, float32 on a CPU). Run it from any folder: `python test/golden/found/make.py`.

Each folder has `expected.safetensors` with `input_ids` [1, S] int32 and `logits` [1, S, V] float32. The models are
random. What is special about each of them is said where it is made.
"""
import json
import os
import shutil
import sys
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent
VOCAB = 48
SIZES = dict(vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=1, head_dim=8, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
             pad_token_id=0)


def randomize(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            scale = 0.3 if parameter.dim() > 1 else 0.1
            base = 1.0 if parameter.dim() == 1 else 0.0
            parameter.copy_(base + scale * torch.randn(parameter.shape, generator=generator))


def ids(length, seed=5):
    return torch.randint(3, VOCAB - 4, (1, length), generator=torch.Generator().manual_seed(seed))


def write_expected(folder, model, length):
    input_ids = ids(length)
    with torch.no_grad():
        logits = model(input_ids=input_ids).logits
    assert torch.isfinite(logits).all(), folder
    save_file({"input_ids": input_ids.to(torch.int32), "logits": logits.float().contiguous()},
              folder / "expected.safetensors")


def fresh(name):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def trim(folder):
    for extra in ("generation_config.json",):
        (folder / extra).unlink(missing_ok=True)


def reload(folder, loader=AutoModelForCausalLM):
    return loader.from_pretrained(folder, attn_implementation="eager").eval()


def causal(config, seed):
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    randomize(model, seed)
    return model


def edit_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config, indent=2) + "\n")


def plain(name, model_type, length=12, seed=1, **more):
    """A model of a family with special settings, as transformers saves it."""
    folder = fresh(name)
    config = CONFIG_MAPPING[model_type](**{**SIZES, **more})
    causal(config, seed).save_pretrained(folder)
    trim(folder)
    return folder


def ministral():
    # Ministral 8B says `mistral` with `layer_types`, which AutoConfig takes for its class `ministral`.
    folder = plain("mistral_layer_types", "ministral", sliding_window=5,
                   layer_types=["full_attention", "sliding_attention"])
    edit_config(folder, lambda config: config.update(model_type="mistral", architectures=["MistralForCausalLM"]))
    write_expected(folder, reload(folder), 20)


def tied_heads():
    # `tie_word_embeddings` is true in all of them; what is stored differs.
    for name in ("tied_differing", "tied_equal", "tied_head_only"):
        folder = plain(name, "llama", tie_word_embeddings=True)
        weights = load_file(folder / "model.safetensors")
        embedding = weights["model.embed_tokens.weight"]
        if name == "tied_differing":
            weights["lm_head.weight"] = embedding.flip(0).contiguous()
        else:
            weights["lm_head.weight"] = embedding.clone()
        if name == "tied_head_only":
            del weights["model.embed_tokens.weight"]
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        write_expected(folder, reload(folder), 12)


def packed():
    # Mixtures with `save_original_format=False`: experts of a layer are two tensors, some others have other names.
    smaller = dict(SIZES, moe_intermediate_size=8, shared_expert_intermediate_size=8, shared_intermediate_size=8,
                   q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=4)
    for source in sorted((GOLDEN / "moe").iterdir()):
        config = AutoConfig.from_pretrained(source)
        if config.model_type in ("dbrx", "gpt_oss", "granitemoe_swa") or "_" in source.name.replace(config.model_type, ""):
            continue  # their files are packed already; a second model of a family
        keys = {key: value for key, value in json.loads((source / "config.json").read_text()).items()
                if key not in ("transformers_version", "architectures")}
        keys.update({key: value for key, value in smaller.items() if key in keys})
        for key in ("rope_parameters", "rope_scaling", "head_dim"):
            if config.model_type == "deepseek_v3" and key == "head_dim":
                keys.pop(key, None)
        if config.model_type == "deepseek_v3":
            keys["num_key_value_heads"] = keys["num_attention_heads"]
        folder = fresh(f"packed/{config.model_type}")
        model = causal(CONFIG_MAPPING[config.model_type](**keys), 3)
        model.save_pretrained(folder, save_original_format=False)
        trim(folder)
        names = set(load_file(folder / "model.safetensors"))
        assert any("experts.gate_up_proj" in name for name in names), (folder, names)
        # transformers itself reads only its files' form back for some families, so the logits are the model's own.
        write_expected(folder, model, 12)


def prefixes():
    # One model under the names that wrappers, a base class and FSDP leave.
    model = causal(CONFIG_MAPPING["llama"](**SIZES), 7)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrap = lambda start: {start + name: tensor for name, tensor in state.items()}
    forms = {
        "orig_mod": wrap("_orig_mod."),
        "module": wrap("module."),
        "module_orig_mod": wrap("module._orig_mod."),
        "lightning": wrap("model."),
        "peft": wrap("base_model.model."),
        "fsdp": {"_fsdp_wrapped_module." + name.replace(".self_attn", "._fsdp_wrapped_module.self_attn"): tensor
                 for name, tensor in state.items()},
        "compiled_layers": {name.replace(".self_attn", "._orig_mod.self_attn"): tensor for name, tensor in state.items()},
        "language_model": wrap("language_model."),
    }
    for form, tensors in forms.items():
        folder = fresh(f"prefix/{form}")
        model.config.save_pretrained(folder)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        write_expected(folder, model, 12)
    # A base class (`AutoModel`) saves without `model.`; a tied head is then the embedding.
    tied = causal(CONFIG_MAPPING["llama"](**SIZES, tie_word_embeddings=True), 8)
    folder = fresh("prefix/base_class")
    tied.model.save_pretrained(folder)
    trim(folder)
    write_expected(folder, reload(folder), 12)


VISION = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8,
              patch_size=4)


def composites(only=None):
    text = dict(SIZES)
    llama, mistral = dict(text, model_type="llama"), dict(text, model_type="mistral", sliding_window=None)
    qwen2 = dict(text, model_type="qwen2", use_sliding_window=False)
    clip = dict(VISION, model_type="clip_vision_model", projection_dim=16)
    pixtral = dict(VISION, model_type="pixtral", head_dim=8)
    siglip = dict(VISION, model_type="siglip_vision_model")
    mrope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    qwen_vision = dict(depth=1, embed_dim=16, hidden_size=16, num_heads=2, patch_size=4, spatial_merge_size=2,
                       temporal_patch_size=2, in_channels=3, mlp_ratio=1)
    kinds = {
        "llava": dict(text_config=llama, vision_config=clip, image_token_index=3, tie_word_embeddings=False),
        "llava_next": dict(text_config=llama, vision_config=clip, image_token_index=3, tie_word_embeddings=False),
        "llava_onevision": dict(text_config=qwen2, vision_config=siglip, image_token_index=3, tie_word_embeddings=False),
        "vipllava": dict(text_config=llama, vision_config=clip, image_token_index=3, tie_word_embeddings=False,
                         vision_feature_layers=[-1]),
        "mistral3": dict(text_config=mistral, vision_config=pixtral, image_token_index=3, tie_word_embeddings=False),
        "gemma3": dict(text_config=dict(text, model_type="gemma3_text", sliding_window=5,
                                        layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=8),
                       vision_config=siglip, mm_tokens_per_image=4),
        "internvl": dict(text_config=qwen2, vision_config=dict(VISION, model_type="internvl_vision", image_size=[8, 8],
                                                              patch_size=[4, 4]), image_token_id=3,
                         tie_word_embeddings=False),
        "idefics3": dict(text_config=llama, vision_config=dict(VISION, model_type="idefics3_vision"), image_token_id=3,
                         tie_word_embeddings=False),
        "smolvlm": dict(text_config=llama, vision_config=dict(VISION, model_type="smolvlm_vision"), image_token_id=3,
                        tie_word_embeddings=True),
        "qwen2_vl": dict(text_config=dict(text, rope_parameters=mrope), vision_config=qwen_vision,
                         tie_word_embeddings=True),
        "qwen2_5_vl": dict(text_config=dict(text, rope_parameters=mrope),
                           vision_config=dict(qwen_vision, out_hidden_size=16, intermediate_size=16,
                                              fullatt_block_indexes=[0], window_size=8), tie_word_embeddings=False),
        "qwen3_vl": dict(text_config=dict(text, rope_parameters=dict(mrope, mrope_interleaved=True)),
                         vision_config=dict(qwen_vision, out_hidden_size=16, intermediate_size=16,
                                            num_position_embeddings=16, deepstack_visual_indexes=[0]),
                         tie_word_embeddings=False),
        # Files hold the experts' matrices the other way round; the text config does not say that weights are
        # renormalised, which the class always does.
        "qwen3_vl_moe": dict(text_config=dict(text, rope_parameters=dict(mrope, mrope_interleaved=True),
                                              moe_intermediate_size=12, num_experts=4, num_experts_per_tok=2),
                             vision_config=dict(qwen_vision, out_hidden_size=16, intermediate_size=16,
                                                num_position_embeddings=16, deepstack_visual_indexes=[0]),
                             tie_word_embeddings=False),
        "paligemma": dict(text_config=dict(text, model_type="gemma"), vision_config=siglip, image_token_index=3,
                          projection_dim=16, vocab_size=VOCAB),
    }
    # A multimodal class has a head of its own, which caps no logits whatever the text config says.
    kinds["gemma3 softcap"] = dict(kinds["gemma3"], text_config=dict(kinds["gemma3"]["text_config"],
                                                                     final_logit_softcapping=0.7))
    kinds["paligemma 2"] = dict(kinds["paligemma"], text_config=dict(text, model_type="gemma2", sliding_window=5,
                                                                     query_pre_attn_scalar=8))
    # Granite's and Cohere's factors: on embeddings, scores and residual branches they hold in every class, on logits only
    # in a class that says so itself.
    granite = dict(text, model_type="granite", embedding_multiplier=3.0, attention_multiplier=0.2,
                   residual_multiplier=0.4, logits_scaling=4.0)
    cohere = dict(text, model_type="cohere2", logit_scale=0.25, sliding_window=5,
                  layer_types=["sliding_attention", "full_attention"])
    qformer = dict(model_type="blip_2_qformer", hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                   num_attention_heads=2, encoder_hidden_size=16, vocab_size=8, max_position_embeddings=8)
    kinds.update({
        "llava_next granite": dict(kinds["llava_next"], text_config=granite),
        "aya_vision": dict(text_config=cohere, vision_config=siglip, image_token_index=3),
        "cohere2_vision": dict(text_config=cohere, vision_config=siglip, image_token_id=3, alignment_intermediate_size=16),
        "granite_speech": dict(text_config=granite, projector_config=qformer, audio_token_index=3, has_lora_adapter=False,
                               encoder_config=dict(input_dim=8, num_layers=1, hidden_dim=16, feedforward_mult=1,
                                                   num_heads=2, dim_head=8, output_dim=4, context_size=4, max_pos_emb=4,
                                                   conv_kernel_size=3, conv_expansion_factor=1)),
        "granite4_vision": dict(text_config=dict(granite, model_type="granite4_vision_text"), vision_config=siglip,
                                qformer_config=qformer, image_token_index=3, downsample_rate="1/2",
                                deepstack_layer_map=[[0, 0]], spatial_target_layers=[0, 0, 1, 1]),
        "hyperclovax_vision_v2": dict(text_config=dict(granite, model_type="hyperclovax"), image_token_id=3,
                                      video_token_id=4, tie_word_embeddings=False,
                                      vision_config=dict(qwen_vision, model_type="qwen2_5_vl_vision", out_hidden_size=16,
                                                         intermediate_size=16, fullatt_block_indexes=[0], window_size=8)),
        # Older files of this class tie the head in the text config alone, and a text model of Gemma's ties by default.
        "llava tied in its text": dict(kinds["llava"], text_config=dict(llama, tie_word_embeddings=True)),
        "llava gemma": dict(kinds["llava"], text_config=dict(text, model_type="gemma")),
    })
    for kind, keys in kinds.items():
        if only is not None and kind not in only:
            continue
        folder = fresh(f"multimodal/{kind.replace(' ', '_')}")
        config = CONFIG_MAPPING[kind.split(" ")[0]](**keys)
        model = AutoModelForMultimodalLM.from_config(config, attn_implementation="eager").eval()
        randomize(model, 9)
        model.save_pretrained(folder)
        trim(folder)
        if kind == "llava tied in its text":
            edit_config(folder, lambda config: config.update(tie_word_embeddings=False))
        write_expected(folder, reload(folder, AutoModelForMultimodalLM), 12)
    if only is not None:
        return
    # What the classes of Qwen's text models assume differs from what Qwen2's and Qwen3's do.
    for kind in ("qwen2_vl", "qwen3_vl", "qwen3_vl_moe"):
        folder = fresh(f"multimodal/{kind}_assumed")
        shutil.copytree(HERE / f"multimodal/{kind}", folder, dirs_exist_ok=True)
        edit_config(folder, lambda config: (
            [config["text_config"].pop(key, None)
             for key in ("rope_theta", "rms_norm_eps", "max_position_embeddings", "num_experts_per_tok")],
            config["text_config"]["rope_parameters"].pop("rope_theta")))
        write_expected(folder, reload(folder, AutoModelForMultimodalLM), 12)
    # Qwen2-VL as it was released: the text model's keys beside `vision_config`, rope of type `mrope`, names without
    # `language_model`.
    source, folder = HERE / "multimodal/qwen2_vl", fresh("multimodal/qwen2_vl_flat")
    config = json.loads((source / "config.json").read_text())
    flat = {**config.pop("text_config"), **config, "model_type": "qwen2_vl"}
    flat["rope_theta"] = flat.pop("rope_parameters")["rope_theta"]
    flat["rope_scaling"] = {"type": "mrope", "mrope_section": [1, 1, 2]}
    (folder / "config.json").write_text(json.dumps(flat, indent=2) + "\n")
    weights = {name.replace("model.language_model.", "model.").replace("model.visual.", "visual."): tensor
               for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    write_expected(folder, reload(folder, AutoModelForMultimodalLM), 12)


def adapters():
    # PEFT's own files: embeddings and heads under factors (saved whole by default), modules trained as a whole, and a
    # resized vocabulary. `expected.safetensors` is what PEFT computes with the adapter on its model.
    import peft
    from peft import LoraConfig, get_peft_model

    def adapted(name, base, change=None, **settings):
        torch.manual_seed(11)
        model = reload(HERE / base)
        if change is not None:
            change(model)
        wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=4, **settings)).eval()
        generator = torch.Generator().manual_seed(13)
        with torch.no_grad():
            for key, parameter in wrapped.named_parameters():
                if "lora_" in key or "modules_to_save" in key:
                    parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        folder = fresh(f"adapter/{name}")
        wrapped.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text())
        config["base_model_name_or_path"] = None
        for key in ("target_modules", "modules_to_save"):
            config[key] = sorted(config[key]) if config[key] else config[key]
        path.write_text(json.dumps(config, indent=2) + "\n")
        write_expected(folder, wrapped, 12)
        return folder

    plain("adapter_base", "llama", seed=21)
    plain("adapter_base_tied", "llama", seed=22, tie_word_embeddings=True)
    resize = lambda model: model.resize_token_embeddings(VOCAB + 4)
    adapted("embedding", "adapter_base", target_modules=["embed_tokens", "q_proj"])
    adapted("head", "adapter_base", target_modules=["lm_head"])
    differing = adapted("embedding_differing", "adapter_base", target_modules=["embed_tokens"],
                        change=lambda model: model.model.embed_tokens.weight.data.mul_(1.5))
    assert differing.exists()
    adapted("modules_to_save", "adapter_base", target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens", "norm"])
    adapted("modules_to_save_resized", "adapter_base", resize, target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"])
    adapted("resized", "adapter_base", resize, target_modules=["v_proj"])
    adapted("resized_tied", "adapter_base_tied", resize, target_modules=["v_proj"])
    adapted("shrunk_tied", "adapter_base_tied", lambda model: model.resize_token_embeddings(VOCAB - 4),
            target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"])
    # PEFT then names the embedding by its path, too.
    adapted("kept_tied", "adapter_base_tied", target_modules=["q_proj"], modules_to_save=["embed_tokens"],
            ensure_weight_tying=True)
    adapted("head_untied", "adapter_base_tied", target_modules=["q_proj"], modules_to_save=["lm_head"])
    adapted("embedding_untied", "adapter_base_tied", target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    print("peft", peft.__version__)


def reports():
    # Models as public reports describe them; each report's number is in docs/support-checked.md.
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.1, 1.3], "long_factor": [2.0, 3.0, 5.0],
            "partial_rotary_factor": 0.75, "original_max_position_embeddings": 8}
    sizes = {key: value for key, value in SIZES.items() if key != "head_dim"}
    folder = fresh("report/phi4_mini")  # rope over three quarters of a head, LongRoPE, a tied head
    config = CONFIG_MAPPING["phi3"](**sizes, rope_parameters=rope, original_max_position_embeddings=8,
                                    tie_word_embeddings=True, sliding_window=None)
    causal(config, 31).save_pretrained(folder)
    trim(folder)
    write_expected(folder, reload(folder), 20)

    folder = plain("report/qwen3_moe_yarn", "qwen3_moe", seed=32, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8)
    edit_config(folder, lambda config: (config.pop("rope_parameters", None), config.update(
        rope_theta=10000.0, rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16})))
    write_expected(folder, reload(folder), 24)

    folder = plain("report/llama_linear_rope", "llama", seed=33)
    edit_config(folder, lambda config: (config.pop("rope_parameters", None), config.update(
        rope_theta=10000.0, rope_scaling={"type": "linear", "factor": 4.0})))
    write_expected(folder, reload(folder), 16)

    # Where both objects stand, the class takes `rope_scaling` alone, and its own theta.
    folder = plain("report/llama_both_ropes", "llama", seed=34)
    edit_config(folder, lambda config: config.update(
        rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 333.0},
        rope_scaling={"type": "linear", "factor": 2.0}))
    write_expected(folder, reload(folder), 16)

    # The sweep's finding: the original length beside the rope's keys counts for the factor on queries, too.
    folder = plain("report/ministral3_length", "ministral3", seed=36)
    edit_config(folder, lambda config: (config["rope_parameters"].update(original_max_position_embeddings=32),
                                        config.update(original_max_position_embeddings=6)))
    write_expected(folder, reload(folder), 20)

    folder = plain("report/phimoe_head_bias", "phimoe", seed=35, num_local_experts=4, num_experts_per_tok=2,
                   lm_head_bias=True, sliding_window=None)
    write_expected(folder, reload(folder), 16)


def mergekit():
    # Two tied models of one shape, and what transformers computes from the mixture of their FFNs behind a constant
    # router, everything else the first model's: mergekit#350 (Qwen2), mergekit#615 (SmolLM, a Llama).
    for kind, mixture, prefix, names, more in (
        ("qwen2", "qwen2_moe", "mlp", ("gate_proj", "up_proj", "down_proj"),
         dict(shared_expert_intermediate_size=24, norm_topk_prob=True, moe_intermediate_size=24, qkv_bias=True)),
        ("llama", "mixtral", "block_sparse_moe", ("w1", "w3", "w2"), dict(tie_word_embeddings=True)),
    ):
        states = []
        for number, part in enumerate(("base", "expert")):
            folder = plain(f"../mergekit/tied_{kind}/{part}", kind, seed=41 + number, tie_word_embeddings=True)
            states.append(load_file(folder / "model.safetensors"))
            assert "lm_head.weight" not in states[-1]
        parent = json.loads((GOLDEN / f"mergekit/tied_{kind}/base/config.json").read_text())
        same = {key: parent[key] for key in ("rope_parameters", "rms_norm_eps")}
        sizes = dict(SIZES, **same, num_experts=2, num_local_experts=2, num_experts_per_tok=2, tie_word_embeddings=True, **{
            key: value for key, value in more.items() if key != "tie_word_embeddings"})
        config = CONFIG_MAPPING[mixture](**sizes)
        folder = GOLDEN / f"mergekit/tied_{kind}"
        whole = folder / "mixture"
        AutoModelForCausalLM.from_config(config).save_pretrained(whole)
        state = {name: torch.zeros_like(tensor) for name, tensor in load_file(whole / "model.safetensors").items()}
        for name, tensor in states[0].items():
            if ".mlp." not in name:
                state[name] = tensor
        for expert, parent in enumerate(states):
            for layer in range(SIZES["num_hidden_layers"]):
                for theirs, ours in zip(("gate_proj", "up_proj", "down_proj"), names):
                    name = f"model.layers.{layer}.{prefix}.experts.{expert}.{ours}.weight"
                    assert name in state, (name, sorted(state))
                    state[name] = parent[f"model.layers.{layer}.mlp.{theirs}.weight"]
        save_file(state, whole / "model.safetensors", {"format": "pt"})
        write_expected(folder, reload(whole), 12)
        shutil.rmtree(whole)


def parameters():
    # unsloth-zoo#812: LoRA on the packed experts of a Mixtral, which PEFT saves under the module of the experts.
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(12)
    model = reload(GOLDEN / "moe/mixtral")
    wrapped = get_peft_model(model, LoraConfig(
        task_type="CAUSAL_LM", r=2, lora_alpha=4, target_modules=["q_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])).eval()
    folder = GOLDEN / "found/adapter_of_parameters"
    shutil.rmtree(folder, ignore_errors=True)
    wrapped.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    edit = folder / "adapter_config.json"
    config = json.loads(edit.read_text())
    config["base_model_name_or_path"] = None
    edit.write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    # Behind `composites` single kinds may follow, such as `composites "llava gemma"`.
    if sys.argv[1:2] == ["composites"] and len(sys.argv) > 2:
        composites(sys.argv[2:])
        sys.exit()
    wanted = sys.argv[1:] or ["ministral", "tied_heads", "packed", "prefixes", "composites", "adapters", "reports",
                              "mergekit", "parameters"]
    for part in wanted:
        print(part, transformers.__version__, torch.__version__)
        globals()[part]()
