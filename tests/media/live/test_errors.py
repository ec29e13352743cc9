"""Whatever goes wrong in a source's thread reaches whoever takes the chunks."""

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from avfusion.media import open_live
from avfusion.media._audio import AudioCollector
from avfusion.media._frames import FrameCollector
from avfusion.media._timeline import Timeline
from avfusion.media._truncation import Stated
from avfusion.media.live import opening, reader
from tests.media.live.helpers import clip

drawn = settings(
    deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
PLACES: list[tuple[Any, str]] = [
    *((FrameCollector, name) for name in ("add", "take", "close", "still")),
    *((AudioCollector, name) for name in ("add", "take", "close")),
    (Timeline, "fit"),
    *((Stated, name) for name in ("see", "check")),
    *(
        (reader, name)
        for name in ("decode", "packets_of", "first_frames", "beginning", "bytes_are_missing", "is_image")
    ),
    *((reader, name) for name in ("read_still", "read_animation", "Piece")),
    (opening.CorrectedFile, "read"),
    (opening.MediaFile, "close"),
]
ERRORS = (RuntimeError, MemoryError, KeyError, RecursionError, AssertionError, SystemExit, KeyboardInterrupt)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("errors")
    frames = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (10, 200)]
    frames[0].save(folder / "still.png")
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:], duration=300)
    return [
        clip(folder / "film.mp4", seconds=1.0),
        clip(folder / "sound.mkv", pixels=None, seconds=0.5),
        folder / "still.png",
        folder / "moving.webp",
    ]


def failing(real: Callable[..., Any], error: BaseException, nth: int, *, closes: bool) -> Callable[..., Any]:
    calls = itertools.count()

    def call(*args: Any, **options: Any) -> Any:
        mine = threading.current_thread().name == "avfusion-live"
        number = next(calls) if mine else -1
        if closes:  # nothing is to stay open
            real(*args, **options)
        if number == nth:
            raise error
        return None if closes else real(*args, **options)

    return call


@drawn
@given(
    which=st.integers(0, 3),
    place=st.sampled_from(PLACES),
    error=st.sampled_from(ERRORS),
    nth=st.integers(0, 3) | st.integers(0, 40),
)
def test_an_error_anywhere_ends_the_chunks_with_it(
    sources: list[Path], which: int, place: tuple[Any, str], error: type[BaseException], nth: int
) -> None:
    raised, found = error("drawn"), []
    with pytest.MonkeyPatch.context() as patch:
        with open_live(sources[which], realtime=False, sleep=lambda seconds: None) as live:
            live.close()  # it opens; what follows is of the second
        reached = threading.Event()
        real = getattr(*place)
        call = failing(real, raised, nth, closes=place == (opening.MediaFile, "close"))

        def watched(*args: Any, **options: Any) -> Any:
            try:
                return call(*args, **options)
            except BaseException as caught:
                if caught is raised:
                    reached.set()
                raise

        patch.setattr(*place, watched)

        def take() -> None:
            try:
                with open_live(sources[which], realtime=False) as live:
                    for _ in live:
                        pass
            except BaseException as caught:  # noqa: BLE001  # whatever it is
                found.append(caught)

        taker = threading.Thread(target=take, daemon=True)
        taker.start()
        taker.join(60)
        assert not taker.is_alive(), "chunks were waited for without end"
    if reached.is_set():
        assert found == [raised]
    else:
        assert found == []
