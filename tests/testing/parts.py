"""Small encoders that fit, as people write them: the broken ones of the tests are these with one thing done wrongly."""

import torch
from torch import Tensor, nn

from avfusion import Frames, TokenStream, Video, Waveform

HOP = 160


class Ear(nn.Module):
    """Hears pieces of 10 ms, and a little of what is around each."""

    output_dim, sample_rate = 6, 16000

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(HOP, 6)
        self.around = nn.Conv1d(6, 6, 3, padding=1, bias=False)

    def when(self, waveform: Waveform) -> TokenStream:
        lengths = (waveform.lengths + HOP - 1) // HOP
        nothing = torch.empty(len(lengths), int(lengths.max()), 0)
        return TokenStream.from_rate(nothing, waveform.sample_rate / HOP, lengths=lengths, start=waveform.start)

    timeline = when

    def pieces(self, waveform: Waveform, count: int) -> Tensor:
        samples = torch.where(waveform.mask, waveform.samples, 0).to(self.proj.weight.dtype)
        return nn.functional.pad(samples, (0, HOP * count))[:, : HOP * count].unflatten(1, (count, HOP))

    def mix(self, tokens: Tensor, mask: Tensor) -> Tensor:
        clean = torch.where(mask[..., None], tokens, 0)
        if not mask.shape[1]:  # which a convolution does not take
            return clean
        return clean + self.around(clean.transpose(1, 2)).transpose(1, 2)

    def forward(self, waveform: Waveform) -> TokenStream:
        when = self.when(waveform)
        tokens = self.proj(self.pieces(waveform, when.mask.shape[1]))
        return when._replace(tokens=self.mix(tokens, when.mask))


class Eye(nn.Module):
    """Two tokens a frame, of its mean colour and of what the clip looks like altogether."""

    output_dim, tokens_per_frame = 5, 2

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(3, 10)

    def colours(self, video: Video) -> Tensor:
        pixels = video.pixels.to(self.proj.weight.dtype)
        if not video.pixels.is_floating_point():
            pixels = pixels / 255
        return torch.where(video.mask[..., None], pixels.mean((3, 4)), 0)

    def whole(self, colours: Tensor, mask: Tensor) -> Tensor:
        return colours.sum(1, keepdim=True) / mask.sum(1).clamp(min=1)[:, None, None]

    def forward(self, video: Video) -> Frames:
        colours = self.colours(video)
        tokens = self.proj(colours + self.whole(colours, video.mask)).unflatten(-1, (2, 5))
        return Frames(tokens, video.mask[..., None].expand(-1, -1, 2), video.spans)


class Pool(nn.Module):
    """Two states: the mean of a window's tokens, and their mean weighted by attention."""

    num_queries, output_dim, input_dim = 2, 8, 8

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(8, 1)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        values, real = tokens.flatten(1, 2), mask.flatten(1)
        mean = values.sum(1) / real.sum(1).clamp(min=1)[:, None]
        scores = self.score(values)[..., 0].masked_fill(~(real | ~real.any(1, keepdim=True)), -torch.inf)
        weighted = (scores.softmax(1)[..., None] * values).sum(1)
        return torch.stack([mean, weighted], 1)
