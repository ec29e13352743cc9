"""The Q-Formers of transformers: no causal attention over the window's tokens, so less work than avfusion's default."""

from typing import Any

import torch
from torch import Tensor, nn

from avfusion import CausalQFormer
from benchmarks.peers import weights
from benchmarks.sizes import Sizes

KINDS = ("Blip2QFormerModel", "InstructBlipQFormerModel")
IMPLEMENTATIONS = ("eager", "sdpa")


class TransformersQFormer(nn.Module):
    """A Q-Former of transformers with the weights of one of avfusion's, called as its own models call it.

    Args:
        ours: the Q-Former whose weights it gets.
        kind: a name of ``KINDS``.
        attn_implementation: a name of ``IMPLEMENTATIONS``.
        sizes: of both.
    """

    def __init__(self, ours: CausalQFormer, *, kind: str, attn_implementation: str, sizes: Sizes) -> None:
        super().__init__()
        import transformers

        config = getattr(transformers, kind.replace("Model", "Config"))
        instructed = kind.startswith("Instruct")
        self.qformer = getattr(transformers, kind)._from_config(
            config(**arguments(sizes)), attn_implementation=attn_implementation
        )
        self.query_tokens = nn.Parameter(ours.query_tokens.detach()[None].clone())
        self.arguments: dict[str, Any] = {"input_ids": None} if instructed else {}
        norm = "embeddings.layernorm" if instructed else "layernorm"
        load(self.qformer, weights.for_transformers(ours, norm=norm))

    def forward(self, tokens: Tensor) -> Tensor:
        """``tokens`` is ``(window, token, width)``, embedded."""
        queries = self.query_tokens.expand(len(tokens), -1, -1)
        return self.qformer(query_embeds=queries, encoder_hidden_states=tokens, **self.arguments).last_hidden_state


def arguments(sizes: Sizes) -> dict[str, Any]:
    """Of the configuration of a Q-Former."""
    return {
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": 4 * sizes.hidden,
        "encoder_hidden_size": sizes.width,
        "cross_attention_frequency": 1,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def load(qformer: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads every weight that is used; those of text, which there is none of, stay as they are."""
    _, unexpected = qformer.load_state_dict(state, strict=False)
    if unexpected:
        raise RuntimeError(f"transformers' Q-Former has no weights {unexpected}")


@torch.no_grad()
def embedded(ours: CausalQFormer, tokens: Tensor) -> Tensor:
    """Tokens as avfusion's layers see them, normalised and placed: the peer has no such step of its own."""
    flat = tokens.flatten(1, 2)
    return ours.input_norm(flat) + ours.position_embedding[: flat.shape[1]]
