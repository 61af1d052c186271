"""Stands for torch.cuda, so that Megatron-LM runs on processors alone, its ranks over gloo. For checks of correctness, not of speed.

    PYTHONPATH=bench/megatron/cpu .../run.sh MEGATRON NAME RANKS --distributed-backend gloo ARGUMENTS

Python imports a module of this name by itself. It acts in the ranks of torchrun alone. Megatron-LM is not changed; it needs the
packages triton (which is imported, never run) and pybind11. Tried with PyTorch 2.13 for processors and Python 3.11.
"""

import importlib.abc
import importlib.util
import os
import sys
import typing

if not hasattr(typing, "override"):
    typing.override = lambda method: method


class Still:
    """A stream or an event of a device that does everything at once."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def query(self):
        return True

    def elapsed_time(self, _):
        return 1.0

    def nothing(self, *_, **__):
        return self

    wait = wait_stream = wait_event = synchronize = record = record_event = nothing


class Properties:
    """What is asked of a GPU."""

    major, minor = 9, 0
    total_memory = 1 << 34
    multi_processor_count = 1
    name = "processor"


def stand_in():
    import torch
    import torch.cuda.random
    import torch.distributed

    processor = torch.device("cpu")
    cuda = torch.cuda

    def on_processor(value):
        named = value.split(":")[0] if isinstance(value, str) else getattr(value, "type", None)
        return processor if named == "cuda" else value

    def redirected(function):
        def call(*given, **named):
            named.pop("pin_memory", None)
            named = {name: on_processor(value) for name, value in named.items()}
            return function(*[on_processor(value) for value in given], **named)

        return call

    def of_type(dtype):
        class Type(type):
            def __instancecheck__(cls, value):
                return isinstance(value, torch.Tensor) and value.dtype == dtype

            def __call__(cls, *given):
                if len(given) == 1 and isinstance(given[0], (list, tuple)):
                    return torch.tensor(given[0], dtype=dtype)
                return torch.empty(*given, dtype=dtype)

        return Type("Tensor", (), {})

    for name, value in {
        "is_available": True,
        "device_count": 8,
        "current_device": processor,
        "get_device_name": Properties.name,
        "get_device_properties": Properties(),
        "get_device_capability": (Properties.major, Properties.minor),
        "mem_get_info": (Properties.total_memory, Properties.total_memory),
        "memory_stats": {},
        "memory_allocated": 0,
        "max_memory_allocated": 0,
        "memory_reserved": 0,
        "max_memory_reserved": 0,
        "current_stream": Still(),
        "default_stream": Still(),
        **dict.fromkeys(["_lazy_init", "set_device", "synchronize", "empty_cache", "reset_peak_memory_stats"]),
    }.items():
        setattr(cuda, name, lambda *_, value=value, **__: value)
    cuda.Stream = cuda.Event = cuda.stream = cuda.device = Still
    cuda.nvtx.range_push = cuda.nvtx.range_pop = lambda *_: None
    for module in (cuda, torch.cuda.random):
        module.get_rng_state = lambda *_, **__: torch.get_rng_state()
        module.set_rng_state = lambda state, *_, **__: torch.set_rng_state(state)
        module.manual_seed = module.manual_seed_all = lambda seed: torch.default_generator.manual_seed(int(seed))

    torch.compile = lambda function=None, *_, **__: function if function is not None else (lambda one: one)
    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self
    torch.Tensor.to = redirected(torch.Tensor.to)
    torch.Tensor.record_stream = lambda *_: None
    torch.Tensor.is_cuda = property(lambda _: True)
    plain_type = torch.Tensor.type
    torch.Tensor.type = lambda self, *given, **named: (
        plain_type(self, *given, **named) if given or named else plain_type(self).replace("torch.", "torch.cuda.")
    )
    for name in "empty zeros ones full tensor arange rand randn as_tensor".split():
        setattr(torch, name, redirected(getattr(torch, name)))
    for name in "empty zeros ones full rand randn".split():
        setattr(torch, f"{name}_like", redirected(getattr(torch, f"{name}_like")))
    for name, dtype in {
        "FloatTensor": torch.float32,
        "DoubleTensor": torch.float64,
        "HalfTensor": torch.float16,
        "BFloat16Tensor": torch.bfloat16,
        "LongTensor": torch.int64,
        "IntTensor": torch.int32,
        "ByteTensor": torch.uint8,
    }.items():
        setattr(cuda, name, of_type(dtype))

    begin = torch.distributed.init_process_group

    def over_gloo(*given, **named):
        named.pop("device_id", None)
        return begin(*given, **{**named, "backend": "gloo"})

    torch.distributed.init_process_group = over_gloo
    of_unequal_parts(torch.distributed)
    for module, change in changes.items():
        sys.meta_path.insert(0, Changed(module, change))


def of_unequal_parts(distributed):
    """NCCL gathers and scatters parts of unequal sizes, as experts with tensor parallelism have them; gloo does not."""
    gather, scatter = distributed.all_gather, distributed.reduce_scatter

    def all_gather(parts, part, group=None, async_op=False):
        if all(one.shape == part.shape for one in parts):
            return gather(parts, part, group=group, async_op=async_op)
        own = distributed.get_rank(group)
        for rank, one in enumerate(parts):
            if rank == own:
                one.copy_(part)
            distributed.broadcast(one, src=distributed.get_global_rank(group, rank), group=group)

    def reduce_scatter(part, parts, *rest, group=None, **named):
        if all(one.shape == part.shape for one in parts):
            return scatter(part, parts, *rest, group=group, **named)
        own = distributed.get_rank(group)
        for rank, one in enumerate(parts):
            total = one.contiguous().clone()
            distributed.all_reduce(total, group=group)
            if rank == own:
                part.copy_(total)

    distributed.all_gather, distributed.reduce_scatter = all_gather, reduce_scatter


def of_processor(module):
    """Megatron-LM sets the GPU's generator by a way of its own; here it is the processor's."""
    import torch

    module._set_cuda_rng_state = lambda state, *_, **__: torch.set_rng_state(state)


def without_sizes(module):
    """
    Stands for Transformer Engine's attention, which latent attention tells the sizes of keys and values: the local one
    takes no such arguments, but computes the same where values have the size --kv-channels.
    """
    plain = module.DotProductAttention

    class DotProductAttention(plain):
        def __init__(self, *given, k_channels=None, v_channels=None, **named):
            super().__init__(*given, **named)

    module.DotProductAttention = DotProductAttention


changes = {
    "megatron.core.tensor_parallel.random": of_processor,
    "megatron.core.transformer.dot_product_attention": without_sizes,
}


class Changed(importlib.abc.MetaPathFinder):
    """Changes a module behind its import."""

    def __init__(self, module, change):
        self.module, self.change = module, change

    def find_spec(self, name, path, target=None):
        if name != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_change(module):
            load(module)
            self.change(module)

        spec.loader.exec_module = load_and_change
        return spec


if "RANK" in os.environ:
    stand_in()
