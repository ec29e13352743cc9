"""The ways to compute attention, one file each; :func:`avfusion.functional.attention` chooses among them.

Each takes ``(query, key, value, causal, key_mask, dropout_p)`` and gives ``(window, head, q, value_dim)``. What it
gives a query that may see no key is finite, and of no consequence.
"""

from collections.abc import Callable

from torch import Tensor

from avfusion.functional.backends import eager, flex, prefix_sdpa, sdpa, varlen
from avfusion.functional.masks import FrameCausalMask

Backend = Callable[[Tensor, Tensor, Tensor, FrameCausalMask | None, Tensor | None, float], Tensor]

BACKENDS: dict[str, Backend] = {
    "eager": eager.run,
    "sdpa": sdpa.run,
    "prefix_sdpa": prefix_sdpa.run,
    "flex_attention": flex.run,
    "varlen_attn": varlen.run,
}
