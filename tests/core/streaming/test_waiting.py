"""When a frame closes, what is late, and what a stream refuses."""

import pytest
import torch
from torch import nn

from avfusion import (
    AlignmentError,
    CausalQFormer,
    Frames,
    FrameSynchroniser,
    InvalidTypeError,
    InvalidValueError,
    SlidingWindowProjector,
    TokenStream,
)
from tests.core.streaming.cutting import build_connector, build_qformer

SYNC = FrameSynchroniser(visual_dim=3, stream_dims={"audio": 2}, stream_rates={"audio": 10.0}, slots=5)


def pictures(count: int, start: float = 0.0) -> Frames:
    return Frames.from_rate(torch.rand(1, count, 4, 3) + 1, 2.0, start=start)


def sound(*times: float) -> TokenStream:
    stamps = torch.tensor([times], dtype=torch.float64)
    return TokenStream(
        stamps[..., None].repeat(1, 1, 2).float() + 10, torch.ones(1, len(times), dtype=torch.bool), stamps
    )


def heard(frames: Frames) -> list[list[float]]:
    """Times of the tokens of each frame, which they carry as values."""
    return [[round(float(value) - 10, 3) for value in frame[:, 3] if value] for frame in frames.tokens[0]]


def test_frames_close_when_both_streams_have_passed_them() -> None:
    state = SYNC.initial_state()
    out, state = SYNC.step({"audio": sound(0.1, 0.6, 1.2)}, state)
    assert out.lengths.tolist() == [0]
    out, state = SYNC.step({"visual": pictures(1)}, state)
    assert (out.lengths.tolist(), heard(out.frames)) == ([1], [[0.1]])
    out, state = SYNC.step({"visual": pictures(3, 0.5)}, state)
    assert (out.lengths.tolist(), heard(out.frames)) == ([1], [[0.6]])  # sound may still come before 1.5 s
    out, state = SYNC.step({}, state, watermark={"audio": 1.5})
    assert (out.lengths.tolist(), heard(out.frames)) == ([1], [[1.2]])
    out, state = SYNC.step({}, state, watermark={"audio": torch.tensor([torch.inf])})
    assert (out.lengths.tolist(), heard(out.frames)) == ([1], [[]])
    assert SYNC.flush(state).lengths.tolist() == [0]


def test_plain_sound_says_how_far_it_reaches() -> None:
    state = SYNC.initial_state()
    _, state = SYNC.step({"visual": torch.rand(1, 1, 4, 3)}, state)
    out, state = SYNC.step({"audio": torch.rand(1, 5, 2)}, state)  # until 0.5 s exactly
    assert out.lengths.tolist() == [1]


def test_waiting_has_a_limit_and_what_is_late_is_counted() -> None:
    state = SYNC.initial_state(max_wait=1.0)
    out, state = SYNC.step({"visual": pictures(4), "audio": sound(0.1)}, state)
    assert (out.lengths.tolist(), heard(out.frames)) == ([2], [[0.1], []])  # 2 s of pictures: up to 1 s
    assert out.late.tolist() == [[0, 0]]
    out, state = SYNC.step({"audio": sound(0.4, 0.9, 1.0, 1.6)}, state)
    assert out.late.tolist() == [[0, 2]]
    assert (out.lengths.tolist(), heard(out.frames)) == ([1], [[1.0]])
    out, state = SYNC.step({"audio": sound(5.2)}, state)  # the pictures have stopped
    assert heard(out.frames) == [[1.6], [], [], [], []]
    assert state.late.tolist() == [[0, 2]]
    out, state = SYNC.step({"audio": sound(6.4)}, state)
    assert [frame.tolist() for frame in out.frames.spans[0, -1:]] == [[4.5, 5.0]]
    assert not out.frames.tokens[0, :, :, :3].any()  # frames without pictures
    out, state = SYNC.step({"visual": pictures(5, 4.3)}, state)  # they come back, two of them for closed frames
    assert out.late.tolist() == [[2, 0]]
    spans = [[round(time, 6) for time in span] for span in out.frames.spans[0].tolist()]
    assert spans == [[5.0, 5.3], [5.3, 5.8], [5.8, 6.3]]
    assert heard(out.frames) == [[5.2], [], []]
    assert out.frames.tokens[0, :, 0, 0].bool().tolist() == [False, True, True]
    out, state = SYNC.step({"audio": sound(8.0)}, state)
    assert heard(out.frames) == [[6.4]]
    out, state = SYNC.step({}, state, end=torch.tensor([True]))
    assert heard(out.frames) == [[], [], [8.0]]
    assert state.late.tolist() == [[0, 0]]  # another clip


