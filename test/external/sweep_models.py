"""Tiny models of transformers' causal and multimodal types, and variants of them, for `sweep.mjs`.

    python sweep_models.py list WORK              writes WORK/types.json: a config.json for every type
    python sweep_models.py variants WORK TYPE...  writes WORK/variants.json: the same with one attribute changed each
    python sweep_models.py run WORK LIST JOBS     makes those models of a list that LIST.names.json names:
                                                  WORK/NAME/{config.json,model.safetensors,expected.safetensors}, and
                                                  LIST.results.json: what came of each

An entry of a list is {"type", "name", "change", "config"}, and {"multimodal"} where no causal class knows the type. Its model is made from exactly that config.json, through
AutoConfig as `from_pretrained` would; `saved/` beside it is the folder as transformers writes it.
"""
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import traceback
import warnings

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
warnings.filterwarnings("ignore")

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig

import tiny

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)

SECONDS = 150
BYTES = 12 << 30


def config_of(model_type, settings):
    return {"model_type": model_type, **tiny.plain(settings)}


def list_types(work):
    entries = []
    multimodal = set(tiny.multimodal_types())
    for model_type in [*tiny.causal_types(), *sorted(multimodal)]:
        entry = {"type": model_type, "name": model_type, "change": None, "multimodal": model_type in multimodal}
        if model_type in tiny.impossible:
            entries.append({**entry, "config": None, "failure": tiny.impossible[model_type]})
            continue
        try:
            entry["config"] = config_of(model_type, tiny.tiny_settings(model_type))
            json.dumps(entry)
        except Exception as error:
            entry.update(config=None, failure=sentence(error))
        entries.append(entry)
    write_json(os.path.join(work, "types.json"), entries)


def list_variants(work, types):
    entries = []
    for model_type in types:
        config = config_of(model_type, tiny.tiny_settings(model_type))
        for number, (change, changed) in enumerate(tiny.variants(model_type, config)):
            entries.append({"type": model_type, "name": f"{model_type}+{number}", "change": change, "config": changed})
    write_json(os.path.join(work, "variants.json"), entries)


def sentence(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The strict configuration classes put the reason behind a line that names the validator.
    text = lines[1] if len(lines) > 1 and lines[0].endswith(":") else (lines[0] if lines else "")
    return f"{type(error).__name__}: {text}"[:300]


def make(work, entry):
    folder = os.path.join(work, entry["name"])
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(entry["config"], file, indent=2)
    config = AutoConfig.from_pretrained(folder)
    model = tiny.build(config)
    ids = tiny.input_ids()
    expected = tiny.logits(model, ids)
    if not torch.isfinite(expected).all():
        raise ValueError("its logits are not finite")
    saved = os.path.join(folder, "saved") if entry["change"] is None else folder
    model.save_pretrained(saved)
    if entry["change"] is None:
        for name in os.listdir(saved):
            if name.endswith((".safetensors", ".json")) and name != "config.json":
                shutil.copy(os.path.join(saved, name), folder)
    else:
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(entry["config"], file, indent=2)
    save_file({"input_ids": ids.to(torch.int32), "logits": expected.contiguous()}, os.path.join(folder, "expected.safetensors"))
    return {"class": type(model).__name__}


def attempt(work, entry):
    """Made in a process of its own: a type may ask for any amount of memory and time, or end the interpreter."""
    receiver, sender = multiprocessing.Pipe(False)
    process = os.fork()
    if process == 0:
        try:
            signal.alarm(SECONDS)
            resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
            result = make(work, entry)
        except BaseException as error:
            if "-v" in sys.argv:
                traceback.print_exc()
            result = {"failure": sentence(error)}
        sender.send(result)
        os._exit(0)
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        result = {"failure": f"it took more than {SECONDS} seconds or ended Python"}
    os.waitpid(process, 0)
    return result


def run(work, file, jobs):
    with open(file) as opened:
        entries = json.load(opened)
    with open(f"{file}.names.json") as opened:
        names = set(json.load(opened))
    entries = [entry for entry in entries if entry["name"] in names]
    # Imported before the processes fork, so that none of them has to.
    for model_type in {entry["type"] for entry in entries}:
        for mapping in ("MODEL_FOR_CAUSAL_LM_MAPPING", "MODEL_FOR_MULTIMODAL_LM_MAPPING"):
            try:
                getattr(transformers.models.auto.modeling_auto, mapping)[type(AutoConfig.for_model(model_type))]
            except Exception:
                pass
    todo = [entry for entry in entries if entry["config"] is not None]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(jobs) as pool:
        for entry, result in zip(todo, pool.map(lambda entry: attempt(work, entry), todo)):
            entry.update(result)
    write_json(f"{file}.results.json", entries)


def write_json(file, value):
    with open(file, "w") as opened:
        json.dump(value, opened, indent=1)


if __name__ == "__main__":
    command, work, *rest = [argument for argument in sys.argv[1:] if argument != "-v"]
    os.makedirs(work, exist_ok=True)
    if command == "list":
        list_types(work)
    elif command == "variants":
        list_variants(work, rest)
    elif command == "run":
        run(work, rest[0], int(rest[1]))
    else:
        sys.exit(f"unknown command {command}")
