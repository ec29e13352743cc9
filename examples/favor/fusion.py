"""Connectors that do not synchronise: what FAVOR is compared with."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from avfusion import AudioVisualConnector, Frames, LLMEmbeddings, TokenStream

PICTURES_ONLY = ("averaged", "concatenated")
FUSIONS = ("synchronised", "separate", *PICTURES_ONLY)


class SeparateConnector(nn.Module):
    """A Q-Former of its own for each stream, and their embeddings one after the other, as Video-LLaMA has them.

    Args:
        branches: a connector for each stream, which takes that stream only.
    """

    def __init__(self, branches: Mapping[str, AudioVisualConnector]) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)

    def forward(self, **streams: Frames | TokenStream) -> LLMEmbeddings:
        """Embeddings of all streams; a clip without a stream has none of that one."""
        like = next(iter(streams.values())).tokens
        parts = []
        branch: Any
        for name, branch in self.branches.items():
            stream = streams.get(name)
            if stream is None:  # the branch keeps its place in the graph
                width, options = branch.input_dims.get(name, branch.synchroniser.dims[name]), {"device": like.device}
                stream = (
                    Frames.empty(len(like), 1, width, dtype=like.dtype, **options)
                    if name == "visual"
                    else TokenStream.empty(len(like), width, dtype=like.dtype, **options)
                )
            parts.append(branch(**{name: stream}))
        embeddings, mask, spans = (torch.cat(values, 1) for values in zip(*(part[:3] for part in parts), strict=True))
        states = [part.query_states for part in parts]
        by_clip = [state.reshape(len(like), len(state) // len(like), *state.shape[1:]) for state in states]
        return LLMEmbeddings(embeddings, mask, spans, torch.cat(by_clip, 1).flatten(0, 1))


class FramesConnector(nn.Module):
    """The visual tokens of the frames, projected as they are: InstructBLIP's own way, which knows no time and no sound.

    Args:
        visual_dim: width of a visual token.
        llm_dim: width of the language model's embeddings.
        average: one set of tokens for the whole clip, the mean over its frames, instead of one for each frame.
    """

    def __init__(self, *, visual_dim: int, llm_dim: int, average: bool) -> None:
        super().__init__()
        self.average = average
        self.proj = nn.Linear(visual_dim, llm_dim)

    def forward(self, visual: Frames | None = None, **others: TokenStream) -> LLMEmbeddings:
        """Embeddings of the frames; other streams are passed over."""
        if visual is None:  # one masked frame keeps the projection in the graph
            like = next(iter(others.values())).tokens
            blank = like.new_zeros(len(like), 1, 1, self.proj.in_features)
            visual = Frames(blank, blank[..., 0].bool(), like.new_zeros(len(like), 1, 2))
        tokens, real, spans = visual
        if self.average:
            count = real[..., 0].sum(1).clamp(min=1).to(tokens)
            tokens = tokens.masked_fill(~real[..., None], 0).sum(1, keepdim=True) / count[:, None, None, None]
            real = real.any(1, keepdim=True)
            spans = _whole(spans, visual.frame_mask)
        states = tokens.masked_fill(~real[..., None], 0).flatten(0, 1)
        mask = real.flatten(1, 2)
        embeddings = self.proj(states).reshape(*mask.shape, self.proj.out_features).masked_fill(~mask[..., None], 0)
        return LLMEmbeddings(embeddings, mask, spans.repeat_interleave(real.shape[2], 1), states)


def _whole(spans: Tensor, real: Tensor) -> Tensor:
    """From the first real frame's start to the last one's end: ``(clip, 1, 2)``."""
    start = spans[..., 0].masked_fill(~real, torch.inf).amin(1)
    end = spans[..., 1].masked_fill(~real, -torch.inf).amax(1)
    some = real.any(1)
    return torch.stack([start.where(some, 0), end.where(some, 0)], -1)[:, None]