def test_a_connector_counts_what_is_late() -> None:
    connector = build_connector()
    state = connector.initial_state(max_wait=0.5)
    _, state = connector.step({"visual": torch.rand(1, 4, 2, 3, dtype=torch.float64)}, state)
    late = TokenStream.from_rate(torch.rand(1, 4, 3, dtype=torch.float64), 2.0)  # the last of them in the fourth frame
    out, state = connector.step({"audio": late}, state)
    assert out.late.tolist() == state.synchroniser.late.tolist() == [[0, 3, 0]]


def test_a_gap_in_the_pictures_is_an_error_unless_there_is_a_limit() -> None:
    chunk = {"audio": sound(0.1, 0.7), "visual": pictures(1)}
    _, state = SYNC.step(chunk, SYNC.initial_state())
    with pytest.raises(AlignmentError, match=r"audio: every token must fall into a frame's span"):
        SYNC.step({"visual": pictures(1, 0.8)}, state)
    _, state = SYNC.step(chunk, SYNC.initial_state(max_wait=9.0))
    _, state = SYNC.step({"visual": pictures(1, 0.8)}, state)
    out = SYNC.flush(state)
    assert out.frames.spans[0].tolist() == [[0.5, 0.8], [0.8, 1.3]]
    assert heard(out.frames) == [[0.7], []]


def test_a_picture_is_shown_until_the_next_one() -> None:
    def picture(at: float) -> Frames:
        return Frames(
            torch.full((1, 1, 4, 3), at),
            torch.ones(1, 1, 4, dtype=torch.bool),
            torch.tensor([[[at, torch.inf]]]).double(),
        )

    state = SYNC.initial_state()
    _, state = SYNC.step({"visual": picture(1.0), "audio": sound(1.1, 1.6)}, state)
    out, state = SYNC.step({"visual": picture(1.75), "audio": sound(3.0)}, state)
    assert out.frames.spans[0].tolist() == [[1.0, 1.75]]
    out, state = SYNC.step({}, state, watermark={"visual": torch.inf})  # it was the last one: shown on
    assert out.frames.spans[0].tolist() == [[1.75, 2.25], [2.25, 2.75]]
    out, state = SYNC.step({"audio": sound(3.5)}, state)
    assert out.frames.spans[0].tolist() == [[2.75, 3.25]]
    out = SYNC.flush(state)
    assert out.frames.spans[0].tolist() == [[3.25, 3.75]]
    assert out.frames.tokens[0, 0, 0, :3].tolist() == [1.75] * 3


def test_a_still_image_is_shown_before_zero_too() -> None:
    state = SYNC.initial_state()
    out, state = SYNC.step({"visual": Frames.from_image(torch.full((1, 4, 3), 7.0)), "audio": sound(-1.2, -0.8)}, state)
    assert out.frames.spans[0].tolist() == [[-1.5, -1.0]]
    for until, span in ((-0.4, [-1.0, -0.5]), (0.1, [-0.5, 0.0]), (0.6, [0.0, 0.5])):
        out, state = SYNC.step({"audio": sound(until)}, state)
        assert out.frames.spans[0].tolist() == [span]
        assert out.frames.tokens[0, :, 0, 0].tolist() == [7.0]


def test_a_still_image_that_comes_late_is_shown_from_there() -> None:
    state = SYNC.initial_state(max_wait=0.0)
    out, state = SYNC.step({"audio": sound(0.1, 0.6)}, state)
    assert out.lengths.tolist() == [1]
    _, state = SYNC.step({"visual": Frames.from_image(torch.full((1, 4, 3), 7.0))}, state)
    out, state = SYNC.step({"audio": sound(1.6)}, state)
    assert out.frames.spans[0].tolist() == [[0.5, 1.0], [1.0, 1.5]]
    assert out.frames.tokens[0, :, 0, 0].tolist() == [7.0, 7.0]
    with pytest.raises(AlignmentError, match=r"visual: a frame must end after it starts, and must not start before"):
        SYNC.step({"visual": pictures(1, 3.0)}, state)


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        ({"audio": sound(0.2)}, r"audio: timestamps .*, must not decrease, .* found clip 0 token 0 at 0.200 s"),
        ({"audio": sound(1.2, 1.1)}, r"audio: timestamps .* found clip 0 token 1 at 1.100 s of this chunk"),
        ({"audio": sound(float("nan"))}, r"audio: timestamps must be finite"),
        ({"visual": pictures(1, 0.3)}, r"visual: a frame must end after .* found clip 0 frame 0 at 0.300 s"),
        ({"audio": sound(*[1.0] * 6)}, r"audio: a frame has 5 slots"),
    ],
)  # fmt: skip
def test_times_that_go_back_and_too_many_tokens(chunk: dict[str, Frames | TokenStream], message: str) -> None:
    _, state = SYNC.step({"visual": pictures(1), "audio": sound(0.9)}, SYNC.initial_state())
    with pytest.raises(AlignmentError, match=message):
        SYNC.step(chunk, state, end=torch.tensor([True]))


