"""Whether a window encoder fits."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avfusion.errors import ConformanceError, InvalidValueError
from avfusion.testing._exam import Exam
from avfusion.testing._offers import OFFERS
from avfusion.types import ShortWindowEncoder, WindowEncoder


class WindowSize(NamedTuple):
    """Frames of a window, tokens of a frame, and their width."""

    frames: int
    tokens: int
    dim: int


def check_window_encoder(
    encoder: Any,
    *,
    input_dim: int | None = None,
    tokens_per_frame: int | None = None,
    window_frames: int | None = None,
    tolerance: float | None = None,
    dtypes: Sequence[torch.dtype] = (torch.bfloat16,),
) -> tuple[str, ...]:
    """Checks that a window encoder meets the protocol :class:`~avfusion.WindowEncoder`.

    The encoder runs about ten times, in evaluation mode, on its own device. The properties, in the order of the checks:

    ============= =================================================================================================
    protocol      it is callable, and ``num_queries`` and ``output_dim`` are numbers
    output        it returns ``(window, num_queries, output_dim)``, finite
    repeatable    the same windows give the same states
    independence  a window gives the same states in a batch and alone
    masked        masked tokens do not matter: a window whose last frames are masked gives what the shorter one gives,
                  for encoders that take one, as a :class:`~avfusion.ShortWindowEncoder` must; others look at the mask
    shared frames of a :class:`~avfusion.SharedFrameWindowEncoder`: masked places may hold anything, no mask means that
                  all is real, and ``frame_index`` gives what the windows spelled out give
    query sets    of a :class:`~avfusion.QuerySetWindowEncoder`: other queries give a state each
    conditioning  of a :class:`~avfusion.ConditionedWindowEncoder`: masked tokens of an instruction do not matter, and a
                  window's instruction reaches no other window
    nothing real  a window in which nothing is real is finite and leaves gradients finite; the projector puts zeros
                  for its states
    no windows    no windows give no states, ``(0, num_queries, output_dim)``
    gradients     reach the tokens, and some parameter if any is trained, and are finite
    dtype         states have the dtype of tokens and parameters
    ============= =================================================================================================

    Args:
        encoder: usually an ``nn.Module``.
        input_dim: width of the tokens; by default that of a :class:`~avfusion.SizedWindowEncoder`.
        tokens_per_frame: slots of a frame; by default that of a :class:`~avfusion.SizedWindowEncoder`, or 4.
        window_frames: frames per window; by default that of a :class:`~avfusion.BoundedWindowEncoder`, or 5.
        tolerance: largest allowed difference, relative to the largest state; depends on the dtype by default.
        dtypes: dtypes in which a copy of the encoder is run; ``()`` saves the memory of the copies.

    Returns:
        The names of the properties that hold.

    Raises:
        ConformanceError: the first property that does not hold, what was found, and the usual fix.
        InvalidValueError: ``input_dim`` is not given and the encoder has no such attribute.

    Example:
        >>> import torch
        >>> from avfusion.testing import check_window_encoder
        >>> class MeanOfWindow(torch.nn.Module):
        ...     num_queries, output_dim = 1, 24
        ...
        ...     def forward(self, tokens, mask):
        ...         return tokens.mean((1, 2))[:, None]
        >>> check_window_encoder(MeanOfWindow(), input_dim=24)
        Traceback (most recent call last):
        avfusion.errors.ConformanceError: MeanOfWindow breaks "masked": a window with masked frames at its end must give
        what the window without them gives, found a difference of ...; leave masked tokens out of averages and attention
    """
    exam = Exam(encoder, tolerance)
    exam.check_numbers("num_queries", "output_dim")
    exam.check_protocol(WindowEncoder, "name the arguments as the Protocol does")
    size = window_size(encoder, input_dim, tokens_per_frame, window_frames)
    tokens, mask = some_windows(exam, size)
    names = ["protocol", "output", "repeatable", "independence", "masked"]
    with exam.evaluating(), torch.no_grad():
        states = _check_output(exam, tokens, mask)
        _check_independence(exam, tokens, mask, states)
        _check_masked(exam, tokens, mask, states)
        for name, protocol, check in OFFERS:
            if isinstance(encoder, protocol):
                check(exam, tokens, mask, states)
                names.append(name)
        _check_nothing_real(exam, tokens, mask)
        _check_no_windows(exam, tokens, mask)
        _check_gradients(exam, tokens, mask)
        _check_dtype(exam, tokens, mask, dtypes)
    return (*names, "nothing real", "no windows", "gradients", "dtype")


def window_size(
    encoder: Any, input_dim: int | None, tokens_per_frame: int | None, window_frames: int | None
) -> WindowSize:
    """What windows the encoder takes: as given, or as it tells."""
    # Each is read by itself: an encoder that only tells its width is no SizedWindowEncoder, but its width is known.
    if input_dim is None:
        input_dim = getattr(encoder, "input_dim", None)
    if input_dim is None:
        raise InvalidValueError(f"input_dim: must be given for {type(encoder).__name__}, which has no input_dim")
    if tokens_per_frame is None:
        tokens_per_frame = getattr(encoder, "tokens_per_frame", 4)
    if window_frames is None:
        window_frames = getattr(encoder, "window_frames", 5)
    return WindowSize(int(window_frames), int(tokens_per_frame), int(input_dim))


def some_windows(exam: Exam, size: WindowSize) -> tuple[Tensor, Tensor]:
    """Four windows: full; with a half-filled frame and a short end; with one frame; full. Zero where masked."""
    like = next(iter(exam.parameters().values()), torch.empty(0))
    frames, tokens, _ = size
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(4, *size, generator=draw).to(like.device, like.dtype)
    mask = torch.ones(4, frames, tokens, dtype=torch.bool, device=like.device)
    mask[1, 0, (tokens + 1) // 2 :] = False
    mask[1, max(1, frames // 2) :] = False
    mask[2, 1:] = False
    return torch.where(mask[..., None], values, 0), mask


def _check_output(exam: Exam, tokens: Tensor, mask: Tensor) -> Tensor:
    wanted = (len(tokens), exam.part.num_queries, exam.part.output_dim)
    rule = f"states must be (window, num_queries, output_dim) = {wanted}"
    hint = "it gets tokens (window, frame, token, dim) and a mask (window, frame, token)"
    states = exam.run("output", rule, hint, exam.part, tokens, mask)
    if not isinstance(states, Tensor):
        exam.fail("output", rule, type(states).__name__, "give the states alone")
    if states.shape != wanted:
        exam.fail("output", rule, f"shape {tuple(states.shape)}", hint)
    if not bool(states.isfinite().all()):
        exam.fail("output", "states must be finite", "NaN or infinity", "divide by nothing that can be zero")
    difference = exam.difference(exam.part(tokens, mask), states)
    if difference is not None:
        rule = "the same windows must give the same states in evaluation mode"
        exam.fail("repeatable", rule, f"a difference of {difference:.2g}", "keep no state between calls, and no noise")
    return states


def _check_independence(exam: Exam, tokens: Tensor, mask: Tensor, states: Tensor) -> None:
    rule = "a window must give beside others what it gives alone"
    hint = "let nothing mix windows: no statistics over the first axis, no attention across it"
    for window in range(len(tokens)):
        one = slice(window, window + 1)
        alone = exam.run("independence", rule, hint, exam.part, tokens[one], mask[one])
        difference = exam.difference(states[one], alone)
        if difference is not None:
            exam.fail("independence", rule, f"a difference of {difference:.2g} in window {window}", hint)


def _check_masked(exam: Exam, tokens: Tensor, mask: Tensor, states: Tensor) -> None:
    takes_short = isinstance(exam.part, ShortWindowEncoder)
    count = exam.part.frame_multiple if takes_short else 1
    hint = "leave masked tokens out of averages and attention"
    if count < tokens.shape[1]:
        rule = "a window with masked frames at its end must give what the window without them gives"
        try:
            short = exam.run("masked", rule, hint, exam.part, tokens[2:3, :count], mask[2:3, :count])
        except ConformanceError:
            if takes_short:
                raise
        else:
            difference = exam.difference(states[2:3], short)
            if difference is not None:
                exam.fail("masked", rule, f"a difference of {difference:.2g}", hint)
            return
    if bool(mask.all()):  # windows of one token
        return
    # Masked tokens are zero, so what else they might hold proves nothing by itself. A mask that changes nothing does.
    if exam.difference(exam.part(tokens, torch.ones_like(mask)), states) is None:
        rule = "masked tokens must not count as tokens of zeros"
        exam.fail("masked", rule, "the same states whatever the mask says", hint)


def _check_nothing_real(exam: Exam, tokens: Tensor, mask: Tensor) -> None:
    rule = "a window in which nothing is real must give finite states and gradients"
    hint = "divide by a count of at least 1, and let a softmax over nothing see something"
    mask = mask.index_fill(0, torch.tensor([1], device=mask.device), False)
    given = torch.where(mask[..., None], tokens, 0).requires_grad_()
    with torch.enable_grad():
        states = exam.run("nothing real", rule, hint, exam.part, given, mask)
        kept = states[[0, 2, 3]]  # as the projector does
        if not bool(states.isfinite().all()):
            exam.fail("nothing real", rule, "NaN or infinity in the states", hint)
        if not kept.requires_grad:
            return  # which the check of gradients names
        (gradient,) = torch.autograd.grad((kept * _weights(kept)).sum(), given, allow_unused=True)
    if gradient is not None and not bool(gradient.isfinite().all()):
        exam.fail("nothing real", rule, "NaN or infinity in the gradient", hint)


def _check_no_windows(exam: Exam, tokens: Tensor, mask: Tensor) -> None:
    wanted = (0, exam.part.num_queries, exam.part.output_dim)
    rule, hint = (
        f"no windows must give states of shape {wanted}",
        "reshape by known sizes: -1 is unknown for no windows",
    )
    states = exam.run("no windows", rule, hint, exam.part, tokens[:0], mask[:0])
    if states.shape != wanted:
        exam.fail("no windows", rule, f"shape {tuple(states.shape)}", hint)


def _check_gradients(exam: Exam, tokens: Tensor, mask: Tensor) -> None:
    hint = "keep the graph whole: no detach(), no torch.no_grad(), no argmax"
    given = tokens.clone().requires_grad_()
    with torch.enable_grad():
        states = exam.part(given, mask)
        gradient = None
        if states.requires_grad:
            total = (states * _weights(states)).sum()
            (gradient,) = torch.autograd.grad(total, given, allow_unused=True, retain_graph=True)
        if gradient is None or not bool(gradient.any()):
            rule = "gradients must reach the tokens, or nothing in front of the encoder learns"
            exam.fail("gradients", rule, "none", hint)
        if not bool(gradient.isfinite().all()):
            exam.fail("gradients", "gradients must be finite", "NaN or infinity in that of the tokens", hint)
        if any(value.requires_grad for value in exam.parameters().values()):
            exam.check_gradients(states, hint=hint)


def _check_dtype(exam: Exam, tokens: Tensor, mask: Tensor, dtypes: Sequence[torch.dtype]) -> None:
    hint = "make what it adds in the dtype and on the device of the tokens"
    for dtype in (tokens.dtype, *dtypes):
        rule = f"states of {dtype} tokens must be {dtype}"
        twin = exam if dtype == tokens.dtype else next(exam.copies([dtype]))
        given = tokens.to(dtype)
        states = twin.run("dtype", rule, hint, twin.part, given, mask)
        if states.dtype != dtype:
            exam.fail("dtype", rule, str(states.dtype), hint)


def _weights(states: Tensor) -> Tensor:
    """Some weights of a sum that no normalisation makes constant."""
    flat = torch.linspace(-1, 1, states.numel(), dtype=torch.float64, device=states.device)
    return flat.view(states.shape).to(states.dtype)
