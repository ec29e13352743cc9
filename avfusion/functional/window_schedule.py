"""The plan of a stream's step: which windows are computed, and how."""

from collections.abc import Sequence
from typing import NamedTuple

from avfusion.functional.windows import num_windows

# Frames that wait to be computed together: on a CPU, linear maps of one frame's 32 tokens run at two thirds of the
# speed of those of eight. The frames that complete a window never wait, and find nothing waiting.
_TOGETHER = 8


class ClipProgress(NamedTuple):
    """How far a clip is before a step.

    Attributes:
        num_frames: frames so far.
        num_real: the same up to the last one in which something is real.
        next_window: the first window that is not finished.
        first: the first pending frame.
        new: frames of this step.
        new_real: the same up to the last one in which something is real.
        ends: whether the clip is over.
        encoded: frames that the window encoder has of each open window, by the window's place.
    """

    num_frames: int
    num_real: int
    next_window: int
    first: int
    new: int
    new_real: int
    ends: bool
    encoded: Sequence[int]


class Advance(NamedTuple):
    """A window that is encoded incrementally: frames to append, or states to read.

    Attributes:
        clip: its clip.
        window: its number in the clip.
        place: its place among the clip's open windows.
        encoded: frames that the encoder has.
        first: number in the clip of the first frame to append.
        new: frames to append.
        read: whether its states are asked for.
        finished: whether it is complete, and its place free again.
    """

    clip: int
    window: int
    place: int
    encoded: int
    first: int
    new: int
    read: bool
    finished: bool


class Schedule(NamedTuple):
    """A step.

    Attributes:
        advances: windows that are encoded incrementally.
        full: the windows of each clip that are encoded from scratch.
        finished: the windows of each clip that this step finishes.
        partial: each clip's partial window to return, or none.
        num_frames: of each clip after the step, and so are the others.
        num_real: the same up to the last one in which something is real.
        next_window: the first window that is not finished.
        first: the first pending frame.
    """

    advances: list[Advance]
    full: list[range]
    finished: list[range]
    partial: list[range]
    num_frames: list[int]
    num_real: list[int]
    next_window: list[int]
    first: list[int]


def make_schedule(
    clips: Sequence[ClipProgress], window_frames: int, stride_frames: int, *, incremental: bool, partial: bool
) -> Schedule:
    """Decides what is computed.

    A window is finished when all its frames have come and it holds something real that the window before it does not,
    or its clip is over: those are the windows that the clip, if given at once, has.

    Args:
        clips: how far they are.
        window_frames: frames a window.
        stride_frames: frames from one window's start to the next's.
        incremental: whether the window encoder takes windows frame by frame.
        partial: whether each clip's partial window is requested.
    """
    schedule = Schedule([], [], [], [], [], [], [], [])
    for row, clip in enumerate(clips):
        total = clip.num_frames + clip.new
        real = clip.num_frames + clip.new_real if clip.new_real else clip.num_real
        due = num_windows(real, window_frames, stride_frames)
        finish = clip.next_window
        while finish < due and (clip.ends or total >= finish * stride_frames + window_frames):
            finish += 1
        shown = range(finish, finish + 1) if partial and finish < due else range(0)
        first, full = real, []
        opened = -(-real // stride_frames)  # windows that begin before the last real frame
        for window in range(clip.next_window, max(opened, finish)):
            start = window * stride_frames
            place = window % len(clip.encoded)
            had = clip.encoded[place] if incremental and start < clip.num_real else 0
            new = max(min(real, start + window_frames) - start, 0) - had
            done, asked = window < finish, window in shown
            missing = start + window_frames - total
            if (done or asked) and not (had or (incremental and asked)):
                full.append(window)
                first = first if done else min(first, start)
            elif done or asked or (incremental and new and (missing <= clip.new or new >= _TOGETHER)):
                schedule.advances.append(Advance(row, window, place, had, start + had, new, done or asked, done))
            else:
                first = min(first, start + had)
        schedule.full.append(range(full[0], full[-1] + 1) if full else range(0))
        schedule.finished.append(range(clip.next_window, finish))
        schedule.partial.append(shown)
        schedule.num_frames.append(total)
        schedule.num_real.append(real)
        schedule.next_window.append(finish)
        schedule.first.append(first)
    return schedule
