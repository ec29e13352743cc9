"""Each way in which a visual encoder may not fit is found, and named."""

from typing import Any

import pytest
import torch
from torch import Tensor

from avfusion import ConformanceError, Frames, InvalidTypeError, InvalidValueError, Video
from avfusion.testing import check_visual_encoder
from tests.testing.parts import Eye


class WithoutCount(Eye):
    tokens_per_frame = 0


class TokensAlone(Eye):
    def forward(self, video: Video) -> Any:
        return super().forward(video).tokens


class EveryOtherFrame(Eye):
    def forward(self, video: Video) -> Frames:
        return Frames(*(value[:, ::2] for value in super().forward(video)))


class OtherWidth(Eye):
    output_dim = 10


class Noisy(Eye):
    def colours(self, video: Video) -> Tensor:
        colours = super().colours(video)
        return colours + torch.rand_like(colours)


class PaddingIsReal(Eye):
    def forward(self, video: Video) -> Frames:
        frames = super().forward(video)
        return frames._replace(mask=torch.ones_like(frames.mask))


class MissesTheLast(Eye):
    def forward(self, video: Video) -> Frames:
        frames = super().forward(video)
        return frames._replace(mask=frames.mask & (frames.spans[..., :1] < 1.9))


class OwnClock(Eye):
    def forward(self, video: Video) -> Frames:
        frames = super().forward(video)
        return frames._replace(spans=Frames.from_rate(frames.tokens, 2.0).spans)


class Float32Spans(Eye):
    def forward(self, video: Video) -> Frames:
        frames = super().forward(video)
        return frames._replace(spans=frames.spans.float())


class SeesPadding(Eye):
    def colours(self, video: Video) -> Tensor:
        return super().colours(video._replace(mask=torch.ones_like(video.mask)))


class CountsPadding(Eye):
    def whole(self, colours: Tensor, mask: Tensor) -> Tensor:
        return colours.mean(1, keepdim=True).nan_to_num()


class SeesOtherClips(Eye):
    def whole(self, colours: Tensor, mask: Tensor) -> Tensor:
        return colours.sum((0, 1), keepdim=True) / mask.sum().clamp(min=1)


class FailsWithoutPictures(Eye):
    def colours(self, video: Video) -> Tensor:
        if not bool(video.mask.any()):
            raise ValueError("need at least one array to stack")
        return super().colours(video)


class FailsOnOneWithout(Eye):
    def colours(self, video: Video) -> Tensor:
        if not bool(video.mask.any(1).all()):
            raise IndexError("index is out of bounds for dimension with size 0")
        return super().colours(video)


class Fails(Eye):
    def colours(self, video: Video) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


class TrainedWithoutGraph(Eye):
    def forward(self, video: Video) -> Frames:
        frames = super().forward(video)
        return frames._replace(tokens=frames.tokens.detach())


class SpansOfAnotherDevice(Eye):
    def forward(self, video: Video) -> Frames:
        frames = super().forward(video)
        return frames._replace(spans=frames.spans.to("meta"))


class Float64(Eye):
    def forward(self, video: Video) -> Frames:
        frames = super().forward(video)
        return frames._replace(tokens=frames.tokens.double())


class Float32Only(Eye):
    def colours(self, video: Video) -> Tensor:
        return super().colours(video).float()


class DividesFloats(Eye):
    def colours(self, video: Video) -> Tensor:
        if video.pixels.is_floating_point():
            video = video._replace(pixels=video.pixels / 255)
        return super().colours(video)


BROKEN = [
    (WithoutCount, "protocol", r"tokens_per_frame must be a whole number of at least 1, found 0"),
    (TokensAlone, "output", r"it must give Frames for a Video, found Tensor; end forward with Frames"),
    (
        EveryOtherFrame,
        "output",
        r"output_dim\) = \(4, 5, 2, 5\), found shape \(4, 3, 2, 5\); give tokens for each frame",
    ),
    (OtherWidth, "output", r"output_dim\) = \(4, 5, 2, 10\), found shape \(4, 5, 2, 5\)"),
    (SpansOfAnotherDevice, "device", r"where its parameters are, on cpu, found spans on meta; move the spans"),
    (Noisy, "repeatable", r"the same tokens in evaluation mode, found a difference of \d"),
    (PaddingIsReal, "frames", r"found a real token in frame 0 of clip 1; expand video\.mask over the tokens"),
    (MissesTheLast, "frames", r"found no real token in frame 4 of clip 0"),
    (OwnClock, "spans", r"found \[0\.0, 0\.5\] instead of \[1\.5, 2\.0\] in clip 2; hand video\.spans on"),
    (Float32Spans, "spans", r"in float64, found torch\.float32"),
    (SeesPadding, "padding", r"must change real tokens, found a difference of .*encode real frames alone"),
    (CountsPadding, "padding", r"must change real tokens, found a difference of "),
    (SeesOtherClips, "batch", r"in a batch what it gives alone, found a difference of .* in clip 0"),
    (FailsWithoutPictures, "absent", r"without frames .*found ValueError: need at least one array to stack"),
    (
        FailsOnOneWithout,
        "absent",
        r"without frames .*found IndexError: index is out of bounds .*; pass over",
    ),
    (Fails, "output", r"it must give Frames for a Video, found RuntimeError: mat1 and mat2 shapes"),
    (TrainedWithoutGraph, "gradients", r"must carry gradients, found tokens that require none"),
    (Float64, "dtype", r"dtype of the parameters, torch\.float32, found torch\.float64; cast .* pixels\.to"),
    (Float32Only, "dtype", r"it must run after \.to\(torch\.bfloat16\), found RuntimeError"),
    (DividesFloats, "range", r"found tokens that differ by \d+% of their size; divide uint8 by 255"),
]


def test_an_eye_that_fits_passes() -> None:
    assert check_visual_encoder(Eye())[-1] == "range"


@pytest.mark.parametrize(("broken", "name", "message"), BROKEN, ids=[broken.__name__ for broken, *_ in BROKEN])
def test_what_is_wrong_is_named(broken: type[Eye], name: str, message: str) -> None:
    with pytest.raises(ConformanceError, match=f'^{broken.__name__} breaks "{name}": .*{message}'):
        check_visual_encoder(broken())


def test_films_of_one_s_own() -> None:
    video = Video.from_rate(torch.rand(2, 3, 3, 8, 8), 4.0, lengths=[3, 1])
    check_visual_encoder(Eye(), video)
    with pytest.raises(InvalidValueError, match=r"video: must hold a clip with something real in it, found none"):
        check_visual_encoder(Eye(), video._replace(mask=torch.zeros_like(video.mask)))
    with pytest.raises(InvalidTypeError, match=r"video: must be an avfusion.Video, found Tensor"):
        check_visual_encoder(Eye(), video.pixels)
