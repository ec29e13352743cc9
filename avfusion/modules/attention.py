"""Multi-head attention with its four linear maps."""

from einops import rearrange
from torch import Tensor, nn

from avfusion._shapes import Bool, Float
from avfusion.errors import InvalidValueError
from avfusion.functional.attention import AttentionImplementation, attention, attention_weights, check_implementation
from avfusion.functional.masks import FrameCausalMask


class MultiHeadAttention(nn.Module):
    """Attention from one sequence to another (or to itself), with query, key, value and output maps.

    Args:
        query_dim: width of the queries and of the result.
        key_dim: width of what is attended to; ``query_dim`` without it.
        num_heads: attention heads; must divide ``query_dim``.
        dropout: probability of dropping an attention weight, in training.
        attn_implementation: backend of :func:`avfusion.functional.attention`.

    Raises:
        InvalidValueError: heads that do not divide the width, an unknown backend.

    Example:
        >>> import torch
        >>> attend = MultiHeadAttention(query_dim=8, key_dim=12, num_heads=2)
        >>> attend(torch.randn(3, 4, 8), torch.randn(3, 20, 12)).shape
        torch.Size([3, 4, 8])
    """

    def __init__(
        self,
        *,
        query_dim: int,
        key_dim: int | None = None,
        num_heads: int,
        dropout: float = 0.0,
        attn_implementation: AttentionImplementation = "sdpa",
    ) -> None:
        super().__init__()
        if num_heads < 1 or query_dim % num_heads:
            raise InvalidValueError(f"num_heads: must divide the width {query_dim}, found {num_heads}")
        check_implementation(attn_implementation)
        key_dim = query_dim if key_dim is None else key_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.attn_implementation: AttentionImplementation = attn_implementation
        self.q_proj = nn.Linear(query_dim, query_dim)
        self.k_proj = nn.Linear(key_dim, query_dim)
        self.v_proj = nn.Linear(key_dim, query_dim)
        self.out_proj = nn.Linear(query_dim, query_dim)

    def forward(
        self,
        query: Float[Tensor, "window q query_dim"],
        key_value: Float[Tensor, "window k key_dim"],
        *,
        causal: FrameCausalMask | None = None,
        key_mask: Bool[Tensor, "window k"] | None = None,
        average_unseen: bool = False,
    ) -> Float[Tensor, "window q query_dim"]:
        """Attends from ``query`` to ``key_value``.

        Args:
            query: ``(window, q, query_dim)``.
            key_value: ``(window, k, key_dim)``; masked places must be finite.
            causal: frame-block-causal structure, for self-attention.
            key_mask: ``(window, k)`` bool: what is real.
            average_unseen: give a query that may see nothing the average of everything, rather than zero.
        """
        mixed = attention(
            self._heads(self.q_proj(query)),
            self._heads(self.k_proj(key_value)),
            self._heads(self.v_proj(key_value)),
            causal=causal,
            key_mask=key_mask,
            dropout_p=self.dropout if self.training else 0.0,
            average_unseen=average_unseen,
            implementation=self.attn_implementation,
        )
        return self.out_proj(rearrange(mixed, "window head q dim -> window q (head dim)"))

    def weights(
        self,
        query: Float[Tensor, "window q query_dim"],
        key_value: Float[Tensor, "window k key_dim"],
        *,
        causal: FrameCausalMask | None = None,
        key_mask: Bool[Tensor, "window k"] | None = None,
    ) -> Float[Tensor, "window head q k"]:
        """The attention weights that :meth:`forward` mixes with, for looking at."""
        query, key = self._heads(self.q_proj(query)), self._heads(self.k_proj(key_value))
        return attention_weights(query, key, causal=causal, key_mask=key_mask)

    def _heads(self, states: Tensor) -> Tensor:
        return rearrange(states, "window token (head dim) -> window head token dim", head=self.num_heads)
