"""FlexAttention: the mask as a function; fully masked blocks are skipped."""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from avfusion.errors import InvalidValueError
from avfusion.functional.masks import FrameCausalMask

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

_BLOCK = 128


def run(
    query: Tensor, key: Tensor, value: Tensor, causal: FrameCausalMask | None, key_mask: Tensor | None, dropout_p: float
) -> Tensor:
    """``flex_attention`` under a block mask; compiled on CUDA, where it is fused."""
    if dropout_p:
        raise InvalidValueError(
            f'attn_implementation: "flex_attention" has no dropout, found {dropout_p}; use "sdpa", or dropout=0'
        )
    if query.device.type == "cpu":
        if torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)):
            raise InvalidValueError(
                'attn_implementation: "flex_attention" has no gradients on the CPU, found tensors that want them; '
                'use "sdpa"'
            )
        query, key, value = query.detach(), key.detach(), value.detach()
    from torch.nn.attention.flex_attention import flex_attention  # takes a second to import

    mask = block_mask(causal, key_mask, (query.shape[2], key.shape[2]), query.device)
    if query.is_cuda and not torch.compiler.is_compiling():
        return _compiled()(query, key, value, block_mask=mask)
    return flex_attention(query, key, value, block_mask=mask)


@cache
def _compiled() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def block_mask(
    causal: FrameCausalMask | None, key_mask: Tensor | None, lengths: tuple[int, int], device: torch.device
) -> "BlockMask | None":
    """The block mask of a causal structure and a mask of real keys.

    Its blocks depend only on shapes and are cached. ``create_block_mask``, which evaluates the mask everywhere, is too
    slow for every batch (pytorch#151043).
    """
    if causal is not None and causal.num_frames == 1:  # its tokens attend to each other and to all cached tokens
        causal = None
    if causal is None and key_mask is None:
        return None
    from torch.nn.attention.flex_attention import BlockMask

    count, index = _blocks(causal, lengths, device)
    return BlockMask.from_kv_blocks(
        count, index, BLOCK_SIZE=_BLOCK, mask_mod=_mask_mod(causal, key_mask), seq_lengths=lengths
    )


@lru_cache(maxsize=64)  # a stream has many lengths
def _blocks(causal: FrameCausalMask | None, lengths: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Number and indices of the key blocks that each query block may attend to; these indices come first."""
    rows, columns = (-(-length // _BLOCK) for length in lengths)
    if causal is None:
        some = torch.ones(rows, columns, dtype=torch.bool, device=device)
    else:
        room = (0, columns * _BLOCK - lengths[1], 0, rows * _BLOCK - lengths[0])
        dense = torch.nn.functional.pad(causal.dense(device), room)
        some = dense.unflatten(0, (rows, _BLOCK)).unflatten(2, (columns, _BLOCK)).any(3).any(1)
    index = some.to(torch.int32).argsort(dim=1, descending=True, stable=True).to(torch.int32)
    return some.sum(1, dtype=torch.int32)[None, None], index[None, None]


def _mask_mod(causal: FrameCausalMask | None, key_mask: Tensor | None) -> Callable[..., Tensor]:
    size = 1 if causal is None else causal.tokens_per_frame
    cached = 0 if causal is None else causal.cached_tokens
    earlier = causal is None or causal.direction == "causal"

    def structure(window: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if cached:
            return (key < cached) | (query // size >= (key - cached) // size)
        return query // size >= key // size if earlier else query // size <= key // size

    if key_mask is None:
        return structure

    def real(window: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key_mask[window, key] if causal is None else structure(window, head, query, key) & key_mask[window, key]

    return real
