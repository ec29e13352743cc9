"""Multi-head attention with its four linear maps."""

from einops import rearrange
from torch import Tensor, nn

from avfusion._shapes import Bool, Float
from avfusion.errors import InvalidValueError
from avfusion.functional.attention import AttentionImplementation, attention, attention_weights, check_implementation
from avfusion.functional.masks import FrameCausalMask
from avfusion.modules.absorbed_attention import absorbed_attention, absorption_pays, is_plain
from avfusion.modules.normalised_tokens import NormalisedTokens


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
        attn_implementation: AttentionImplementation = "auto",
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
        query: Float[Tensor, "#window q query_dim"],
        key_value: Float[Tensor, "window k key_dim"],
        *,
        causal: FrameCausalMask | None = None,
        key_mask: Bool[Tensor, "window k"] | None = None,
        average_unseen: bool = False,
        factors: NormalisedTokens | None = None,
    ) -> Float[Tensor, "window q query_dim"]:
        """Attends from ``query`` to ``key_value``.

        Args:
            query: ``(window, q, query_dim)``; one window of queries stands for as many as there are of ``key_value``.
            key_value: ``(window, k, key_dim)``; masked places must be finite.
            causal: frame-block-causal structure, for self-attention.
            key_mask: ``(window, k)`` bool: what is real.
            average_unseen: give a query that may see nothing the average of everything, rather than zero.
            factors: of ``query`` and ``key_value``, in self-attention, if their maps shall be computed from them.
        """
        dropout_p = self.dropout if self.training else 0.0
        if self._absorbs(query, key_value, causal):
            mixed = absorbed_attention(
                self.q_proj(query),
                key_value,
                self.k_proj,
                self.v_proj,
                self.num_heads,
                key_mask=key_mask,
                dropout_p=dropout_p,
                average_unseen=average_unseen,
            )
            return self.out_proj(mixed)
        mixed = attention(
            self._map(self.q_proj, query, factors).expand(key_value.shape[0], -1, -1, -1),
            self._map(self.k_proj, key_value, factors),
            self._map(self.v_proj, key_value, factors),
            causal=causal,
            key_mask=key_mask,
            dropout_p=dropout_p,
            average_unseen=average_unseen,
            implementation=self.attn_implementation,
        )
        return self.out_proj(rearrange(mixed, "window head q dim -> window q (head dim)"))

    def _map(self, projection: nn.Linear, tokens: Tensor, factors: NormalisedTokens | None) -> Tensor:
        if factors is not None and is_plain(projection):
            return self._heads(factors.through(projection))
        return self._heads(projection(tokens))

    def _absorbs(self, query: Tensor, key_value: Tensor, causal: FrameCausalMask | None) -> bool:
        """Whether keys and values are better not formed; ``"auto"`` only, so that others do what their name says."""
        return (
            self.attn_implementation == "auto"
            and causal is None
            and query is not key_value
            and is_plain(self.k_proj)
            and is_plain(self.v_proj)
            and absorption_pays(query, key_value, self.q_proj.out_features, self.num_heads)
        )

    def weights(
        self,
        query: Float[Tensor, "#window q query_dim"],
        key_value: Float[Tensor, "window k key_dim"],
        *,
        causal: FrameCausalMask | None = None,
        key_mask: Bool[Tensor, "window k"] | None = None,
    ) -> Float[Tensor, "window head q k"]:
        """The attention weights that :meth:`forward` mixes with, for looking at."""
        query = self._heads(self.q_proj(query)).expand(key_value.shape[0], -1, -1, -1)
        key = self._heads(self.k_proj(key_value))
        return attention_weights(query, key, causal=causal, key_mask=key_mask)

    def _heads(self, states: Tensor) -> Tensor:
        return rearrange(states, "window token (head dim) -> window head token dim", head=self.num_heads)
