"""Which attributes of its config does transformers read for a family?

    python record_attributes.py test/golden/attributes.json FAMILY...

Adds the families to the file. For each, a tiny model is made from a config.json, run, and continued behind a cache, all in eager attention; every
attribute that code of transformers reads on the way is recorded, those of dictionaries as DICTIONARY.KEY. An entry says
where: `config` (the config class itself, keys that it turns into others among them), `build`, `run`, `generate`;
`declared` alone: never read. What the library's shared code reads for every model to save, print or distribute it is no
matter of a family and left out. `others` are values that the attribute may have instead.
"""
import dataclasses
import inspect
import json
import os
import re
import sys
import tempfile
import warnings

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
warnings.filterwarnings("ignore")

import torch
import transformers
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import tiny

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)

LIBRARY = os.path.dirname(transformers.__file__)
# Code that handles every config alike; what it takes from the file beside attributes stands in `keywords_of`.
IMPARTIAL = os.path.join(LIBRARY, "configuration_utils.py")
phase = "config"
# Attribute -> phases in which it was read.
seen = {}


def reader_of(depth):
    """The file of transformers whose code asked; null for the interpreter, other libraries and impartial code."""
    frame = sys._getframe(depth)
    while frame is not None and frame.f_code.co_name in ("__getattribute__", "__getattr__", "get_config_attribute"):
        frame = frame.f_back
    file = frame.f_code.co_filename
    impartial = file == IMPARTIAL or "integrations/heterogeneity" in file
    return file if file.startswith(LIBRARY) and not impartial else None


def record(name):
    seen.setdefault(name, set()).add(phase)


class Settings(dict):
    """A dictionary of a config that notes which of its keys are asked for."""

    path = ""

    def __getitem__(self, key):
        self.note(key)
        value = super().__getitem__(key)
        return self.inside(key, value)

    def get(self, key, default=None):
        self.note(key)
        return self.inside(key, super().get(key, default))

    def inside(self, key, value):
        if type(value) is dict:
            inner = Settings(value)
            inner.path = f"{self.path}.{key}"
            super().__setitem__(key, inner)
            return inner
        return value

    def __contains__(self, key):
        self.note(key)
        return super().__contains__(key)

    def note(self, key):
        if reader_of(3) is not None and isinstance(key, str):
            record(f"{self.path}.{key}")


original = PreTrainedConfig.__getattribute__


def watched(self, name):
    try:
        value = original(self, name)
    except AttributeError:
        # Asked for and absent: a file may have it all the same.
        if not name.startswith("__") and reader_of(2) is not None:
            record(prefix_of(self) + name)
        raise
    own = object.__getattribute__(self, "__dict__")
    canonical = type(self).attribute_map.get(name, name)
    if canonical not in own or reader_of(2) is None:
        return value
    path = prefix_of(self) + canonical
    record(path)
    if type(value) is dict:
        wrapped = Settings(value)
        wrapped.path = path
        own[canonical] = wrapped
        return wrapped
    return value


def keywords_of(config_class):
    """Keys that the config classes take out of the file by name instead of keeping them as attributes."""
    keys = set()
    for owner in config_class.__mro__:
        for method in ("__init__", "__post_init__", "convert_rope_params_to_dict"):
            if owner.__module__.startswith("transformers.") and method in vars(owner):
                try:
                    source = inspect.getsource(vars(owner)[method])
                except OSError:
                    # A dataclass's own `__init__` was never written down.
                    continue
                keys.update(re.findall(r"""kwargs\.(?:pop|get)\(\s*"(\w+)\"""", source))
    return keys


# Class of a part -> where it stands in the whole.
prefixes = {}


def prefix_of(config):
    return prefixes.get(type(config), "")


def watch(config, generate):
    """Makes, runs and continues the model of a config.json while every read is recorded."""
    global phase
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(config, file)
        PreTrainedConfig.__getattribute__ = watched
        try:
            phase = "config"
            made = AutoConfig.from_pretrained(folder)
            phase = "build"
            model = tiny.build(made)
            phase = "run"
            tiny.logits(model, tiny.input_ids())
            if generate:
                phase = "generate"
                model.generate(tiny.input_ids(), max_new_tokens=3, do_sample=False, pad_token_id=0)
        finally:
            PreTrainedConfig.__getattribute__ = original


def record_family(family):
    seen.clear()
    prefixes.clear()
    config_class = CONFIG_MAPPING[family]
    for name, part in config_class.sub_configs.items():
        prefixes[part] = f"{name}."
    config = {"model_type": family, **tiny.plain(tiny.tiny_settings(family))}
    watch(config, True)
    # Some attributes are only read where others are set: every switch is turned, every kind of rope tried.
    for change, changed in tiny.variants(family, config):
        if tiny.opens_others(change):
            try:
                watch(changed, False)
            except Exception:
                pass
    owners = [config_class, *(part for part in config_class.sub_configs.values() if dataclasses.is_dataclass(part))]
    for owner in owners:
        for field in dataclasses.fields(owner):
            seen.setdefault(prefixes.get(owner, "") + field.name, set())
        for name in keywords_of(owner):
            seen.setdefault(prefixes.get(owner, "") + name, set()).add("config")
    order = ["config", "build", "run", "generate"]
    read = {name: " ".join(one for one in order if one in phases) or "declared" for name, phases in sorted(seen.items())}
    return {"config": config, "attributes": read, "others": {name: others_of(name, config) for name in read}}


def expanded(facts):
    """The families of a file, each with all its values."""
    usual = facts.pop("others")
    for one in facts.values():
        one["others"] = {name: one["others"].get(name, usual[name]) for name in one["attributes"]}
    return facts


def compacted(families):
    """Values that most families share stand once, under `others`; a family has those that differ."""
    common = {}
    for facts in families.values():
        for name, values in facts["others"].items():
            common.setdefault(name, []).append(json.dumps(values))
    usual = {name: max(set(lists), key=lists.count) for name, lists in sorted(common.items())}
    for facts in families.values():
        facts["others"] = {name: values for name, values in facts["others"].items() if json.dumps(values) != usual[name]}
    return {"others": {name: json.loads(text) for name, text in usual.items()}, **families}


def others_of(path, config):
    """Values that an attribute may have instead of its own."""
    value = config
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return [*tiny.alternatives(path.split(".")[-1], value), *tiny.generic.get(path, [])]


if __name__ == "__main__":
    file, *families = sys.argv[1:]
    result = {}
    if os.path.exists(file):
        with open(file) as opened:
            result = expanded(json.load(opened))
    for family in families:
        print(family, file=sys.stderr)
        result[family] = record_family(family)
    # One family a line, so that a change shows which family it is.
    with open(file, "w") as opened:
        lines = [f"{json.dumps(name)}:{json.dumps(facts)}" for name, facts in sorted(compacted(result).items())]
        opened.write("{" + ",\n".join(lines) + "}\n")
