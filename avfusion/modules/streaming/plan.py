"""What a step of the projector does with each clip's windows, in whole numbers, before anything is computed."""

from collections.abc import Sequence
from typing import NamedTuple

from avfusion.functional.windows import num_windows

# Frames that wait to be computed together: on a CPU, linear maps of one frame's 32 tokens run at two thirds of the
# speed of those of eight. The frames that complete a window never wait, and find nothing waiting.
_TOGETHER = 8


class Clip(NamedTuple):
    """Where a clip stands before a step.

    Attributes:
        num_frames: frames so far.
        num_real: the same up to the last one in which something is real.
        next_window: the first window that is not finished.
        absorbed: frames that the window encoder has of each open window, by the window's slot.
        new: frames of this step.
        new_real: the same up to the last one in which something is real.
        ends: whether the clip is over.
    """

    num_frames: int
    num_real: int
    next_window: int
    absorbed: Sequence[int]
    new: int
    new_real: int
    ends: bool


class Growth(NamedTuple):
    """A window that the window encoder has seen a part of, or shall.

    Attributes:
        clip: its clip.
        window: its number in the clip.
        slot: where its memory is, among the clip's.
        absorbed: frames that the encoder has.
        first: number in the clip of the first frame to append.
        new: frames to append.
        read: whether its states are asked for.
        finished: whether it is complete, and its memory free again.
    """

    clip: int
    window: int
    slot: int
    absorbed: int
    first: int
    new: int
    read: bool
    finished: bool


class Plan(NamedTuple):
    """A step.

    Attributes:
        growths: windows to append to or to read.
        fresh: for each clip, the windows to compute whole: the first one's number, and how many.
        finished: windows of each clip that this step finishes, from its ``next_window`` on.
        unfinished: each clip's window to show as it stands; ``None`` for none.
        num_frames: of each clip after the step, and so are ``num_real``, ``next_window`` and ``first_kept``.
        num_real: the same up to the last one in which something is real.
        next_window: the first window that is not finished.
        first_kept: the first frame that waits.
    """

    growths: list[Growth]
    fresh: list[tuple[int, int]]
    finished: list[int]
    unfinished: list[int | None]
    num_frames: list[int]
    num_real: list[int]
    next_window: list[int]
    first_kept: list[int]


def make_plan(clips: Sequence[Clip], window_frames: int, stride_frames: int, *, grows: bool, unfinished: bool) -> Plan:
    """Decides what is computed.

    A window is finished when all its frames have come and it holds something real that the window before it does not,
    or its clip is over: those are the windows that the clip, if given at once, has.

    Args:
        clips: where they stand.
        window_frames: frames a window.
        stride_frames: frames from one window's start to the next's.
        grows: whether the window encoder takes windows frame by frame.
        unfinished: whether each clip's last window is asked for as it stands.
    """
    plan = Plan([], [], [], [], [], [], [], [])
    for row, clip in enumerate(clips):
        total = clip.num_frames + clip.new
        real = clip.num_frames + clip.new_real if clip.new_real else clip.num_real
        due = num_windows(real, window_frames, stride_frames)
        finish = clip.next_window
        while finish < due and (clip.ends or total >= finish * stride_frames + window_frames):
            finish += 1
        shown = finish if unfinished and finish < due else None
        kept, fresh = real, 0
        opened = -(-real // stride_frames)  # windows that begin before the last real frame
        for window in range(clip.next_window, max(opened, finish)):
            start = window * stride_frames
            slot = window % len(clip.absorbed)
            had = clip.absorbed[slot] if grows and window * stride_frames < clip.num_real else 0
            have = max(min(real, start + window_frames) - start, 0)
            done, asked = window < finish, window == shown
            missing = start + window_frames - total
            growth = Growth(row, window, slot, had, start + had, have - had, done or asked, done)
            if (done or asked) and not (had or (grows and asked)):
                fresh += 1
                kept = kept if done else min(kept, start)
            elif growth.read or (grows and growth.new and (missing <= clip.new or growth.new >= _TOGETHER)):
                plan.growths.append(growth)
            elif not done:
                kept = min(kept, start + had)
        first_fresh = finish - fresh if shown is None or grows else finish + 1 - fresh
        plan.fresh.append((first_fresh, fresh))
        plan.finished.append(finish - clip.next_window)
        plan.unfinished.append(shown)
        plan.num_frames.append(total)
        plan.num_real.append(real)
        plan.next_window.append(finish)
        plan.first_kept.append(kept)
    return plan
