"""Validation shared by the value types."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.types.lengths import within_lengths

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
    if lengths is None:
        return torch.ones(count, dtype=torch.bool, device=like.device).expand(batch, count)
    return within_lengths(torch.as_tensor(lengths, device=like.device), batch, count)


def checks_replaced(cls: type[T]) -> type[T]:
    """Makes ``_replace``, which bypasses ``__new__``, validate its result too."""
    setattr(cls, "_make", classmethod(lambda cls, values: cls(*values)))  # noqa: B010
    return cls
