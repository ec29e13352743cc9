"""What the parts of a live source promise each other, where whole sources seldom meet it."""

from fractions import Fraction

import pytest
import torch

from avfusion.media import MediaLimits
from avfusion.media._audio import AudioSegment
from avfusion.media._timeline import Timeline
from avfusion.media.live.assembly import Assembly
from avfusion.media.live.backlog import Backlog, ClosedError, Piece
from avfusion.media.live.chunk import LiveFault
from avfusion.media.live.pace import Pace

TENTH = Fraction(1, 10)


def sound(watermark: float, *heard: AudioSegment, fault: LiveFault | None = None) -> Piece:
    return Piece("audio", (), heard, 0.0, watermark, (fault,) if fault else ())


def test_time_goes_on_after_all_streams_and_all_follow() -> None:
    line = Timeline(ahead=10.0)
    for step in range(10):
        assert line.fit("visual", step * TENTH, TENTH).shift == 0
        assert line.fit("audio", step * TENTH + 2 * TENTH, TENTH).shift == 0
    # Both begin again at 0: after the audio, which had come further.
    back = line.fit("visual", Fraction(0), TENTH)
    assert (back.shift, back.jump) == (Fraction(12, 10), pytest.approx(-1.0))
    same = line.fit("audio", Fraction(0), TENTH)
    assert (same.shift, same.jump) == (back.shift, 0.0)


def test_a_time_that_was_waited_for_is_no_jump_and_passes_over_one() -> None:
    line = Timeline(ahead=10.0)
    line.fit("audio", Fraction(0), TENTH)
    assert line.fit("audio", Fraction(30), TENTH, waited=29.0).jump == 0
    again = line.fit("audio", Fraction(0), TENTH, waited=5.0)
    assert again.shift == Fraction(301, 10) + 5


def test_a_stream_that_comes_new_after_a_jump_is_put_beside_the_other() -> None:
    line = Timeline(ahead=10.0)
    line.fit("visual", Fraction(0), TENTH)
    line.fit("visual", Fraction(5000), TENTH)
    for step in range(3):
        fit = line.fit("audio", 5000 + step * TENTH, TENTH)
        assert 5000 + step * TENTH + fit.shift == step * TENTH + TENTH
        assert fit.jump == 0
    line.forget()
    assert line.fit("audio", Fraction(9000), TENTH).jump == 0


def test_a_full_backlog_makes_a_file_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    backlog, waits = Backlog(seconds=1.0, live=False), []

    def take() -> None:
        waits.append(backlog.get().watermark)

    for watermark in (0.5, 1.0, 1.6):
        backlog.put(sound(watermark))
    monkeypatch.setattr(backlog._changed, "wait", take)
    backlog.put(sound(2.0))  # the newest is more than a second after the oldest
    assert waits == [0.5]
    backlog.close()
    with pytest.raises(ClosedError):
        backlog.put(sound(2.5))
    assert backlog.get() is None


def test_a_full_backlog_of_a_live_source_drops_the_oldest_but_no_fault() -> None:
    backlog = Backlog(seconds=1.0, live=True)
    for place in range(40):
        backlog.put(sound(place / 10, fault=LiveFault("corrupt", "audio", place / 10, 1, "damaged")))
    dropped = backlog.take_dropped()
    assert dropped.until == pytest.approx(2.8)
    assert [(fault.kind, fault.amount, fault.time) for fault in dropped.faults] == [("corrupt", 29, 0.0)]
    assert backlog.take_dropped() == ((0.0, ()))
    assert backlog.get().watermark == pytest.approx(2.9)


def test_silence_is_given_as_soon_as_it_is_known() -> None:
    assembly = Assembly(["audio"], frame_rate=2.0, sample_rate=100, max_wait=1.0, late=True, limits=MediaLimits())
    assembly.add(sound(0.7, AudioSegment(0, torch.ones(70))))
    assert not assembly.ready(1.0)
    assembly.add(sound(2.3))  # the audio goes on there, and none of it has been resampled yet
    assert assembly.ready(2.0)
    first, second = assembly.cut(1.0), assembly.cut(2.0)
    assert first.waveform.samples[0].tolist() == [1.0] * 70 + [0.0] * 30
    assert second.waveform.samples[0].tolist() == [0.0] * 100
    assembly.add(sound(3.0, AudioSegment(230, torch.ones(70))))
    assert assembly.cut(3.0).waveform.samples[0].tolist() == [0.0] * 30 + [1.0] * 70


def test_the_rate_is_not_lowered_further_while_the_lag_falls() -> None:
    now = [0.0]
    pace = Pace(
        policy="slow",
        max_lag=2.0,
        chunk_seconds=0.5,
        halvings=3,
        clock=lambda: now[0],
        sleep=lambda _: None,
        head=lambda: now[0],
    )
    every = []
    for lag in (0.5, 1.2, 1.8, 1.7, 1.5, 1.3, 1.4, 1.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4):
        now[0] = 10.0 + lag
        assert pace.lag(10.0) == pytest.approx(lag)
        every.append(pace.every)
    assert every == [1, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 2, 2, 2, 2, 1]
