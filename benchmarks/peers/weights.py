"""avfusion's weights under the names of its peers, so that all compute the same."""

from collections.abc import Mapping

from torch import Tensor

from avfusion import CausalQFormer, SlidingWindowProjector
from benchmarks.ours import encoder_of

LINEAR = ("weight", "bias")


def for_released(projector: SlidingWindowProjector) -> dict[str, Tensor]:
    """For :class:`benchmarks.peers.released.ReleasedConnector`."""
    state = projector.state_dict()
    own = "window_encoder."
    renamed = {
        "queries": state[f"{own}query_tokens"][None],
        "places.weight": state[f"{own}position_embedding"],
        **_renamed(state, {f"{own}input_norm": "input_norm", f"{own}query_norm": "query_norm", "proj": "proj"}),
    }
    for layer in range(len(encoder_of(projector).layers)):
        ours, theirs = f"{own}layers.{layer}", f"layers.{layer}"
        for block, name in (("causal_attention", "causal"), ("self_attention", "own"), ("cross_attention", "cross")):
            renamed |= _renamed(
                state,
                {
                    f"{ours}.{block}.attention.q_proj": f"{theirs}.{name}.query",
                    f"{ours}.{block}.attention.k_proj": f"{theirs}.{name}.key",
                    f"{ours}.{block}.attention.v_proj": f"{theirs}.{name}.value",
                    f"{ours}.{block}.attention.out_proj": f"{theirs}.{name}.dense",
                    f"{ours}.{block}.norm": f"{theirs}.{name}.norm",
                },
            )
        feed_forward = f"{ours}.query_feed_forward"
        renamed |= _renamed(state, {f"{feed_forward}.{part}": f"{theirs}.{part}" for part in ("up", "down", "norm")})
    return renamed


def for_transformers(qformer: CausalQFormer, *, norm: str) -> dict[str, Tensor]:
    """For a Q-Former of transformers whose LayerNorm over the queries has the name ``norm``."""
    state = qformer.state_dict()
    renamed = _renamed(state, {"query_norm": norm})
    for layer in range(len(qformer.layers)):
        ours, theirs = f"layers.{layer}", f"encoder.layer.{layer}"
        for block, name in (("self_attention", "attention"), ("cross_attention", "crossattention")):
            renamed |= _renamed(
                state,
                {
                    f"{ours}.{block}.attention.q_proj": f"{theirs}.{name}.attention.query",
                    f"{ours}.{block}.attention.k_proj": f"{theirs}.{name}.attention.key",
                    f"{ours}.{block}.attention.v_proj": f"{theirs}.{name}.attention.value",
                    f"{ours}.{block}.attention.out_proj": f"{theirs}.{name}.output.dense",
                    f"{ours}.{block}.norm": f"{theirs}.{name}.output.LayerNorm",
                },
            )
        feed_forward = f"{ours}.query_feed_forward"
        renamed |= _renamed(
            state,
            {
                f"{feed_forward}.up": f"{theirs}.intermediate_query.dense",
                f"{feed_forward}.down": f"{theirs}.output_query.dense",
                f"{feed_forward}.norm": f"{theirs}.output_query.LayerNorm",
            },
        )
    return renamed


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    return {f"{new}.{part}": state[f"{old}.{part}"] for old, new in names.items() for part in LINEAR}
