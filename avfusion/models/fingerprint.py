"""Fingerprints: whether a part that is loaded again is the one that a model was saved with."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from avfusion.errors import CheckpointError
from avfusion.models._given import own_tensors

_TENSORS, _VALUES = 16, 8
_TOLERANCE = 0.02  # of the largest sampled value: bfloat16 and float16 copies are the same part


def fingerprint(module: nn.Module) -> dict[str, Any] | None:
    """Shapes and some values of a part, small enough for a JSON file.

    Args:
        module: the part, possibly with adapters, which are ignored.

    Returns:
        ``shapes``, a digest of the names and shapes of all floating-point tensors, and ``values``, a few values of some
        of them by name; ``None`` for tensors without values here (meta or sharded).
    """
    tensors = _floating(module)
    if any(tensor.is_meta or type(tensor.data).__name__ == "DTensor" for tensor in tensors.values()):
        return None
    names = sorted(tensors)
    chosen = names[:: max(1, math.ceil(len(names) / _TENSORS))]
    return {"shapes": _shapes(tensors), "values": {name: _sample(tensors[name]) for name in chosen}}


def check_fingerprint(name: str, module: nn.Module, wanted: Mapping[str, Any], source: str) -> None:
    """Raises :class:`~avfusion.CheckpointError` unless a part has the shapes and, within rounding, the values.

    Quantised parts are compared by the tensors that they have in full.

    Args:
        name: of the part, for the message.
        module: the part.
        wanted: :func:`fingerprint` of the part that was saved.
        source: what states it, for the message.
    """
    tensors = _floating(module)
    quantised = getattr(module, "hf_quantizer", None) is not None
    if not quantised and _shapes(tensors) != wanted.get("shapes"):
        raise CheckpointError(f"{name}: must be the one of {source}, found one of other tensors or shapes")
    for key, values in dict(wanted.get("values", {})).items():
        if key not in tensors or tensors[key].is_meta or (quantised and tensors[key].numel() < len(values)):
            continue
        found = _sample(tensors[key])
        largest = max([*map(abs, values), 1e-8])
        if len(found) != len(values) or any(
            not abs(one - other) <= _TOLERANCE * largest for one, other in zip(found, values, strict=True)
        ):
            raise CheckpointError(
                f"{name}: must be the one of {source}, found one of the same shapes with other values in {key}"
            )


def _floating(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in own_tensors(module).items() if tensor.is_floating_point()}


def _shapes(tensors: Mapping[str, Tensor]) -> str:
    told = ";".join(f"{name}{tuple(tensors[name].shape)}" for name in sorted(tensors))
    return hashlib.sha256(told.encode()).hexdigest()


def _sample(tensor: Tensor) -> list[float]:
    """Evenly spaced values."""
    flat = tensor.detach().reshape(-1)
    places = torch.linspace(0, max(flat.numel() - 1, 0), min(_VALUES, flat.numel()), dtype=torch.float64).long()
    return [float(f"{value:.6g}") for value in flat[places.to(flat.device)].float().tolist()]
