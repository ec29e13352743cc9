"""Conformance check for visual encoders."""

from collections.abc import Sequence
from typing import Any

import torch

from avfusion.errors import InvalidTypeError
from avfusion.testing._exam import Exam
from avfusion.testing._media import Kind, check_clips, check_device, check_media_encoder, check_repeatable, first_run
from avfusion.types import Frames, Video


def check_visual_encoder(
    encoder: Any,
    video: Video | None = None,
    *,
    tolerance: float | None = None,
    dtypes: Sequence[torch.dtype] = (torch.bfloat16,),
) -> tuple[str, ...]:
    """Checks that a visual encoder meets the protocol :class:`~avfusion.VisualEncoder`.

    The encoder runs about ten times, in evaluation mode, on its own device. The properties, in the order of the checks:

    ========== ====================================================================================================
    protocol   it is callable, and ``output_dim`` and ``tokens_per_frame`` are numbers
    output     it returns :class:`~avfusion.Frames` with the same clips and frames, ``tokens_per_frame`` tokens each, of
               width ``output_dim``
    device     all outputs are on the device of its parameters
    repeatable the same frames give the same tokens
    frames     real frames have a real token, masked frames have none
    spans      those of the video, float64
    padding    the values of padding, NaN included, and its number of frames have no effect
    absent     a clip without frames has no real token, and a batch of such clips runs
    batch      a clip gives the same result in a batch and alone
    gradients  they exist and are finite if any parameter is trained, and do not exist otherwise
    dtype      tokens have the dtype of the parameters, for frames of any dtype
    range      uint8 frames, and the same in 0 … 1, give the same tokens
    ========== ====================================================================================================

    Frames of a clip may depend on each other: video encoders fit as well as image encoders.

    Args:
        encoder: usually an ``nn.Module``; properties of parameters are checked only if it has parameters.
        video: clips to check with, real frames first; by default one per relevant case.
        tolerance: largest allowed difference, relative to the largest token; depends on the dtype by default.
        dtypes: dtypes in which a copy of the encoder is run; ``()`` saves the memory of the copies.

    Returns:
        The names of the properties that hold.

    Raises:
        ConformanceError: the first property that does not hold, what was found, and the usual fix.
        InvalidValueError: a ``video`` without frames.

    Example:
        >>> import torch
        >>> from avfusion import Frames
        >>> from avfusion.testing import check_visual_encoder
        >>> class Brightness(torch.nn.Module):
        ...     output_dim, tokens_per_frame = 1, 1
        ...
        ...     def forward(self, video):
        ...         tokens = video.pixels.float().mean((2, 3, 4))[..., None, None]
        ...         return Frames(tokens, video.mask[..., None], video.spans)
        >>> check_visual_encoder(Brightness())
        Traceback (most recent call last):
        avfusion.errors.ConformanceError: Brightness breaks "range": frames must give the same tokens as uint8 and as
        0 … 1, found tokens that differ by ...% of their size; divide uint8 by 255, and floating point by nothing
    """
    exam = Exam(encoder, tolerance)
    exam.check_numbers("output_dim", "tokens_per_frame")
    film = _clips() if video is None else video
    if not isinstance(film, Video):
        raise InvalidTypeError(f"video: must be an avfusion.Video, found {type(film).__name__}")
    check_clips(film.mask, "video")
    with exam.evaluating(), torch.no_grad():
        frames = _check_output(exam, film)
        device = check_device(exam, frames)
        check_repeatable(exam, film, frames)
        _check_frames(exam, film, frames)
        floats = film if film.pixels.is_floating_point() else film._replace(pixels=film.pixels / 255)
        value = frames if floats is film else exam.run("range", _RANGE, _RANGE_HINT, exam.part, floats)
        shared = check_media_encoder(exam, _KIND, floats, value, dtypes)
        _check_range(exam, floats, value)
    return ("protocol", "output", *device, "repeatable", "frames", "spans", *shared, "range")


_RANGE = "frames must give the same tokens as uint8 and as 0 … 1"
_RANGE_HINT = "divide uint8 by 255, and floating point by nothing"


