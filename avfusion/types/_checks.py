"""Validation shared by the value types."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from avfusion.errors import InvalidTypeError, InvalidValueError

T = TypeVar("T")


def check(value: Any, name: str, ndim: int, axes: str, *, dtype: str = "floating") -> None:
    if not isinstance(value, Tensor):
        return  # pytree and tracing tools put other leaves into these tuples
    if value.ndim != ndim:
        raise InvalidValueError(f"{name}: must be {axes}, found shape {tuple(value.shape)}")
    if dtype == "bool" and value.dtype != torch.bool:
        raise InvalidTypeError(f"{name}: must be boolean (True = real), found {value.dtype}")
    if dtype == "floating" and not value.is_floating_point():
        raise InvalidTypeError(f"{name}: must be floating point, found {value.dtype}")


def check_same(value: Any, name: str, axes: str, shape: Sequence[int]) -> None:
    if isinstance(value, Tensor) and tuple(value.shape) != tuple(shape):
        raise InvalidValueError(f"{name}: must be {axes} = {tuple(shape)}, found shape {tuple(value.shape)}")


def as_mask(
    mask: Tensor | None, lengths: "Tensor | Sequence[int] | None", batch: int, count: int, like: Tensor
) -> Tensor:
    if mask is not None and lengths is not None:
        raise InvalidValueError("mask, lengths: give one of them, found both")
    if mask is not None:
        return mask
    places = torch.arange(count, device=like.device)
    if lengths is None:
        return (places >= 0).expand(batch, count)
    lengths = torch.as_tensor(lengths, device=like.device)
    if lengths.is_floating_point():
        raise InvalidTypeError(f"lengths: must be whole numbers, found {lengths.dtype}")
    if lengths.shape != (batch,):
        raise InvalidValueError(f"lengths: must be (batch,) = ({batch},), found shape {tuple(lengths.shape)}")
    if bool(((lengths < 0) | (lengths > count)).any()):
        raise InvalidValueError(f"lengths: must be between 0 and {count}, found {lengths.tolist()}")
    return places < lengths[:, None]


def checks_replaced(cls: type[T]) -> type[T]:
    """Makes ``_replace``, which bypasses ``__new__``, validate its result too."""
    setattr(cls, "_make", classmethod(lambda cls, values: cls(*values)))  # noqa: B010
    return cls