def test_steps_refuse() -> None:
    state = SYNC.initial_state()
    for chunk, message in (
        ({"music": torch.zeros(1, 1, 2)}, r"chunk: must hold streams among \['audio', 'visual'\], found 'music'"),
        ({"audio": torch.zeros(1, 1, 3)}, r"audio: must have width 2, found 3"),
        ({"audio": torch.zeros(2, 1, 2)}, r"audio: must be of 1 clips, found 2"),
        ({"visual": torch.zeros(1, 1, 6, 3)}, r"visual: a frame has 5 slots, found 6"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            SYNC.step(chunk, state)
    with pytest.raises(InvalidTypeError, match=r"audio: must be a TokenStream, a tensor or None, found Frames"):
        SYNC.step({"audio": pictures(1)}, state)
    for watermark, message in (
        ({"music": 1.0}, r"watermark: must name streams among"),
        (
            {"audio": float("nan")},
            r"watermark: must be one number of seconds or \(batch,\) = \(1,\), found nan for 'audio'",
        ),
        ({"audio": torch.zeros(2)}, r"watermark: must be one number of seconds"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            SYNC.step({}, state, watermark=watermark)
    for arguments, message in (
        ({"streams": ["music"]}, r"streams: must be some of \['audio', 'visual'\], found \['music'\]"),
        ({"streams": []}, r"streams: must be some of"),
        ({"max_wait": -1.0}, r"max_wait: must be at least 0 seconds and finite, or None, found -1.0"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            SYNC.initial_state(**arguments)
    with pytest.raises(AlignmentError, match=r"audio: .* must not lie before the watermark"):
        SYNC.step({"audio": sound(0.1)}, SYNC.initial_state(streams=["visual"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"causal_direction": "reversed"}, r'causal_direction: a stream needs "causal" or None, found "reversed"'),
        ({"padding": "released"}, r'padding: a stream needs "masked", found "released"'),
    ],
)
def test_what_cannot_stream_refuses_by_name(changes: dict[str, str], message: str) -> None:
    qformer = build_qformer(4, 3, 2, **changes)
    projector = SlidingWindowProjector(window_encoder=qformer, window_frames=2, llm_dim=2)
    for part in (qformer, projector):
        with pytest.raises(InvalidValueError, match=message):
            part.initial_state()
    streams: nn.Module = build_qformer(4, 3, 2)
    with pytest.raises(InvalidValueError, match=message):
        qformer.step(torch.zeros(1, 1, 3, 4), streams.initial_state())


def test_windows_refuse() -> None:
    qformer: CausalQFormer = build_qformer(4, 3, 2)
    state = qformer.initial_state(2)
    tokens = torch.zeros(2, 1, 3, 4)
    _, full = qformer.step(torch.zeros(2, 2, 3, 4), state)
    with pytest.raises(InvalidValueError, match=r"tokens: a window has at most 2 frames, found 3"):
        qformer.step(tokens, full)
    for wrong, message in (
        ({"tokens": tokens[:1]}, r"tokens: must be \(2 rows, frame, 3 tokens, 4\), found shape \(1, 1, 3, 4\)"),
        ({"mask": torch.ones(2, 1, 2, dtype=torch.bool)}, r"mask: must be \(row, frame, token\) = \(2, 1, 3\), found"),
        ({"lengths": torch.tensor([1])}, r"lengths: must be \(row,\) = \(2,\), found shape \(1,\)"),
        ({"lengths": torch.tensor([1, 2])}, r"lengths: must be between 0 and 1, found \[1, 2\]"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            qformer.step(**{"tokens": tokens, "state": state, **wrong})
    with pytest.raises(InvalidTypeError, match=r"mask: must be boolean"):
        qformer.step(tokens, state, mask=torch.ones(2, 1, 3))
    projector = build_connector().projector
    frames = Frames.from_rate(torch.zeros(2, 1, 12, 9).double(), 2.0)
    with pytest.raises(InvalidValueError, match=r"frames: must be of 1 clips, found 2"):
        projector.step(frames, projector.initial_state(1))
    with pytest.raises(InvalidValueError, match=r"lengths: must be between 0 and 1, found \[0, 2\]"):
        projector.step(frames, projector.initial_state(2), lengths=torch.tensor([0, 2]))
