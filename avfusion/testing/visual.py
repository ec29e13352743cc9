"""Whether a visual encoder fits."""

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
    """Checks that an encoder of pictures is a :class:`~avfusion.VisualEncoder` in all that it promises.

    It is run in evaluation mode, on the device it is on, some ten times over. The properties, in the order in which
    they are checked:

    ========== ====================================================================================================
    protocol   it is callable, and ``output_dim`` and ``tokens_per_frame`` are numbers
    output     it gives :class:`~avfusion.Frames`, as many of as many clips as it got, ``tokens_per_frame`` tokens each,
               of width ``output_dim``
    device     all that it gives is where its parameters are
    repeatable the same pictures give the same tokens
    frames     a real frame has a real token, and another has none
    spans      those of the video, float64
    padding    what padding holds, NaN included, and how many frames it has changes nothing
    absent     a clip without pictures has no real token, and a batch of such clips runs
    batch      a clip gives in a batch what it gives alone
    gradients  they are there, and finite, if any parameter is trained, and not otherwise
    dtype      tokens have the dtype of the parameters, whatever that of the pictures
    range      uint8 pictures, and the same in 0 … 1, give the same tokens
    ========== ====================================================================================================

    Frames of a clip may see each other: an encoder of films fits as well as one of pictures.

    Args:
        encoder: usually an ``nn.Module``; one without parameters is spared the properties about them.
        video: clips to try it on, real frames first; one for each case that matters, without it.
        tolerance: largest difference that counts as none, as a share of the largest token; by dtype without it.
        dtypes: of which a copy of the encoder is made and run; ``()`` spares the memory.

    Returns:
        The names of the properties that hold.

    Raises:
        ConformanceError: the first property that does not hold, what was found, and what usually mends it.
        InvalidValueError: a ``video`` without pictures.

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
        avfusion.errors.ConformanceError: Brightness breaks "range": pictures must give the same tokens as uint8 and as
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


_RANGE = "pictures must give the same tokens as uint8 and as 0 … 1"
_RANGE_HINT = "divide uint8 by 255, and floating point by nothing"


def _clips() -> Video:
    """Smooth pictures, which resizing neither sharpens nor rounds: five, none, two, and five again."""
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
    if not share < 0.25:  # resizing rounds uint8, and a small tower makes much of it
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
    word="pictures",
    values="pixels",
    spoil=_spoil,
    alone=_alone,
    hint="encode real frames alone, video.pixels[video.mask], and put zeros in the other places",
)