def _clips() -> Video:
    """Smooth frames, on which resizing has little effect: clips of five, none, two, and five frames."""
    lengths, size = [5, 0, 2, 5], (40, 56)
    rows, columns = (torch.linspace(0, 3, count) for count in size)
    waves = torch.stack([(rows[:, None] + columns + phase).sin() for phase in range(3)])
    shades = torch.linspace(0.2, 1, len(lengths) * max(lengths)).reshape(len(lengths), max(lengths), 1, 1, 1)
    pixels = ((0.5 + 0.4 * waves * shades) * 255).round().to(torch.uint8)
    return Video.from_rate(pixels, 2.0, lengths=lengths, start=torch.tensor([0.0, 0.0, 1.5, -1.0]))


def _check_output(exam: Exam, film: Video) -> Frames:
    rule, hint = "it must give Frames for a Video", "end forward with Frames(tokens, mask, video.spans)"
    frames = first_run(exam, _KIND, film, rule, hint)
    if not isinstance(frames, Frames):
        exam.fail("output", rule, type(frames).__name__, hint)
    wanted = (*film.mask.shape, exam.part.tokens_per_frame, exam.part.output_dim)
    if frames.tokens.shape != wanted:
        rule = f"tokens must be (batch, frame, tokens_per_frame, output_dim) = {wanted}"
        exam.fail("output", rule, f"shape {tuple(frames.tokens.shape)}", "give tokens for each frame of the video")
    return frames


def _check_frames(exam: Exam, film: Video, frames: Frames) -> None:
    real, given = film.mask.cpu(), frames.frame_mask.cpu()
    if not torch.equal(real, given):
        clip, frame = (real != given).nonzero()[0].tolist()
        found = f"{'no' if real[clip, frame] else 'a'} real token in frame {frame} of clip {clip}"
        rule, hint = "a frame must have real tokens if, and only if, it is real", "expand video.mask over the tokens"
        exam.fail("frames", rule, found, hint)
    rule = "spans of real frames must be the video's, in float64"
    for clip, mask in enumerate(real):
        mine, wanted = frames.spans.cpu()[clip, mask], film.spans.cpu()[clip, mask]
        if mine.dtype != wanted.dtype:
            exam.fail("spans", rule, str(mine.dtype), "hand video.spans on as they are")
        if not torch.allclose(mine, wanted, rtol=0, atol=1e-6):
            frame = int((mine != wanted).any(-1).nonzero()[0, 0])
            found = f"{mine[frame].tolist()} instead of {wanted[frame].tolist()} in clip {clip}"
            exam.fail("spans", rule, found, "hand video.spans on as they are")


def _check_range(exam: Exam, film: Video, value: Frames) -> None:
    whole = film._replace(pixels=(film.pixels.nan_to_num() * 255).round().to(torch.uint8))
    found = exam.run("range", _RANGE, _RANGE_HINT, exam.part, whole)
    mine, wanted = (each.tokens[value.mask].double() for each in (found, value))
    share = ((mine - wanted).norm() / wanted.norm()).item()
    if not share < 0.25:  # resizing rounds uint8, and a small network amplifies it
        exam.fail("range", _RANGE, f"tokens that differ by {share:.0%} of their size", _RANGE_HINT)


def _spoil(film: Video) -> Video:
    pixels, mask, spans = film
    pixels = torch.cat([pixels, pixels[:, -1:]], 1)
    mask = torch.nn.functional.pad(mask, (0, 1))
    places = mask[:, :, None, None, None]
    junk = torch.full_like(pixels, torch.nan)
    junk[..., ::2] = 7
    return Video(torch.where(places, pixels, junk), mask, torch.cat([spans, spans[:, -1:]], 1))


def _alone(film: Video, clip: int) -> Video:
    kept = int(film.mask[clip].sum())
    return Video(*(value[clip : clip + 1, :kept] for value in film))


_KIND: Kind[Video] = Kind(
    word="frames",
    values="pixels",
    spoil=_spoil,
    alone=_alone,
    hint="encode real frames alone, video.pixels[video.mask], and put zeros in the other places",
)
