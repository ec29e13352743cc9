"""Checks shared by audio and visual encoders."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from avfusion.errors import ConformanceError, InvalidValueError
from avfusion.testing._exam import Exam
from avfusion.types import Frames, TokenStream, Video, Waveform

M = TypeVar("M", Waveform, Video)


class Kind(NamedTuple, Generic[M]):
    """Operations on the clips of one kind of media.

    Attributes:
        word: name of the media in messages.
        values: name of the field with the samples or pixels.
        spoil: replaces the padding by other values, NaN included, and adds padding.
        alone: one clip without padding.
        hint: how to clear padding.
    """

    word: str
    values: str
    spoil: Callable[[M], M]
    alone: Callable[[M, int], M]
    hint: str

    @property
    def absent_rule(self) -> str:
        """The rule for clips without media."""
        return f"a clip without {self.word} must give no real token, alone and in a batch"


_ABSENT_HINT = "pass over clips in which nothing is real: tokens of zeros, and a mask that is False"


def check_clips(mask: Tensor, word: str) -> None:
    """Raises an error for media without a real clip."""
    if not bool(mask.any()):
        raise InvalidValueError(f"{word}: must hold a clip with something real in it, found none")


def tokens_of(value: TokenStream | Frames, clip: int) -> Tensor:
    """``(real token, dim)``: one clip's."""
    return value.tokens[clip][value.mask[clip]]


def first_run(exam: Exam, kind: Kind[M], media: M, rule: str, hint: str) -> Any:
    """The output for ``media``; distinguishes an encoder that always fails from one that fails for empty clips."""
    try:
        return exam.run("output", rule, hint, exam.part, media)
    except ConformanceError:
        real = media.mask.any(1)
        if not bool(real.all()):
            some: dict[str, Any] = {
                name: value[real] for name, value in media._asdict().items() if isinstance(value, Tensor)
            }
            exam.run("output", rule, hint, exam.part, media._replace(**some))
            exam.run("absent", kind.absent_rule, _ABSENT_HINT, exam.part, media)
        raise


def check_media_encoder(
    exam: Exam, kind: Kind[M], media: M, value: TokenStream | Frames, dtypes: Sequence[torch.dtype]
) -> tuple[str, ...]:
    """The properties that audio and visual encoders share; ``value`` is the output for ``media``."""
    _check_padding(exam, kind, media, value)
    _check_absent(exam, kind, media, value)
    _check_batch(exam, kind, media, value)
    _check_gradients(exam, kind, media)
    if not exam.parameters():
        return ("padding", "absent", "batch", "gradients")
    _check_dtype(exam, kind, media, value, dtypes)
    return ("padding", "absent", "batch", "gradients", "dtype")


def check_device(exam: Exam, value: TokenStream | Frames) -> tuple[str, ...]:
    """Whether all outputs are on the device of the parameters, if any."""
    if not exam.parameters():
        return ()
    device = next(iter(exam.parameters().values())).device
    for name, tensor in value._asdict().items():
        if tensor.device != device:
            rule, hint = f"all that it gives must be where its parameters are, on {device}", f"move the {name}"
            exam.fail("device", rule, f"{name} on {tensor.device}", hint)
    return ("device",)


def check_repeatable(exam: Exam, media: Any, value: TokenStream | Frames) -> None:
    """Whether ``media`` give ``value`` a second time."""
    again = exam.run("repeatable", "it must be callable twice", "keep no state between calls", exam.part, media)
    same = torch.equal(again.mask, value.mask) and exam.difference(again.tokens[again.mask], value.tokens[value.mask])
    if same is not None:
        exam.fail(
            "repeatable",
            "the same clips must give the same tokens in evaluation mode",
            f"a difference of {same:.2g}" if same else "another mask",
            "let no noise or dropout depend on anything but self.training, and keep no state between calls",
        )


