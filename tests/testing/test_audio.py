"""Each way in which an audio encoder may not fit is found, and named."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avfusion import ConformanceError, InvalidTypeError, InvalidValueError, TokenStream, Waveform
from avfusion.testing import check_token_stream_encoder
from tests.testing.parts import HOP, Ear


class WithoutWidth(Ear):
    output_dim = None


class Tuple(Ear):
    def forward(self, waveform: Waveform) -> Any:
        return tuple(super().forward(waveform))


class OtherWidth(Ear):
    output_dim = 7


class Deaf(Ear):
    def forward(self, waveform: Waveform) -> TokenStream:
        stream = super().forward(waveform)
        return stream._replace(mask=stream.mask & (stream.mask.sum(1) > 100)[:, None])


class TimesOfAnotherDevice(Ear):
    def forward(self, waveform: Waveform) -> TokenStream:
        stream = super().forward(waveform)
        return stream._replace(timestamps=stream.timestamps.to("meta"))


class Noisy(Ear):
    def mix(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return tokens + torch.randn_like(tokens)


class Float32Times(Ear):
    def when(self, waveform: Waveform) -> TokenStream:
        when = super().when(waveform)
        return when._replace(timestamps=when.timestamps.float())


class Backwards(Ear):
    def when(self, waveform: Waveform) -> TokenStream:
        when = super().when(waveform)
        return when._replace(timestamps=when.timestamps.flip(1))


class Timeless(Ear):
    def when(self, waveform: Waveform) -> TokenStream:
        when = super().when(waveform)
        return when._replace(timestamps=when.timestamps / 0)


class WithoutStart(Ear):
    def when(self, waveform: Waveform) -> TokenStream:
        return super().when(waveform._replace(start=torch.zeros_like(waveform.start)))


class HearsTheStart(Ear):
    def forward(self, waveform: Waveform) -> TokenStream:
        stream = super().forward(waveform)
        return stream._replace(tokens=stream.tokens + waveform.start[:, None, None].to(stream.tokens.dtype))


class Milliseconds(Ear):
    def when(self, waveform: Waveform) -> TokenStream:
        when = super().when(waveform)
        start = waveform.start[:, None]
        return when._replace(timestamps=(when.timestamps - start) * 1000 + start)


class HalfRate(Ear):
    def when(self, waveform: Waveform) -> TokenStream:
        when = super().when(waveform)
        start = waveform.start[:, None]
        return when._replace(timestamps=(when.timestamps - start) / 2 + start)


class CutsOff(Ear):
    def forward(self, waveform: Waveform) -> TokenStream:
        return TokenStream(*(value[:, :150] for value in super().forward(waveform)))


class HearsPadding(Ear):
    def pieces(self, waveform: Waveform, count: int) -> Tensor:
        return super().pieces(waveform._replace(mask=torch.ones_like(waveform.mask)), count)


class PaddingIsReal(Ear):
    def when(self, waveform: Waveform) -> TokenStream:
        return super().when(waveform._replace(mask=torch.ones_like(waveform.mask)))


class NormalisesOverPadding(Ear):
    def mix(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return tokens - tokens.mean(1, keepdim=True)


class NormalisesOverTheBatch(Ear):
    def mix(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return tokens - torch.where(mask[..., None], tokens, 0).sum((0, 1)) / mask.sum()


class NeverEmpty(Ear):
    def when(self, waveform: Waveform) -> TokenStream:
        first = torch.arange(waveform.mask.shape[1]) == 0
        return super().when(waveform._replace(mask=waveform.mask | first))


class FailsWithoutSound(Ear):
    def forward(self, waveform: Waveform) -> TokenStream:
        if not bool(waveform.mask.any()):
            raise RuntimeError("Kernel size can't be greater than actual input size")
        return super().forward(waveform)


class TrainedWithoutGraph(Ear):
    def forward(self, waveform: Waveform) -> TokenStream:
        with torch.no_grad():
            return super().forward(waveform)


class FrozenWithGraph(Ear):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)

    def pieces(self, waveform: Waveform, count: int) -> Tensor:
        return super().pieces(waveform, count).requires_grad_()


class NaNInTheGradient(Ear):
    def pieces(self, waveform: Waveform, count: int) -> Tensor:
        samples = nn.functional.pad(waveform.samples.to(self.proj.weight.dtype), (0, HOP * count))
        return samples[:, : HOP * count].unflatten(1, (count, HOP))

    def mix(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask[..., None], tokens, 0)

    def forward(self, waveform: Waveform) -> TokenStream:
        whole = waveform.lengths // HOP  # so that padding is in no token, but in the map's input
        mask = torch.arange(waveform.mask.shape[1]) < whole[:, None] * HOP
        return super().forward(waveform._replace(mask=mask))


class Float64(Ear):
    def forward(self, waveform: Waveform) -> TokenStream:
        stream = super().forward(waveform)
        return stream._replace(tokens=stream.tokens.double())


class AsTheSound(Ear):
    def forward(self, waveform: Waveform) -> TokenStream:
        stream = super().forward(waveform)
        return stream._replace(tokens=stream.tokens.to(waveform.samples.dtype))


class Float32Only(Ear):
    def pieces(self, waveform: Waveform, count: int) -> Tensor:
        return super().pieces(waveform, count).float()


class OtherTimeline(Ear):
    def timeline(self, waveform: Waveform) -> TokenStream:
        return self.when(waveform._replace(start=waveform.start + 1))


BROKEN = [
    (WithoutWidth, "protocol", r"output_dim must be a whole number of at least 1, found None; set self\.output_dim"),
    (Tuple, "output", r"must give a TokenStream for a Waveform, found tuple; end forward with TokenStream\.from_rate"),
    (OtherWidth, "output", r"must be \(batch, time, output_dim\) = \(4, any, 7\), found shape \(4, 201, 6\)"),
    (Deaf, "output", r"every clip with audio must have a token, found one without"),
    (
        TimesOfAnotherDevice,
        "device",
        r"where its parameters are, on cpu, found timestamps on meta; move the timestamps",
    ),
    (Noisy, "repeatable", r"the same tokens in evaluation mode, found a difference of \d"),
    (Float32Times, "order", r"timestamps must be torch\.float64, found torch\.float32"),
    (Backwards, "order", r"must not decrease, found 1\.995 s after 2\.005 s in clip 0"),
    (Timeless, "order", r"must be finite, found NaN or infinity in clip 0"),
    (WithoutStart, "start", r"the same tokens 3\.25 s later, found tokens 0 s later.*start=waveform\.start"),
    (HearsTheStart, "start", r"found tokens that differ by 3\.3"),
    (
        Milliseconds,
        "clock",
        r"in seconds on its clock, found tokens from 5 s to 2005 s in clip 0.*from 0 s to 2\.003 s",
    ),
    (HalfRate, "clock", r"from one end of the audio to the other, found tokens from 0\.0025 s to 1\.0025 s.*rate"),
    (CutsOff, "clock", r"from one end .*found tokens from 0\.005 s to 1\.495 s in clip 0.*run long audio in chunks"),
    (HearsPadding, "padding", r"must change real tokens, found a difference of .*clear padding first"),
    (
        PaddingIsReal,
        "padding",
        r"found 251 real tokens in clip 0 instead of 201; .*count tokens from waveform\.lengths",
    ),
    (NormalisesOverPadding, "batch", r"in a batch what it gives alone, found a difference of .* in clip 1"),
    (NormalisesOverTheBatch, "batch", r"in a batch what it gives alone, found a difference of .* in clip 0"),
    (
        NeverEmpty,
        "absent",
        r"a clip without audio must give no real token.*found 1 real tokens of such a clip beside others",
    ),
    (FailsWithoutSound, "absent", r"found RuntimeError: Kernel size can't be greater than actual input size"),
    (
        TrainedWithoutGraph,
        "gradients",
        r"must carry gradients, found tokens that require none; take away torch\.no_grad",
    ),
    (FrozenWithGraph, "gradients", r"no graph must be kept, found tokens that require gradients; .*torch\.no_grad"),
    (NaNInTheGradient, "gradients", r"must be finite, found NaN or infinity in that of proj\.weight; clear padding"),
    (Float64, "dtype", r"dtype of the parameters, torch\.float32, found torch\.float64; cast what goes into the tower"),
    (AsTheSound, "dtype", r"torch\.float32, not that of the samples, found torch\.float64"),
    (Float32Only, "dtype", r"it must run after \.to\(torch\.bfloat16\), found RuntimeError"),
    (OtherTimeline, "timeline", r"must give the stream's mask and times.*found other times in clip 0"),
]


def test_an_ear_that_fits_passes() -> None:
    assert check_token_stream_encoder(Ear())[-1] == "timeline"


@pytest.mark.parametrize(("broken", "name", "message"), BROKEN, ids=[broken.__name__ for broken, *_ in BROKEN])
def test_what_is_wrong_is_named(broken: type[Ear], name: str, message: str) -> None:
    with pytest.raises(ConformanceError, match=f'^{broken.__name__} breaks "{name}": .*{message}'):
        check_token_stream_encoder(broken())


def test_a_function_may_be_an_encoder() -> None:
    ear = Ear().requires_grad_(False)

    class Function:
        output_dim = 6

        def __call__(self, waveform: Waveform) -> TokenStream:
            return ear(waveform)

    assert check_token_stream_encoder(Function())[-2:] == ("gradients", "clock")  # the rest is about parameters
    with pytest.raises(ConformanceError, match=r'breaks "protocol": it must be callable, found no __call__'):
        check_token_stream_encoder(object())


def test_the_tolerance_can_be_given() -> None:
    class Rough(Ear):
        def mix(self, tokens: Tensor, mask: Tensor) -> Tensor:
            return super().mix(tokens, mask) * (1 + 0.001 * len(mask))

    check_token_stream_encoder(Rough(), tolerance=0.1)
    with pytest.raises(ConformanceError, match=r'"batch"'):
        check_token_stream_encoder(Rough())


def test_modes_and_gradients_are_left_as_they_were() -> None:
    ear = Ear().train()
    ear.around.eval()
    check_token_stream_encoder(ear)
    assert ear.training
    assert not ear.around.training
    assert all(value.grad is None for value in ear.parameters())


def test_long_sound_shows_what_is_cut_off() -> None:
    class ThirtySeconds(Ear):
        def forward(self, waveform: Waveform) -> TokenStream:
            return TokenStream(*(value[:, :3000] for value in super().forward(waveform)))

    check_token_stream_encoder(ThirtySeconds())
    with pytest.raises(ConformanceError, match=r'"clock".*audio goes from 0 s to 40 s; .*cut off'):
        check_token_stream_encoder(ThirtySeconds(), Waveform.from_samples(torch.randn(1, 640000), 16000))


def test_refuses_what_shows_nothing() -> None:
    with pytest.raises(InvalidValueError, match=r"waveform: must hold a clip with something real in it, found none"):
        check_token_stream_encoder(Ear(), Waveform.from_samples([torch.zeros(0)], 16000))
    with pytest.raises(InvalidTypeError, match=r"waveform: must be an avfusion.Waveform, found Tensor"):
        check_token_stream_encoder(Ear(), torch.zeros(1, 16000))
