"""The layers of a causal Q-Former, one after the other."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from avfusion._shapes import Float
from avfusion.modules.qformer.query_states import QueryStates
from avfusion.modules.qformer.state import LayerCache
from avfusion.modules.qformer.window_tokens import WindowTokens


def run_layers(
    layers: Iterable[nn.Module],
    queries: QueryStates | None,
    window: WindowTokens,
    caches: tuple[LayerCache, ...] | None,
    *,
    checkpointed: bool,
) -> tuple[Any, tuple[Any, ...]]:
    """The states after all layers, and each layer's cache.

    Args:
        layers: :class:`CausalQFormerLayer` each.
        queries: the states before them; ``None`` only adds the tokens to the caches.
        window: the tokens that are new.
        caches: of the tokens before them, one for each layer; without them, none are returned either.
        checkpointed: store only each layer's inputs, and recompute it in the backward pass.
    """
    states = None if queries is None else queries.states
    mask, num_queries = (None, 0) if queries is None else (queries.mask, queries.num_queries)
    after = []
    for place, layer in enumerate(layers):
        arguments = (states, mask, window, num_queries, None if caches is None else caches[place])
        if checkpointed:
            states, cache = checkpoint(layer, *arguments, use_reentrant=False)
        else:
            states, cache = layer(*arguments)
        after.append(cache)
    return states, tuple(after)


def cross_attention_weights(
    layers: Iterable[Any], queries: QueryStates, window: WindowTokens
) -> Float[Tensor, "layer window head query token"]:
    """The weights with which each layer's queries attend to the tokens; arguments as for :func:`run_layers`."""
    states, weights = queries.states, []
    for layer in layers:
        attending = layer.self_attention(states, states, key_mask=queries.mask)[:, : queries.num_queries]
        encoded, _ = layer.encode_tokens(window)
        weights.append(layer.cross_attention.attention.weights(attending, encoded, key_mask=window.mask))
        states, _ = layer(states, queries.mask, window, queries.num_queries)
    return torch.stack(weights)
