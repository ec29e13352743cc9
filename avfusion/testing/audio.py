"""Conformance check for audio encoders."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from avfusion.errors import InvalidTypeError
from avfusion.testing._exam import Exam
from avfusion.testing._media import Kind, check_clips, check_device, check_media_encoder, check_repeatable, first_run
from avfusion.types import TokenStream, Waveform
from avfusion.types.clock import time_dtype

_TIMES = "TokenStream.from_rate(tokens, rate, start=waveform.start)"


def check_token_stream_encoder(
    encoder: Any,
    waveform: Waveform | None = None,
    *,
    tolerance: float | None = None,
    dtypes: Sequence[torch.dtype] = (torch.bfloat16,),
) -> tuple[str, ...]:
    """Checks that an audio encoder meets the protocol :class:`~avfusion.AudioEncoder`.

    The encoder runs about ten times, in evaluation mode, on its own device. The properties, in the order of the checks:

    ========== ====================================================================================================
    protocol   it is callable, and ``output_dim`` is a number
    output     it returns a :class:`~avfusion.TokenStream` with one row per clip, of width ``output_dim``
    device     all outputs are on the device of its parameters
    repeatable the same audio gives the same tokens
    order      timestamps are float64 seconds, finite, and do not decrease
    start      audio that starts later gives the same tokens, later by the same amount
    padding    padding never becomes a real token; its values, NaN included, and its length have no effect
    absent     a clip without audio has no real token, and a batch of such clips runs
    batch      a clip gives the same result in a batch and alone
    gradients  they exist and are finite if any parameter is trained, and do not exist otherwise
    dtype      tokens have the dtype of the parameters, for audio of any dtype
    clock      tokens are centred within their clip and cover it to both ends
    timeline   ``timeline(waveform)``, if present, returns the same times without tokens
    ========== ====================================================================================================

    Args:
        encoder: usually an ``nn.Module``; properties of parameters are checked only if it has parameters.
        waveform: clips to check with; by default one clip of noise per relevant case. Audio longer than the model's
            input reveals truncation.
        tolerance: largest allowed difference, relative to the largest token; depends on the dtype by default.
        dtypes: dtypes in which a copy of the encoder is run; ``()`` saves the memory of the copies.

    Returns:
        The names of the properties that hold.

    Raises:
        ConformanceError: the first property that does not hold, what was found, and the usual fix.
        InvalidValueError: a ``waveform`` without audio.

    Example:
        >>> import torch
        >>> from avfusion import TokenStream
        >>> from avfusion.testing import check_token_stream_encoder
        >>> class Loudness(torch.nn.Module):
        ...     output_dim, sample_rate = 1, 16000
        ...
        ...     def forward(self, waveform):
        ...         pieces = torch.where(waveform.mask, waveform.samples, 0).unfold(1, 160, 160)
        ...         return TokenStream.from_rate(pieces.std(-1, keepdim=True), 100.0, lengths=waveform.lengths // 160)
        >>> check_token_stream_encoder(Loudness())
        Traceback (most recent call last):
        avfusion.errors.ConformanceError: Loudness breaks "start": audio that starts 3.25 s later must have the same
        tokens 3.25 s later, found tokens 0 s later in clip 0; give the stream its start:
        TokenStream.from_rate(tokens, rate, start=waveform.start)
    """
    exam = Exam(encoder, tolerance)
    exam.check_numbers("output_dim")
    wave = _clips(encoder) if waveform is None else waveform
    if not isinstance(wave, Waveform):
        raise InvalidTypeError(f"waveform: must be an avfusion.Waveform, found {type(wave).__name__}")
    check_clips(wave.mask, "waveform")
    with exam.evaluating(), torch.no_grad():
        stream = _check_output(exam, wave)
        device = check_device(exam, stream)
        check_repeatable(exam, wave, stream)
        _check_order(exam, stream)
        _check_start(exam, wave, stream)
        shared = check_media_encoder(exam, _KIND, wave, stream, dtypes)
        _check_clock(exam, wave, stream)
        names = ("protocol", "output", *device, "repeatable", "order", "start", *shared, "clock")
        if not hasattr(encoder, "timeline"):
            return names
        _check_timeline(exam, wave, stream)
        return (*names, "timeline")


def _clips(encoder: Any) -> Waveform:
    """Long, short, none, and as long as the first, so that both may run together; no whole number of steps."""
    rate = int(getattr(encoder, "sample_rate", 16000))
    draw = torch.Generator().manual_seed(0)
    noise = [0.1 * torch.randn(round(seconds * rate), generator=draw) for seconds in (2.003, 0.701, 0.0, 2.003)]
    return Waveform.from_samples(noise, rate, start=[0.0, 1.25, 0.0, -0.5])


def _check_output(exam: Exam, wave: Waveform) -> TokenStream:
    rule, hint = "it must give a TokenStream for a Waveform", f"end forward with {_TIMES}"
    stream = first_run(exam, _KIND, wave, rule, hint)
    if not isinstance(stream, TokenStream):
        exam.fail("output", rule, type(stream).__name__, hint)
    wanted = (len(wave.mask), exam.part.output_dim)
    found = (stream.tokens.shape[0], stream.tokens.shape[2])
    if found != wanted:
        rule = f"tokens must be (batch, time, output_dim) = ({wanted[0]}, any, {wanted[1]})"
        exam.fail("output", rule, f"shape {tuple(stream.tokens.shape)}", "give what the tower gives for every clip")
    if not bool(stream.mask[wave.mask.any(1).to(stream.mask.device)].any(1).all()):
        exam.fail("output", "every clip with audio must have a token", "one without", "pad short audio with silence")
    return stream


def _check_order(exam: Exam, stream: TokenStream) -> None:
    wanted = time_dtype(stream.timestamps.device)
    if stream.timestamps.dtype != wanted:
        hint = "float32 loses a token's place in long clips; keep seconds in float64 from the start"
        exam.fail("order", f"timestamps must be {wanted}", str(stream.timestamps.dtype), hint)
    for clip, mask in enumerate(stream.mask):
        times = stream.timestamps[clip, mask]
        if not bool(times.isfinite().all()):
            exam.fail(
                "order", "times of real tokens must be finite", f"NaN or infinity in clip {clip}", f"use {_TIMES}"
            )
        if bool((times.diff() < 0).any()):
            place = int((times.diff() < 0).nonzero()[0, 0])
            exam.fail(
                "order",
                "times of real tokens must not decrease",
                f"{times[place + 1].item():.6g} s after {times[place].item():.6g} s in clip {clip}",
                "sort the tokens by time; where several share a time, keep them side by side",
            )


def _check_start(exam: Exam, wave: Waveform, stream: TokenStream) -> None:
    later, rule = 3.25, "audio that starts 3.25 s later must have the same tokens 3.25 s later"
    hint = f"give the stream its start: {_TIMES}"
    moved = exam.run("start", rule, hint, exam.part, wave._replace(start=wave.start + later))
    if not torch.equal(moved.mask, stream.mask):
        exam.fail("start", rule, "other real tokens", hint)
    for clip, mask in enumerate(stream.mask):
        by = moved.timestamps[clip, mask] - stream.timestamps[clip, mask]
        if bool(((by - later).abs() > 1e-3).any()):
            exam.fail("start", rule, f"tokens {by[0].item():.3g} s later in clip {clip}", hint)
    difference = exam.difference(moved.tokens[moved.mask], stream.tokens[stream.mask])
    if difference is not None:
        exam.fail("start", rule, f"tokens that differ by {difference:.2g}", "let the start change nothing but times")


def _check_clock(exam: Exam, wave: Waveform, stream: TokenStream) -> None:
    start, seconds = wave.start.to(stream.timestamps), wave.durations.to(stream.timestamps)
    longest = int(wave.lengths.argmax())
    apart = stream.timestamps[longest, stream.mask[longest]].unique().diff()
    steps = len(apart) + 1
    step = float(apart.median()) if len(apart) else float(seconds[longest])
    for clip, mask in enumerate(stream.mask):
        times = stream.timestamps[clip, mask]
        if not len(times):
            continue
        first, last = times[0].item(), times[-1].item()
        begin, end = start[clip].item(), (start + seconds)[clip].item()
        # The centre of the last token may lie after the end of the audio, by less than a step.
        if not begin <= first <= last < end + step:
            exam.fail(
                "clock",
                "tokens must be centred within their clip, in seconds on its clock",
                f"tokens from {first:.6g} s to {last:.6g} s in clip {clip}, whose audio goes from {begin:.6g} s "
                f"to {end:.6g} s",
                f"use the rate in tokens per second, and the audio's start: {_TIMES}",
            )
        slack = max(3 * step, 0.1 * (end - begin))
        if steps > 1 and (end - last > slack or first - begin > slack):
            exam.fail(
                "clock",
                f"tokens {step:.3g} s apart must reach from one end of the audio to the other",
                f"tokens from {first:.6g} s to {last:.6g} s in clip {clip}, whose audio goes from {begin:.6g} s "
                f"to {end:.6g} s",
                "the rate is not the tower's, or the audio was cut off: run long audio in chunks",
            )


def _check_timeline(exam: Exam, wave: Waveform, stream: TokenStream) -> None:
    rule, hint = "timeline(waveform) must give the stream's mask and times, with tokens of width 0", "mend or drop it"
    when = exam.run("timeline", rule, hint, exam.part.timeline, wave)
    if not isinstance(when, TokenStream) or when.tokens.shape[2]:
        exam.fail("timeline", rule, type(when).__name__ if not isinstance(when, TokenStream) else "tokens", hint)
    for clip in range(len(stream.mask)):
        told, wanted = (value.timestamps[clip, value.mask[clip]].cpu() for value in (when, stream))
        if len(told) != len(wanted) or bool(((told - wanted).abs() > 1e-6).any()):
            exam.fail("timeline", rule, f"other times in clip {clip}", hint)


def _spoil(wave: Waveform) -> Waveform:
    extra = wave.sample_rate // 2
    mask = torch.nn.functional.pad(wave.mask, (0, extra))
    samples = torch.nn.functional.pad(wave.samples, (0, extra))
    junk = torch.linspace(-9, 9, samples.shape[1], dtype=samples.dtype, device=samples.device)
    junk[1::2] = torch.nan
    return wave._replace(samples=torch.where(mask, samples, junk), mask=mask)


def _alone(wave: Waveform, clip: int) -> Waveform:
    kept = int(wave.lengths[clip])
    one: list[Tensor] = [value[clip : clip + 1] for value in (wave.samples, wave.mask, wave.start)]
    return Waveform(one[0][:, :kept], one[1][:, :kept], wave.sample_rate, one[2])


_KIND: Kind[Waveform] = Kind(
    word="audio",
    values="samples",
    spoil=_spoil,
    alone=_alone,
    hint="clear padding first, torch.where(waveform.mask, waveform.samples, 0), and count tokens from waveform.lengths",
)
