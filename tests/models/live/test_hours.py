"""Half a day of watching: what is kept stays as large, and so does the process."""

import gc
import resource
from pathlib import Path

import torch

from avfusion.models import KeepNewest, LiveSession
from tests.models.live import tiny

FRAMES, CHUNK, EVERY = 100_000, 1000, 10
STATM = Path("/proc/self/statm")


def process_mib() -> float:
    """What the process holds in memory; where the system does not say, the most that it ever held."""
    if STATM.exists():
        return int(STATM.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def held(session: LiveSession) -> tuple[int, int, int]:
    """Numbers in the state, positions in the cache, and tensors that are alive at all."""
    gc.collect()
    numbers = sum(value.numel() for value in session.snapshot().values())
    return numbers, session._prefilled.length, sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())


def test_nothing_grows() -> None:
    session = tiny.session(tiny.model().float(), retention=KeepNewest(250.0, slack=0.2))
    clip = tiny.Clip(CHUNK)
    pixels, sound = clip.pixels.float(), clip.sound.float()
    found, sizes = [], []
    for step in range(FRAMES // CHUNK):
        start = step * CHUNK / 2
        session.watch(
            tiny.Video.from_rate(pixels, 2.0, start=start), tiny.Waveform.from_samples(sound, tiny.RATE, start=start)
        )
        if step % EVERY == EVERY - 1:
            session.answer("e", max_new_tokens=2)
            found.append(held(session))
            sizes.append(process_mib())
    assert int(session.kept.finished) == (FRAMES - 2) // 2  # the last frame waits for its sound
    assert len(set(found)) == 1
    assert max(sizes[2:]) - sizes[1] < 8
