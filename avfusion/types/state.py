"""States of streams: trees of tensors whose first axis is the batch."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from avfusion.errors import CheckpointError, InvalidTypeError, InvalidValueError

S = TypeVar("S")


def map_state(function: Callable[[Tensor], Tensor], state: S) -> S:
    """Applies ``function`` to each tensor of a state.

    The first axis of every tensor is the batch, so rows can be selected.

    Args:
        function: takes and returns a tensor.
        state: of any component.

    Example:
        >>> import torch
        >>> from avfusion import CausalQFormer, map_state
        >>> qformer = CausalQFormer(input_dim=8, hidden_size=8, num_heads=2, tokens_per_frame=4)
        >>> state = qformer.initial_state(3)
        >>> moved = map_state(lambda value: value.to("cpu"), state)
        >>> map_state(lambda value: value[:1], state).num_frames.shape
        torch.Size([1])
    """
    return _rebuilt(state, iter([function(value) for _, value in _leaves(state, "")]))


def state_tensors(state: Any) -> dict[str, Tensor]:
    """A state's tensors by name, detached and copied, ready for ``safetensors``.

    Args:
        state: of any component.

    Example:
        >>> from avfusion import CausalQFormer, state_tensors
        >>> qformer = CausalQFormer(input_dim=8, hidden_size=8, num_heads=2, num_layers=1, tokens_per_frame=4)
        >>> sorted(state_tensors(qformer.initial_state(1)))[:2]
        ['layers.0.causal.key', 'layers.0.causal.value']
    """
    return {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in _leaves(state, "")}


def state_from_tensors(tensors: Mapping[str, Tensor], like: S) -> S:
    """The inverse of :func:`state_tensors`.

    Args:
        tensors: by name.
        like: any state of the same component, such as ``initial_state()``; only its structure is used.

    Raises:
        CheckpointError: tensors that are missing or unknown; the message names them.

    Example:
        >>> import torch
        >>> from avfusion import CausalQFormer, state_from_tensors, state_tensors
        >>> qformer = CausalQFormer(input_dim=8, hidden_size=8, num_heads=2, tokens_per_frame=4)
        >>> _, state = qformer.step(torch.randn(1, 3, 4, 8), qformer.initial_state(1))
        >>> state_from_tensors(state_tensors(state), like=qformer.initial_state(1)).num_frames
        tensor([3])
    """
    names = [name for name, _ in _leaves(like, "")]
    missing, unknown = sorted(set(names) - set(tensors)), sorted(set(tensors) - set(names))
    if missing or unknown:
        raise CheckpointError(f"tensors: must be those of the state, found {missing} missing and {unknown} unknown")
    return _rebuilt(like, iter([tensors[name] for name in names]))


def take_rows(state: S, rows: Tensor) -> S:
    """Some rows of a state.

    Args:
        state: of any component.
        rows: ``(taken,)`` int64.
    """
    return map_state(lambda value: value.index_select(0, rows.to(value.device)), state)


def put_rows(state: S, rows: Tensor, values: S) -> S:
    """A state with some rows replaced; smaller tensors are padded with zeros at the end.

    Args:
        state: of any component.
        rows: ``(put,)`` int64.
        values: a state of ``put`` rows.
    """

    def put(old: Tensor, new: Tensor) -> Tensor:
        sizes = [max(pair) for pair in zip(old.shape[1:], new.shape[1:], strict=True)]
        like = old if old.numel() else new  # dtype and device are unknown before the first data
        old, new = (_padded(value, sizes).to(like) for value in (old, new))
        return old.index_copy(0, rows.to(like.device), new)

    pairs = zip(_leaves(state, ""), _leaves(values, ""), strict=True)
    return _rebuilt(state, iter([put(old, new) for (_, old), (_, new) in pairs]))


def joined(old: Tensor, new: Tensor) -> Tensor:
    """Concatenates along the second axis; an empty tensor does not determine dtype, device or other sizes."""
    if not old.shape[1]:
        return new
    return torch.cat([old, new], 1) if new.shape[1] else old


def as_rows(rows: Any, batch: int, name: str, device: torch.device) -> Tensor:
    """``(batch,)`` bool from a mask, checked."""
    value = torch.as_tensor(rows, device=device)
    if value.dtype != torch.bool:
        raise InvalidTypeError(f"{name}: must be boolean, found {value.dtype}")
    if value.shape != (batch,):
        raise InvalidValueError(f"{name}: must be (batch,) = ({batch},), found shape {tuple(value.shape)}")
    return value


def ended_rows(end: Any, like: Tensor) -> Tensor:
    """``(batch,)`` bool: the rows of ``like`` whose clips are over; none without ``end``."""
    if end is None:
        return torch.zeros(len(like), dtype=torch.bool, device=like.device)
    return as_rows(end, len(like), "end", like.device)


def chosen_rows(rows: Any, like: Tensor) -> Tensor:
    """``(chosen,)`` int64: the rows that a mask of the rows of ``like`` chooses, checked."""
    return as_rows(rows, len(like), "rows", like.device).nonzero().flatten()


def _leaves(state: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        yield name, state
        return
    if not isinstance(state, tuple):
        raise InvalidTypeError(f"state: must be a tree of tuples and tensors, found {type(state).__name__}")
    fields = getattr(state, "_fields", None) or map(str, range(len(state)))
    for field, value in zip(fields, state, strict=True):
        yield from _leaves(value, f"{name}.{field}" if name else field)


def _rebuilt(state: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(state, Tensor):
        return next(tensors)
    parts = [_rebuilt(value, tensors) for value in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def _padded(value: Tensor, sizes: list[int]) -> Tensor:
    missing = [size - found for size, found in zip(sizes, value.shape[1:], strict=True)]
    if not any(missing):
        return value
    return torch.nn.functional.pad(value, [each for size in reversed(missing) for each in (0, size)])
