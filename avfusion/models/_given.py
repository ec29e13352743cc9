"""How to know later whether a part still is what it was when it was given: a checksum of each tensor."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from avfusion.models._wrappers import base_model

_PEFT_PARTS = ("base_layer", "original_module", "token_adapter")
_COLUMNS = 4096

Checksum = tuple[Any, ...] | None
Checksums = dict[str, Checksum]


def checksums(module: nn.Module) -> Checksums:
    """A checksum of each tensor of a state dict, by the name that it has without adapters.

    It reads each tensor once, and holds no copy. It is ``None`` for tensors that have no values here: on the meta
    device, or sharded over processes.
    """
    return {name: checksum(tensor) for name, tensor in _compared(module).items()}


def as_given(module: nn.Module, given: Checksums | None) -> dict[str, Tensor]:
    """The tensors that are what they were, as far as is known; none where nothing was given."""
    return {
        name: tensor
        for name, tensor in _compared(module).items()
        if given is not None and name in given and (given[name] is None or checksum(tensor) in (None, given[name]))
    }


def unchanged(module: nn.Module, given: Checksums | None) -> dict[str, Tensor]:
    """Those of them that are frozen."""
    return {name: tensor for name, tensor in as_given(module, given).items() if not tensor.requires_grad}


def unknown(module: nn.Module, given: Checksums | None) -> bool:
    """Whether there are tensors that had no values when they were given, and may since have got any."""
    return given is not None and any(
        given.get(name, ()) is None and checksum(tensor) is not None for name, tensor in _compared(module).items()
    )


def differs(module: nn.Module, given: Checksums | None, stored: Iterable[str] = ()) -> bool:
    """Whether anything in a part is trained, or is not what was given.

    Args:
        module: the part.
        given: what it was; ``None`` for a part that was not given but loaded.
        stored: names of tensors that are stored otherwise.
    """
    if given is None:
        return True
    names, same = set(_compared(module)) - set(stored), set(unchanged(module, given))
    return not names <= same or not set(given) - set(stored) <= same


def was_cast(module: nn.Module, given: Checksums | None) -> bool:
    """Whether there are tensors in another dtype than they were given in."""
    return given is not None and any(
        tensor.dtype != found[0] for name, tensor in _compared(module).items() if (found := given.get(name)) is not None
    )


def follow_cast(module: nn.Module, given: Checksums | None, same: Iterable[str]) -> None:
    """Has the tensors of these names count as given from now on: they were only cast."""
    if given is not None:
        tensors = _compared(module)
        given.update({name: checksum(tensors[name]) for name in same if given[name] is not None})


def _compared(module: nn.Module) -> dict[str, Tensor]:
    """A module's own tensors, without what a quantised weight adds under its own name: its first use may repack it."""
    tensors = own_tensors(module)
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not any(name[:place] in tensors for place, letter in enumerate(name) if letter == ".")
    }


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """A module's tensors by the name that they have without adapters; none of the adapters' own."""
    module = base_model(module)
    added = [
        f"{prefix}.{name}."
        for prefix, layer in module.named_modules()
        for name in _adapter_names(layer)
        if hasattr(layer, name)
    ]
    tensors = module.state_dict(keep_vars=True)
    kept = {name: value for name, value in tensors.items() if not name.startswith(tuple(added))}
    return {plain_name(name): value for name, value in kept.items() if isinstance(value, Tensor)}


def plain_name(name: str) -> str:
    """A tensor's name as it is without adapters."""
    parts = name.removeprefix("base_model.model.").split(".")
    return ".".join(part for part in parts if part not in _PEFT_PARTS)


def _adapter_names(layer: Any) -> list[str]:
    names: list[str] = []
    for attribute in ("adapter_layer_names", "other_param_names"):
        names += getattr(layer, attribute, ())
    return [*names, "modules_to_save"] if hasattr(layer, "original_module") else names


def checksum(tensor: Tensor) -> Checksum:
    """Dtype, shape and sums over the bits of a tensor; ``None`` for one that has no values here."""
    if tensor.is_meta or type(tensor.data).__name__ == "DTensor":
        return None
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    whole = data.numel() // 8 * 8
    words, rest = data[:whole], data[whole:]
    if words.storage_offset() % 8:
        words = words.clone()
    words = words.view(torch.int64)
    rows = words.numel() // _COLUMNS
    table, words = words[: rows * _COLUMNS].view(rows, _COLUMNS), words[rows * _COLUMNS :]
    # Each word counts by its row and by its column, so that words that changed places are seen. Sums that overflow
    # wrap around, always alike.
    parts = [_weighed(table.sum(1)), _weighed(table.sum(0)), _weighed(words), _weighed(rest.long())]
    return (tensor.dtype, tuple(tensor.shape), *(int(part) for part in parts))


def _weighed(words: Tensor) -> Tensor:
    return (words * torch.arange(1, len(words) + 1, device=words.device)).sum()
