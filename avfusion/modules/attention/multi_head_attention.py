"""Multi-head attention with its four linear maps."""

from typing import NamedTuple

from torch import Tensor, nn

from avfusion._shapes import Bool, Float
from avfusion.errors import InvalidValueError
from avfusion.functional.absorbed_attention import absorbed_attention, absorption_pays, is_plain
from avfusion.functional.attention import AttentionImplementation, attention, attention_weights, check_implementation
from avfusion.functional.factored_tokens import FactoredTokens
from avfusion.functional.masks import FrameCausalMask
from avfusion.types.state import joined


class KeyValues(NamedTuple):
    """Projected keys and values: what a KV cache holds.

    Attributes:
        key: ``(window, k, query_dim)``.
        value: ``(window, k, query_dim)``.
    """

    key: Float[Tensor, "window k query_dim"]
    value: Float[Tensor, "window k query_dim"]

    def followed_by(self, new: "KeyValues") -> "KeyValues":
        """Appends ``new``."""
        return KeyValues(joined(self.key, new.key), joined(self.value, new.value))


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
        >>> query, tokens = torch.randn(3, 4, 8), torch.randn(3, 20, 12)
        >>> attend(query, tokens).shape
        torch.Size([3, 4, 8])

        Keys and values that were projected before give the same:

        >>> torch.allclose(attend(query, attend.project_kv(tokens)), attend(query, tokens), atol=1e-6)
        True
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
        key_value: Float[Tensor, "window k key_dim"] | KeyValues,
        *,
        causal: FrameCausalMask | None = None,
        key_mask: Bool[Tensor, "window k"] | None = None,
        average_unseen: bool = False,
        factors: FactoredTokens | None = None,
    ) -> Float[Tensor, "window q query_dim"]:
        """Attends from ``query`` to ``key_value``.

        Args:
            query: ``(window, q, query_dim)``; a single window is expanded to those of ``key_value``.
            key_value: ``(window, k, key_dim)`` tokens, finite where masked; or what :meth:`project_kv` gave for them.
            causal: frame-block-causal structure, for self-attention.
            key_mask: ``(window, k)`` bool: real keys.
            average_unseen: a query whose keys are all masked gets the mean of all values instead of zero.
            factors: of ``query``, and of ``key_value`` if it is tokens; linear maps are then computed from them.
        """
        dropout_p = self.dropout if self.training else 0.0
        if isinstance(key_value, Tensor):
            if self.absorbs(query, key_value, causal):
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
            key_value = self.project_kv(key_value, factors)
        mixed = attention(
            self._heads(_project(self.q_proj, query, factors)).expand(key_value.key.shape[0], -1, -1, -1),
            self._heads(key_value.key),
            self._heads(key_value.value),
            causal=causal,
            key_mask=key_mask,
            dropout_p=dropout_p,
            average_unseen=average_unseen,
            implementation=self.attn_implementation,
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def project_kv(self, tokens: Float[Tensor, "window k key_dim"], factors: FactoredTokens | None = None) -> KeyValues:
        """The tokens' keys and values.

        Args:
            tokens: ``(window, k, key_dim)``.
            factors: of the tokens; the linear maps are then computed from them.
        """
        return KeyValues(_project(self.k_proj, tokens, factors), _project(self.v_proj, tokens, factors))

    def absorbs(self, query: Tensor, tokens: Tensor, causal: FrameCausalMask | None) -> bool:
        """Whether :meth:`forward` avoids keys and values; ``"auto"`` only, as other backends are chosen by name."""
        return (
            self.attn_implementation == "auto"
            and causal is None
            and query is not tokens
            and is_plain(self.k_proj)
            and is_plain(self.v_proj)
            and absorption_pays(query, tokens, self.q_proj.out_features, self.num_heads)
        )

    def weights(
        self,
        query: Float[Tensor, "#window q query_dim"],
        key_value: Float[Tensor, "window k key_dim"],
        *,
        causal: FrameCausalMask | None = None,
        key_mask: Bool[Tensor, "window k"] | None = None,
    ) -> Float[Tensor, "window head q k"]:
        """The attention weights of :meth:`forward`, for inspection."""
        query = self._heads(self.q_proj(query)).expand(key_value.shape[0], -1, -1, -1)
        key = self._heads(self.k_proj(key_value))
        return attention_weights(query, key, causal=causal, key_mask=key_mask)

    def _heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _project(projection: nn.Module, tokens: Tensor, factors: FactoredTokens | None) -> Tensor:
    if factors is not None and isinstance(projection, nn.Linear) and is_plain(projection):
        return factors.through(projection)
    projected: Tensor = projection(tokens)
    return projected
