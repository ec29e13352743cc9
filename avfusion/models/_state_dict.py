"""State dicts that safetensors takes as they are, with each tensor once."""

import itertools
from typing import Any

import torch
from torch import Tensor, nn


def tidy(module: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Leaves each tensor in a state dict once and in one piece, as safetensors needs it."""
    left_out = set() if module.frozen_in_state_dict else module.frozen_names()
    seen: dict[int, tuple[Any, ...]] = {}
    for key in [key for key in state if key.startswith(prefix)]:
        tensor = state[key]
        if key.removeprefix(prefix) in left_out:
            del state[key]
        elif isinstance(tensor, Tensor) and not isinstance(tensor, nn.Parameter) and _has_storage(tensor):
            view = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
            first = seen.setdefault(tensor.untyped_storage().data_ptr(), view)
            if first is not view and first == view:
                del state[key]  # a tied weight's second name
            elif first is not view or not tensor.is_contiguous():
                state[key] = tensor.clone(memory_format=torch.contiguous_format)


def _has_storage(tensor: Tensor) -> bool:
    return type(tensor) is Tensor and tensor.layout == torch.strided and not tensor.is_meta and tensor.numel() > 0


def expect_tidy(module: Any, incompatible: Any) -> None:
    """A state dict that lacks a tied weight's second name, or what is frozen, lacks nothing."""
    names: dict[int, list[str]] = {}
    tensors = (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    for name, value in itertools.chain(*tensors):
        names.setdefault(id(value), []).append(name)
    optional = set() if module.frozen_in_state_dict else module.frozen_names()
    missing = set(incompatible.missing_keys)
    for aliases in names.values():
        for prefix in {key.removesuffix(name) for key in missing for name in aliases if key.endswith(name)}:
            lacking = [name for name in aliases if prefix + name in missing]
            if len(lacking) < len(aliases) or set(aliases) <= optional:
                for name in lacking:
                    incompatible.missing_keys.remove(prefix + name)
