r"""Attention from few queries to many wide tokens, without forming the tokens' keys and values.

With one head's maps :math:`K_h, V_h` and a token :math:`c_j`,

.. math:: q_h \cdot (K_h c_j) = (K_h^\top q_h) \cdot c_j, \qquad \sum_j p_j (V_h c_j) = V_h \sum_j p_j c_j

so both maps can be applied on the side of the queries. A key's bias adds the same to all scores of a query, and cancels
in the softmax; a value's bias passes through the weighted mean.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from avfusion.functional.backends.eager import masked_softmax
from avfusion.functional.masks import let_see_something

# Elements of what the queries of some windows find, where no gradients are wanted: four published windows, whose
# intermediate results a CPU keeps in its cache and in memory that it has already touched.
_AT_ONCE = 4 * 12 * 32 * 1536


def absorption_pays(query: Tensor, key_value: Tensor, width: int, heads: int) -> bool:
    """Whether the operations fall by more than a tenth; on a CPU only, because a GPU's fused kernels are faster.

    Args:
        query: ``(window or 1, q, query_dim)``.
        key_value: ``(window, k, key_dim)``.
        width: width of queries, keys and values, all heads together.
        heads: attention heads.
    """
    if query.device.type != "cpu":
        return False
    queries, wide = query.shape[1], key_value.shape[2]
    saved_a_token = 9 * (wide * width + queries * width) - 10 * heads * queries * wide
    if torch.compiler.is_compiling():  # one graph for all numbers of tokens
        return saved_a_token > 0
    return saved_a_token * key_value.shape[1] > 10 * queries * wide * width  # the maps on the side of the queries


def is_plain(projection: nn.Module) -> bool:
    """Whether a linear map is its weight and bias and nothing else: no adapter, no quantisation, no hook, not split."""
    return (
        type(projection) is nn.Linear
        and type(projection.weight) in (nn.Parameter, Tensor)
        and projection.weight.is_floating_point()
        and not projection._forward_hooks
        and not projection._forward_pre_hooks
        and not projection._backward_hooks
        and not projection._backward_pre_hooks
    )


def absorbed_attention(
    query: Tensor,
    key_value: Tensor,
    key: nn.Linear,
    value: nn.Linear,
    heads: int,
    *,
    key_mask: Tensor | None,
    dropout_p: float,
    average_unseen: bool,
) -> Tensor:
    """What :func:`avfusion.functional.attention` gives with formed keys and values, within rounding.

    Args:
        query: ``(window or 1, q, width)``, mapped; a single one is expanded to all windows.
        key_value: ``(window, k, key_dim)``.
        key: map of the keys.
        value: map of the values.
        heads: attention heads.
        key_mask: ``(window, k)`` bool.
        dropout_p: probability of dropping an attention weight.
        average_unseen: give a query that may see nothing the average of all values, rather than zero.

    Returns:
        ``(window, q, width)``.
    """
    windows, _, wide = key_value.shape
    shared, queries, width = query.shape
    few = max(_AT_ONCE // (heads * queries * wide), 1)
    if windows > few and _keeps_nothing(key_value):
        parts = [
            absorbed_attention(
                query if shared < windows else query[start : start + few],
                key_value[start : start + few],
                key,
                value,
                heads,
                key_mask=None if key_mask is None else key_mask[start : start + few],
                dropout_p=dropout_p,
                average_unseen=average_unseen,
            )
            for start in range(0, windows, few)
        ]
        return torch.cat(parts)
    by_head = query.view(shared, queries, heads, width // heads).permute(2, 0, 1, 3).flatten(1, 2)
    by_head = by_head / math.sqrt(width // heads)
    seeking = (by_head @ key.weight.view(heads, -1, wide)).unflatten(1, (shared, queries))
    seeking = seeking.transpose(0, 1).flatten(1, 2)  # (window or 1, head * q, key_dim)
    scores = (seeking if shared == windows else seeking[0]) @ key_value.transpose(1, 2)
    if torch.is_grad_enabled() and key.bias.requires_grad:  # it cancels, but must get its (zero) gradient
        offset = torch.bmm(by_head, key.bias.view(heads, -1, 1)).view(heads, shared, queries, 1)
        scores = scores + offset.transpose(0, 1).flatten(1, 2)
    allowed = None if key_mask is None else let_see_something(key_mask[:, None])
    weights = functional.dropout(masked_softmax(scores, allowed), dropout_p)

    found = (weights @ key_value).view(windows, heads, queries, wide).transpose(0, 1).flatten(1, 2)
    mixed = found @ value.weight.view(heads, -1, wide).transpose(1, 2)
    mixed = mixed.unflatten(1, (windows, queries)).permute(1, 2, 0, 3)  # (window, q, head, head_dim)
    bias = value.bias.view(heads, -1)
    if dropout_p:  # the weights no longer sum to one
        bias = bias * weights.sum(-1).view(windows, heads, queries, 1).transpose(1, 2)
    mixed = (mixed + bias).flatten(2)
    if key_mask is None:
        return mixed
    sees = key_mask.any(1)[:, None, None]
    return (
        torch.where(sees, mixed, value(key_value.mean(1, keepdim=True)))
        if average_unseen
        else mixed.masked_fill(~sees, 0)
    )


def _keeps_nothing(tokens: Tensor) -> bool:
    """Whether intermediate results are free for the next windows, and small ones faster."""
    return tokens.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
