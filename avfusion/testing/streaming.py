"""Whether a window encoder that takes windows frame by frame fits."""

from typing import Any

import torch
from torch import Tensor

from avfusion.testing._exam import Exam
from avfusion.testing.window import some_windows, window_size
from avfusion.types import StreamingWindowEncoder, map_state, state_tensors


def check_streaming_window_encoder(
    encoder: Any,
    *,
    input_dim: int | None = None,
    tokens_per_frame: int | None = None,
    window_frames: int | None = None,
    tolerance: float | None = None,
) -> tuple[str, ...]:
    """Checks that a window encoder meets the protocol :class:`~avfusion.StreamingWindowEncoder`.

    It checks ``initial_state``, ``step`` and ``flush``; :func:`check_window_encoder` checks the call. The properties,
    in the order of the checks:

    ========== ====================================================================================================
    protocol   it has ``initial_state``, ``step`` and ``flush``, with the arguments that the Protocol names
    state      a state is a tree of tuples and tensors whose first axis is the row
    stream     for any division of windows into steps, ``flush`` returns what the call returns for the frames
    snapshot   a step does not modify its input state
    rows       rows of a state can be selected, and return the same alone
    ========== ====================================================================================================

    Args:
        encoder: usually an ``nn.Module``.
        input_dim: width of the tokens; by default that of a :class:`~avfusion.SizedWindowEncoder`.
        tokens_per_frame: slots of a frame; by default that of a :class:`~avfusion.SizedWindowEncoder`, or 4.
        window_frames: frames per window; by default that of a :class:`~avfusion.BoundedWindowEncoder`, or 5.
        tolerance: largest allowed difference, relative to the largest state; depends on the dtype by default.

    Returns:
        The names of the properties that hold.

    Raises:
        ConformanceError: the first property that does not hold, what was found, and the usual fix.
        InvalidValueError: ``input_dim`` is not given and the encoder has no such attribute.

    Example:
        >>> from avfusion import CausalQFormer
        >>> from avfusion.testing import check_streaming_window_encoder
        >>> qformer = CausalQFormer(
        ...     input_dim=24, hidden_size=16, num_heads=2, num_queries=3, window_frames=5, tokens_per_frame=4
        ... )
        >>> check_streaming_window_encoder(qformer)
        ('protocol', 'state', 'stream', 'snapshot', 'rows')
    """
    exam = Exam(encoder, tolerance)
    exam.check_numbers("num_queries", "output_dim")
    exam.check_protocol(StreamingWindowEncoder, "a stream can use it without: it gets whole windows")
    size = window_size(encoder, input_dim, tokens_per_frame, window_frames)
    tokens, mask = some_windows(exam, size)
    with exam.evaluating(), torch.no_grad():
        _check_state(exam, len(tokens))
        _check_stream(exam, tokens, mask)
        _check_snapshot(exam, tokens, mask)
        _check_rows(exam, tokens, mask)
    return ("protocol", "state", "stream", "snapshot", "rows")


def _check_state(exam: Exam, rows: int) -> None:
    rule, hint = "a state must be a tree of tuples and tensors whose first axis is the row", "give a NamedTuple"
    state = exam.run("state", rule, hint, exam.part.initial_state, rows)
    for name, value in exam.run("state", rule, hint, state_tensors, state).items():
        if not value.ndim or len(value) != rows:
            exam.fail("state", rule, f"{name or 'a tensor'} of shape {tuple(value.shape)} for {rows} rows", hint)


def _streamed(exam: Exam, tokens: Tensor, mask: Tensor, sizes: list[int]) -> tuple[Any, list[Tensor]]:
    """The state after all frames, and what was flushed after each step."""
    state, given = exam.part.initial_state(len(tokens)), []
    for part, real in zip(tokens.split(sizes, dim=1), mask.split(sizes, dim=1), strict=True):
        _, state = exam.part.step(part, state, mask=real)
        given.append(exam.part.flush(state))
    return state, given


def _check_stream(exam: Exam, tokens: Tensor, mask: Tensor) -> None:
    rule, hint = "flush must give what the call gives for the frames so far", "let a frame depend on no later one"
    frames = tokens.shape[1]
    for sizes in ([frames], [1] * frames, [frames - 1, 1] if frames > 1 else [1]):
        _, given = exam.run("stream", rule, hint, _streamed, exam, tokens, mask, sizes)
        seen = 0
        for size, states in zip(sizes, given, strict=True):
            seen += size
            so_far = mask & (torch.arange(frames, device=mask.device) < seen)[:, None]
            wanted = exam.part(torch.where(so_far[..., None], tokens, 0), so_far)
            difference = exam.difference(states, wanted)
            if difference is not None:
                exam.fail("stream", rule, f"a difference of {difference:.2g} after {seen} of {frames} frames", hint)


def _check_snapshot(exam: Exam, tokens: Tensor, mask: Tensor) -> None:
    rule, hint = "a step must not change the state that it gets", "make new tensors rather than write into old ones"
    _, first = exam.part.step(tokens[:, :1], exam.part.initial_state(len(tokens)), mask=mask[:, :1])
    before, states = state_tensors(first), exam.part.flush(first)
    if tokens.shape[1] > 1:
        exam.part.step(tokens[:, :1], first, mask=mask[:, :1])
    changed = [name for name, value in state_tensors(first).items() if not torch.equal(value, before[name])]
    if changed:
        exam.fail("snapshot", rule, f"another {changed[0] or 'tensor'}", hint)
    if exam.difference(exam.part.flush(first), states) is not None:
        exam.fail("snapshot", rule, "other states from the old one", hint)


def _check_rows(exam: Exam, tokens: Tensor, mask: Tensor) -> None:
    rule, hint = "rows of a state must give what they gave among others", "keep nothing that all rows share"
    state, given = _streamed(exam, tokens, mask, [1] * tokens.shape[1])
    some = map_state(lambda value: value[1:3], state)
    found = exam.run("rows", rule, hint, exam.part.flush, some)
    difference = exam.difference(found, given[-1][1:3])
    if difference is not None:
        exam.fail("rows", rule, f"a difference of {difference:.2g}", hint)
