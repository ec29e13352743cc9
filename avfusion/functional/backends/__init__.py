"""Attention backends, one file each; :func:`avfusion.functional.attention` selects one.

Each takes ``(query, key, value, causal, key_mask, dropout_p)`` and returns ``(window, head, q, value_dim)``. The output
for a fully masked query is finite and unspecified; the caller replaces it.
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