def _compare_clips(
    exam: Exam, name: str, rule: str, hint: str, found: TokenStream | Frames, wanted: list[Tensor]
) -> None:
    for clip, tokens in enumerate(wanted):
        mine = tokens_of(found, clip)
        if len(mine) != len(tokens):
            exam.fail(name, rule, f"{len(mine)} real tokens in clip {clip} instead of {len(tokens)}", hint)
        difference = exam.difference(mine, tokens)
        if difference is not None:
            exam.fail(name, rule, f"a difference of {difference:.2g} in clip {clip}", hint)


def _check_padding(exam: Exam, kind: Kind[M], media: M, value: TokenStream | Frames) -> None:
    rule = "neither what padding holds nor how long it is must change real tokens"
    spoilt = exam.run("padding", rule, kind.hint, exam.part, kind.spoil(media))
    _compare_clips(
        exam, "padding", rule, kind.hint, spoilt, [tokens_of(value, clip) for clip in range(len(media.mask))]
    )


def _check_batch(exam: Exam, kind: Kind[M], media: M, value: TokenStream | Frames) -> None:
    rule = "a clip must give in a batch what it gives alone"
    hint = "run clips of equal length together, or mask what the shorter ones lack in every layer that mixes places"
    alone: list[Tensor] = []
    for clip, real in enumerate(media.mask.any(1).tolist()):
        part = kind.alone(media, clip)
        if not real:
            alone.append(tokens_of(value, clip))
            continue
        alone.append(tokens_of(exam.run("batch", rule, hint, exam.part, part), 0))
    _compare_clips(exam, "batch", rule, hint, value, alone)


def _check_absent(exam: Exam, kind: Kind[M], media: M, value: TokenStream | Frames) -> None:
    rule, hint = kind.absent_rule, _ABSENT_HINT
    lacking = (~media.mask.any(1)).to(value.mask.device)
    if bool(value.mask[lacking].any()):
        exam.fail("absent", rule, f"{int(value.mask[lacking].sum())} real tokens of such a clip beside others", hint)
    absent = media._replace(mask=torch.zeros_like(media.mask))
    nothing = kind.alone(absent, 0)
    for batch in (absent, nothing):
        given = exam.run("absent", rule, hint, exam.part, batch)
        if len(given.mask) != len(batch.mask):
            exam.fail("absent", rule, f"a batch of {len(given.mask)} instead of {len(batch.mask)}", hint)
        if bool(given.mask.any()):
            exam.fail("absent", rule, f"{int(given.mask.sum())} real tokens", hint)


def _check_gradients(exam: Exam, kind: Kind[M], media: M) -> None:
    with torch.enable_grad():
        value = exam.part(kind.spoil(media))
        exam.check_gradients(value.tokens[value.mask], hint=kind.hint)


def _check_dtype(
    exam: Exam, kind: Kind[M], media: M, value: TokenStream | Frames, dtypes: Sequence[torch.dtype]
) -> None:
    own = exam.own_dtype()
    rule = "tokens must have the dtype of the parameters"
    hint = f"cast what goes into the tower: {kind.values}.to(next(self.parameters()).dtype)"
    if value.tokens.dtype != own:
        exam.fail("dtype", f"{rule}, {own}", str(value.tokens.dtype), hint)
    values = getattr(media, kind.values)
    if values.is_floating_point():
        other = media._replace(**{kind.values: values.double()})
        found = exam.run("dtype", f"{kind.values} of any dtype must do", hint, exam.part, other)
        if found.tokens.dtype != own:
            exam.fail("dtype", f"{rule}, {own}, not that of the {kind.values}", str(found.tokens.dtype), hint)
    for twin in exam.copies(dtypes):
        dtype = twin.own_dtype()
        found = twin.run("dtype", f"it must run after .to({dtype})", hint, twin.part, media)
        if found.tokens.dtype != dtype:
            exam.fail("dtype", f"{rule} after .to({dtype})", str(found.tokens.dtype), hint)
        if not bool(found.tokens[found.mask].isfinite().all()):
            exam.fail("dtype", f"tokens must be finite after .to({dtype})", "NaN or infinity", hint)
