"""A FAVOR model that watches live, and the page's live tab without a browser."""

import gc
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avfusion import InvalidValueError
from avfusion.media import load_media, open_live
from avfusion.models import LiveSession
from examples.favor.answering import Answerer, Decoding
from examples.favor.app import build
from examples.favor.browser_stream import BrowserStream
from examples.favor.live import answer_options, live_model, live_session, media_options
from examples.favor.live_tab import BOTH, FILE, MICROPHONE, Live, reply
from examples.favor.loading import load
from examples.favor.presets import PRESETS
from examples.favor.tiny import tiny
from tests.examples.favor.media import clip


def answerer_of(preset: str = "favor-vicuna-7b") -> Answerer:
    model, processor = tiny(preset)
    return Answerer(model=model, processor=processor, decoding=Decoding(max_new_tokens=8, num_beams=1))


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    return answerer_of()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("media")
    return clip(folder / "clip.mp4", seconds=5.0)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_watches(preset: str, video: str) -> None:
    answerer = answerer_of(preset)
    session = live_session(answerer)
    with open_live(video, realtime=False, **media_options(answerer.processor)) as live:
        for chunk in live:
            watermark = {
                name: chunk.watermark["visual" if name == "visual" else "audio"] for name in session.model.encoders
            }
            session.watch(chunk.video, chunk.waveform, watermark=watermark, ended=chunk.ended)
    assert session.kept.spans[0].tolist() == [[0.0, 2.0], [2.0, 4.0], [4.0, 5.0]]
    pieces = list(session.ask("what?", **answer_options(answerer)))
    assert "".join(pieces) == session.answer("what?", **answer_options(answerer))


def test_the_eye_sees_what_the_towers_see(answerer: Answerer, video: str) -> None:
    media = load_media(video, **media_options(answerer.processor))
    frames = live_model(answerer.model, answerer.processor).visual_encoder(media.video)
    inputs = answerer.inputs([[{"role": "user", "content": [{"type": "video", "video": media}]}]])
    own = answerer.model.encode(pixel_values_videos=inputs["pixel_values_videos"])
    assert torch.allclose(frames.tokens, own["visual_features"], atol=1e-6)
    assert torch.equal(frames.spans, media.video.spans)
    none = media.video._replace(mask=torch.zeros_like(media.video.mask))
    assert not live_model(answerer.model, answerer.processor).visual_encoder(none).mask.any()


def test_what_cannot_stream_is_refused_by_name() -> None:
    model, processor = load("tiny", options={"causal_direction": "reversed"})
    with pytest.raises(InvalidValueError, match="reversed"):
        live_session(Answerer(model=model, processor=processor))
    model, processor = load("tiny", options={"fusion": "separate"})
    with pytest.raises(InvalidValueError, match=r"fusion.*'separate'"):
        live_session(Answerer(model=model, processor=processor))


def test_what_a_browser_hands_over_comes_at_its_time() -> None:
    now = [100.0]
    stream = BrowserStream(size=(24, 32), picture=True, sound=True, clock=lambda: now[0])
    tone = (8000 * np.sin(np.arange(48000) * 0.05)).astype(np.int16)

    def hand_over() -> None:
        for step in range(12):  # three seconds; the sound of 48 kHz, stereo
            now[0] += 0.25
            stream.show(np.full((48, 64, 3), 20 * step, np.uint8))
            part = tone[(step % 4) * 12000 :][:12000]
            stream.sound(48000, np.stack([part, part], -1))
        stream.end()

    thread = threading.Thread(target=hand_over)
    thread.start()
    with open_live(stream.reading, **stream.options, realtime=False, frame_rate=4.0) as live:
        chunks = [*live]
    thread.join()
    stream.close()
    spans = torch.cat([chunk.video.spans[0] for chunk in chunks if chunk.video is not None])
    levels = torch.cat([chunk.video.pixels[0].float().mean((1, 2, 3)) for chunk in chunks if chunk.video is not None])
    # The first picture came a quarter of a second after the sound in its lump began.
    assert spans[:12, 0].tolist() == [0.25 * step for step in range(1, 13)]
    assert levels[:12].round().tolist() == [20 * step for step in range(12)]
    samples = torch.cat([chunk.waveform.samples[0] for chunk in chunks if chunk.waveform is not None])
    assert samples.shape[0] == pytest.approx(48000, abs=20)
    assert samples.abs().max() == pytest.approx(8000 / 32768, rel=0.02)


@pytest.fixture
def live(answerer: Answerer) -> Iterator[Live]:
    live = Live(answerer)
    yield live
    live.stop()


def test_a_file_is_watched_and_asked_about_in_the_tab(live: Live, answerer: Answerer, video: str) -> None:
    assert live.status() == "Nothing is being watched."
    live.start(FILE, video)
    steps = list(reply(live, "what?", []))
    texts = [said[-1]["content"] for _, said, _ in steps if said and said[-1]["role"] == "assistant"]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    live.stop()
    assert "ended" in live.status() or "Waiting" in live.status()
    *_, (_, longer, _) = reply(live, "and now?", steps[-1][1])
    assert [turn["role"] for turn in longer] == ["user", "assistant"] * 2


def test_a_camera_and_a_microphone_are_watched_in_the_tab(live: Live) -> None:
    seen = threading.Event()
    live._tell = lambda one: (Live._tell(live, one), seen.set() if one.report.end >= 0.5 else None)
    feeding = threading.Event()

    def feed() -> None:
        while not feeding.wait(0.05):
            live.show(np.zeros((48, 64, 3), np.uint8))
            live.sound((16000, np.zeros(800, np.int16)))

    live.start(BOTH, None)
    assert "Waiting" in live.status()
    thread = threading.Thread(target=feed)
    thread.start()
    seen.wait()
    assert "watching" in live.status()
    feeding.set()
    thread.join()
    live.stop()
    assert "ended" in live.status()


def test_a_camera_that_never_comes_is_left_at_once(live: Live) -> None:
    live.start(BOTH, None)
    live.stop()
    assert "Waiting" in live.status()
    assert not live.watcher.is_watching


@pytest.mark.parametrize(
    ("kind", "path", "message"), [(FILE, None, "file: must be chosen"), (FILE, "no.mp4", "no.mp4: does not exist")]
)
def test_a_problem_is_told_and_nothing_is_watched(live: Live, kind: str, path: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        live.start(kind, path)
    assert live.status() == "Nothing is being watched."
    *_, (box, said, problem) = reply(live, "what?", [])
    assert (box, said) == ("what?", [])
    assert "must have been started" in problem.value


def test_nothing_is_asked_of_nothing(live: Live) -> None:
    assert [step[2].value for step in reply(live, " ", [])] == ["Ask something first."]
    assert [step[2].value for step in reply(None, "what?", [])] == ["Start first."]


def test_what_breaks_off_is_told(live: Live, video: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveSession, "watch", lambda *given, **named: (_ for _ in ()).throw(RuntimeError("planted")))
    live.start(FILE, video)
    live.watcher._thread.join()
    assert live.status() == "**It broke off:** planted"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed:ResourceWarning")
def test_the_page_has_the_tab(answerer: Answerer) -> None:
    config = build(answerer).get_config_file()["components"]
    gc.collect()  # Gradio leaves event loops to the garbage collector, lest other tests be blamed
    assert {"Camera", "Microphone", "File"} <= {block.get("props", {}).get("label") for block in config}
    assert MICROPHONE in str([block["props"].get("choices") for block in config if block["type"] == "radio"])
