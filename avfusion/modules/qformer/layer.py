"""One layer of the causal Q-Former."""

from typing import Any

import torch
from torch import Tensor, nn

from avfusion._shapes import Bool, Float
from avfusion.functional.attention import AttentionImplementation
from avfusion.functional.masks import Padding
from avfusion.modules.attention.multi_head_attention import KeyValues, MultiHeadAttention
from avfusion.modules.qformer.state import LayerCache
from avfusion.modules.qformer.window_tokens import WindowTokens


class FeedForward(nn.Module):
    """Two linear maps with a GELU between them, a residual connection, and a LayerNorm after it."""

    def __init__(self, *, dim: int, intermediate_dim: int, dropout: float, layer_norm_eps: float) -> None:
        super().__init__()
        self.up = nn.Linear(dim, intermediate_dim)
        self.down = nn.Linear(intermediate_dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim, eps=layer_norm_eps)

    def forward(self, states: Float[Tensor, "window token dim"]) -> Float[Tensor, "window token dim"]:
        """``LayerNorm(x + W_2 GELU(W_1 x))``."""
        return self.norm(states + self.dropout(self.down(nn.functional.gelu(self.up(states)))))


class ResidualAttention(nn.Module):
    """Attention with dropout, a residual connection, and a LayerNorm after it."""

    def __init__(
        self,
        *,
        query_dim: int,
        key_dim: int | None = None,
        num_heads: int,
        dropout: float,
        layer_norm_eps: float,
        attn_implementation: AttentionImplementation,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(
            query_dim=query_dim,
            key_dim=key_dim,
            num_heads=num_heads,
            dropout=dropout,
            attn_implementation=attn_implementation,
        )
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(query_dim, eps=layer_norm_eps)

    def forward(
        self, query: Float[Tensor, "#window q query_dim"], key_value: Tensor | KeyValues, **options: Any
    ) -> Float[Tensor, "window q query_dim"]:
        """``LayerNorm(x + attention(x, y))``; arguments as for :class:`MultiHeadAttention`."""
        return self.norm(query + self.dropout(self.attention(query, key_value, **options)))


class CausalQFormerLayer(nn.Module):
    """Causal attention over the window's tokens; then the queries attend to each other and to the result, and feed
    forward.

    Args: as for :class:`~avfusion.CausalQFormer`; ``causal`` says whether there is causal attention,
    ``with_instruction`` adds a feed-forward of the instruction tokens' own.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        causal: bool,
        padding: Padding,
        with_instruction: bool,
        dropout: float,
        layer_norm_eps: float,
        attn_implementation: AttentionImplementation,
    ) -> None:
        super().__init__()

        def attention(query_dim: int, key_dim: int | None = None) -> ResidualAttention:
            return ResidualAttention(
                query_dim=query_dim,
                key_dim=key_dim,
                num_heads=num_heads,
                dropout=dropout,
                layer_norm_eps=layer_norm_eps,
                attn_implementation=attn_implementation,
            )

        def feed_forward() -> FeedForward:
            return FeedForward(
                dim=hidden_size, intermediate_dim=intermediate_size, dropout=dropout, layer_norm_eps=layer_norm_eps
            )

        self.padding = padding
        self.causal_attention = attention(input_dim) if causal else None
        self.self_attention = attention(hidden_size)
        self.cross_attention = attention(hidden_size, input_dim)
        self.query_feed_forward = feed_forward()
        self.instruction_feed_forward = feed_forward() if with_instruction else None

    def encode_tokens(
        self, window: WindowTokens, cached: KeyValues | None = None
    ) -> tuple[Float[Tensor, "window token input_dim"], KeyValues | None]:
        """The tokens that this layer's queries attend to, and the causal attention's keys and values.

        Args:
            window: the new tokens of each window.
            cached: keys and values of the tokens before them.
        """
        if self.causal_attention is None:
            return window.tokens, cached
        key_value = self.causal_attention.attention.project_kv(window.tokens, window.factors)
        key_value = key_value if cached is None else cached.followed_by(key_value)
        encoded = self.causal_attention(
            window.tokens,
            key_value,
            causal=window.causal,
            key_mask=None if self.padding == "released" else window.mask,
            factors=window.factors,
        )
        return encoded, key_value

    def forward(
        self,
        states: Float[Tensor, "#window state hidden"] | None,
        state_mask: Bool[Tensor, "window state"] | None,
        window: WindowTokens,
        num_queries: int,
        cache: LayerCache | None = None,
    ) -> tuple[Float[Tensor, "window state hidden"] | None, LayerCache | None]:
        """One layer, for whole windows and for windows that come frame by frame.

        Args:
            states: ``(window, query + instruction, hidden)``: the queries' states first, the instruction's after them;
                or of one window, where they are the same in all, so that their self-attention is computed once.
                ``None`` only adds the new tokens to the cache.
            state_mask: ``(window, query + instruction)`` bool, or ``None``: all real.
            window: the windows' new tokens, none if the cache holds all, and the mask of cached and new tokens.
            num_queries: how many of the states are queries.
            cache: of the tokens before them; without it, none is returned either.

        Returns:
            The new states, and the cache with the new tokens.
        """
        seen: Tensor | KeyValues
        if cache is None:
            seen, _ = self.encode_tokens(window)
        else:
            if window.tokens.shape[1]:
                encoded, causal = self.encode_tokens(window, cache.causal)
                cross = cache.cross.followed_by(self.cross_attention.attention.project_kv(encoded))
                cache = LayerCache(cache.causal if causal is None else causal, cross)
            seen = cache.cross
        if states is None:
            return None, cache
        states = self.self_attention(states, states, key_mask=state_mask)
        queries, instruction = states[:, :num_queries], states[:, num_queries:]
        queries = self.cross_attention(queries, seen, key_mask=window.mask, average_unseen=self.padding == "released")
        queries = self.query_feed_forward(queries)
        if self.instruction_feed_forward is None:
            return queries, cache
        return torch.cat([queries, self.instruction_feed_forward(instruction)], 1), cache
