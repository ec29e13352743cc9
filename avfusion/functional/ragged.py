"""Ragged batches: find what is real, cut clips into chunks, and scatter results of the real ones back."""

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import InvalidValueError


def real_first(mask: Bool[Tensor, "batch place"]) -> Int[Tensor, "batch place"]:
    """``(batch, place)`` int64: the places of each row, real ones first, each kind in order.

    Example:
        >>> import torch
        >>> real_first(torch.tensor([[False, True, True]])).tolist()
        [[1, 2, 0]]
    """
    return torch.argsort(mask.to(torch.uint8), dim=1, descending=True, stable=True)


def places_to_keep(mask: Bool[Tensor, "batch place"]) -> Int[Tensor, "batch kept"] | None:
    """``(batch, kept)`` int64: places of what is real, in order, as many as some row has; ``None`` if all is real."""
    if bool(mask.all()):
        return None
    return real_first(mask)[:, : int(mask.sum(1).max())]


def scatter_masked(values: Float[Tensor, "real *dims"], mask: Bool[Tensor, "*places"]) -> Float[Tensor, "..."]:
    """Scatters values in order to the true positions of a mask; other positions are zero.

    The inverse of ``values = all_values[mask]``. Surplus values are dropped, but stay in the graph.

    Args:
        values: ``(real, ...)``.
        mask: bool of any shape.

    Returns:
        ``(*mask.shape, ...)``.

    Raises:
        InvalidValueError: fewer values than true positions.

    Example:
        >>> import torch
        >>> scatter_masked(torch.tensor([1.0, 2.0]), torch.tensor([[True, False], [False, True]])).tolist()
        [[1.0, 0.0], [0.0, 2.0]]
    """
    index = mask.nonzero(as_tuple=True)
    count = len(index[0])
    if len(values) < count:
        raise InvalidValueError(f"values: must be one for each of {count} true places, found {len(values)}")
    values = values[:count]
    if count == mask.numel():
        return values.reshape(*mask.shape, *values.shape[1:])
    return values.new_zeros(*mask.shape, *values.shape[1:]).index_put(index, values)


def cut_chunks(
    values: Float[Tensor, "batch time *dims"], lengths: Int[Tensor, " batch"], size: int
) -> tuple[Float[Tensor, "batch chunk size *dims"], Bool[Tensor, "batch chunk"]]:
    """Cuts clips into chunks of one size; the last chunk is padded with zeros.

    Args:
        values: ``(batch, time, ...)``, real values first.
        lengths: ``(batch,)`` int64: number of real values of each clip.
        size: size of a chunk.

    Returns:
        ``(batch, chunk, size, ...)``, and ``(batch, chunk)`` bool: chunks with at least one real value.

    Raises:
        InvalidValueError: a size below 1.

    Example:
        >>> import torch
        >>> chunks, real = cut_chunks(torch.arange(10.0).reshape(2, 5), torch.tensor([5, 2]), size=3)
        >>> chunks.tolist(), real.tolist()
        ([[[0.0, 1.0, 2.0], [3.0, 4.0, 0.0]], [[5.0, 6.0, 7.0], [8.0, 9.0, 0.0]]], [[True, True], [True, False]])
    """
    if size < 1:
        raise InvalidValueError(f"size: must be at least 1, found {size}")
    batch, length, *dims = values.shape
    count = -(-length // size)
    filled = torch.cat([values, values.new_zeros(batch, count * size - length, *dims)], 1)
    starts = torch.arange(count, device=values.device) * size
    return filled.reshape(batch, count, size, *dims), starts < lengths[:, None]
