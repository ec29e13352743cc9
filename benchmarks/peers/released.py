"""The released FAVOR connector's computation, written out plainly: what the library is measured against.

An independent port: eager attention with additive masks made anew in every call, separate query, key and value maps,
every window computed whether it is real or not. Sizes and order of operations are the release's; names are this file's
own.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, width: int, source_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.head_dim).permute(0, 2, 1, 3)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        key, value = self.split(self.key(source)), self.split(self.value(source))
        query = self.split(self.query(x))
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(self.head_dim) + mask
        weights = self.dropout(F.softmax(scores, dim=-1))
        mixed = torch.matmul(weights, value).permute(0, 2, 1, 3).contiguous()
        out = self.dropout(self.dense(mixed.view(*mixed.shape[:2], -1)))
        return self.norm(out + x)


class Layer(nn.Module):
    def __init__(self, width: int, hidden: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.causal = Attention(width, width, heads, dropout)
        self.own = Attention(hidden, hidden, heads, dropout)
        self.cross = Attention(hidden, width, heads, dropout)
        self.up, self.down = nn.Linear(hidden, inner), nn.Linear(inner, hidden)
        self.norm = nn.LayerNorm(hidden, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, tokens: Tensor, masks: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        frame_mask, token_mask, query_mask = masks
        states = self.own(states, states, query_mask)
        encoded = self.causal(tokens, tokens, frame_mask)
        states = self.cross(states, encoded, token_mask)
        return self.norm(self.dropout(self.down(F.gelu(self.up(states)))) + states)


class ReleasedConnector(nn.Module):
    """From synchronised frames ``(clip, frame, 32, 1536)`` to ``(clip, windows * queries, llm_dim)``."""

    def __init__(
        self,
        *,
        width: int = 1536,
        hidden: int = 768,
        layers: int = 2,
        heads: int = 12,
        queries: int = 32,
        window_frames: int = 10,
        slots: int = 32,
        llm_dim: int = 4096,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.window_frames, self.slots = window_frames, slots
        self.input_norm = nn.LayerNorm(width)
        self.places = nn.Embedding(window_frames * slots, width)
        self.queries = nn.Parameter(torch.randn(1, queries, hidden) * 0.02)
        self.query_norm = nn.LayerNorm(hidden, eps=1e-12)
        self.layers = nn.ModuleList(Layer(width, hidden, heads, 4 * hidden, dropout) for _ in range(layers))
        self.proj = nn.Linear(hidden, llm_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> Tensor:
        """``frame_mask`` is ``(clip, frame)`` bool; windows of padding only are computed too, as released."""
        clips, count, _, width = frames.shape
        missing = -count % self.window_frames
        frames = F.pad(frames, (0, 0, 0, 0, 0, missing))
        frame_mask = F.pad(frame_mask, (0, missing))
        windows = (count + missing) // self.window_frames
        tokens = frames.reshape(clips * windows, self.window_frames * self.slots, width)
        real = frame_mask.reshape(clips * windows, self.window_frames).repeat_interleave(self.slots, 1)

        tokens = self.input_norm(tokens)
        tokens = self.dropout(tokens + self.places(torch.arange(tokens.shape[1], device=tokens.device)))
        states = self.dropout(self.query_norm(self.queries.expand(len(tokens), -1, -1)))
        masks = self.masks(tokens, real, states)
        for layer in self.layers:
            states = layer(states, tokens, masks)
        return self.proj(states).view(clips, windows * states.shape[1], -1)

    def masks(self, tokens: Tensor, real: Tensor, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Additive masks: earlier frames, real tokens, every query."""
        frame = torch.arange(tokens.shape[1], device=tokens.device) // self.slots
        allowed = (frame[:, None] >= frame).to(tokens.dtype)
        causal = ((1.0 - allowed) * -10000.0)[None, None]
        padding = (1.0 - real.to(tokens.dtype))[:, None, None] * -10000.0
        return causal, padding, torch.zeros_like(states[:, None, None, :, 0])
