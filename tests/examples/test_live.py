"""The live example: a model watches files and streams, and is asked while it does."""

import io
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from avfusion.media import load_media, open_live
from avfusion.models import LiveSession
from examples.live.__main__ import main, parse
from examples.live.demo import write_film
from examples.live.models import LiveModel, load_live
from examples.live.watching import Seen, Watcher, lines
from examples.tiny_avllm.__main__ import main as train
from examples.tiny_avllm.data import SCENE, TONES

ASKED = "Which colour was on screen during the high tone?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny job, with so few clips and steps that it learns nothing."""
    out = tmp_path_factory.mktemp("run")
    sizes = "--clips 4 --held-out 2 --encoder-steps 2 --connector-steps 2 --steps 2 --no-twin"
    assert train(["--out", str(out), *sizes.split()]) == 0
    return out


@pytest.fixture(scope="module")
def model(folder: Path) -> LiveModel:
    return load_live(parse(["--model", str(folder / "model"), "--source", "x"]))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mkv", seconds=7.0).path


def watched(model: LiveModel, source: Any, **options: Any) -> tuple[LiveSession, list[Seen]]:
    session, seen = model.session(), []
    with open_live(source, **model.media, **options) as live, Watcher(session, live, seen.append) as watcher:
        assert watcher.wait()
    return session, seen


@pytest.mark.parametrize("chunk_seconds", [0.3, 1.0])
def test_what_is_watched_in_chunks_is_the_whole(model: LiveModel, film: Path, chunk_seconds: float) -> None:
    session, seen = watched(model, film, realtime=False, chunk_seconds=chunk_seconds)
    assert [one.ended for one in seen] == [False] * (len(seen) - 1) + [True]
    assert sum(len(one.watched.spans) for one in seen) == 4
    media, whole = load_media(film, **model.media), model.session()
    whole.watch(media.video, media.waveform, ended=True)
    assert torch.allclose(session.kept.embeddings, whole.kept.embeddings, atol=1e-5)
    question = model.asked(ASKED)
    assert session.answer(question, **model.answers) == whole.answer(question, **model.answers)


def test_it_is_asked_while_it_watches(model: LiveModel, film: Path) -> None:
    """The source waits at four seconds, in a thread of its own, until an answer is there."""
    reached, answered = threading.Event(), threading.Event()

    def tell(seen: Seen) -> None:
        if seen.report.end == 4.0:
            reached.set()
            answered.wait()

    session = model.session()
    with open_live(film, realtime=False, **model.media) as live, Watcher(session, live, tell) as watcher:
        reached.wait()
        assert watcher.is_watching
        first = "".join(watcher.ask(model.asked(ASKED), **model.answers))
        answered.set()
        assert watcher.wait()
        last = "".join(watcher.ask(model.asked(ASKED), **model.answers))
    then = model.session()
    with open_live(film, realtime=False, **model.media) as live:
        for chunk in live:
            then.watch(chunk.video, chunk.waveform, watermark=chunk.watermark, ended=chunk.ended)
            if chunk.report.end == 4.0:
                assert then.answer(model.asked(ASKED), **model.answers) == first
    assert then.answer(model.asked(ASKED), **model.answers) == last


def test_what_goes_wrong_while_watching_is_raised(
    model: LiveModel, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiveSession, "watch", lambda *given, **named: (_ for _ in ()).throw(ValueError("planted")))
    with (
        open_live(film, realtime=False, **model.media) as live,
        Watcher(model.session(), live) as watcher,
        pytest.raises(ValueError, match="planted"),
    ):
        watcher.wait()


@pytest.mark.parametrize("kept", ["both", "sound", "silent"])
def test_a_stream_that_is_not_there_is_not_waited_for(model: LiveModel, film: Path, tmp_path: Path, kept: str) -> None:
    session, seen = watched(model, film, realtime=False, video=kept != "sound", audio=kept != "silent")
    assert sum(len(one.watched.spans) for one in seen) == 4
    known = [one.watched.watermark for one in seen]
    assert known[5] >= 1.5  # it goes on before the end
    assert session.answer(model.asked(ASKED), **model.answers) is not None


def run(folder: Path, *arguments: str) -> int:
    return main(["--model", str(folder / "model"), "--fast", *arguments])


def test_a_file_is_watched_and_asked_about(folder: Path, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--source", str(film), "--ask", ASKED) == 0
    told = capsys.readouterr().out
    windows = re.findall(r"window (\S+) to (\S+) s", told)
    assert windows[:3] == [("0.0", "2.0"), ("2.0", "4.0"), ("4.0", "6.0")]
    assert len(windows) == 4
    assert "the end" in told
    assert told.count(f"> {ASKED}") == 1
    assert run(folder, "--source", str(film), "--ask", ASKED, "--every", "2") == 0
    assert capsys.readouterr().out.count(f"> {ASKED}") == 3


def test_a_demo_is_written_and_its_truth_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--source", "demo", "--seconds", "6", "--every", "2") == 0
    told = capsys.readouterr().out
    assert len(re.findall(r"\(truth: \w+\)", told)) == 3  # after 2 and 4 seconds, and at the end
    assert re.search(r"\d of 3 answers are right", told)


def test_questions_are_typed(
    folder: Path, film: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{ASKED}\n\nwhat <av> now?\nand now?\n"))
    assert run(folder, "--source", str(film), "--interactive") == 0
    told = capsys.readouterr().out
    assert re.findall(r"^> (.*)$", told, re.MULTILINE) == [ASKED, "and now?"]
    assert "question: must not hold the placeholder" in told


def test_a_connection_is_watched(folder: Path, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.sendall(film.read_bytes())

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        assert run(folder, "--source", address, "--format", "matroska", "--ask", ASKED) == 0
        thread.join()
    told = capsys.readouterr().out
    assert "window 4.0 to 6.0 s" in told
    assert f"> {ASKED}" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "none.mp4"], "none.mp4: does not exist"),
        (["--source", "demo", "--option", "size"], "option: must be NAME=VALUE, found 'size'"),
        (["--source", "demo", "--chunk", "0"], "chunk_seconds: must be a positive"),
    ],
)
def test_a_problem_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(folder, *arguments) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert len(told.err.strip().splitlines()) == 1


def test_lag_skips_and_faults_are_told(model: LiveModel, film: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.mkv"
    short.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    told: list[str] = []
    session = model.session()
    with open_live(short, **model.media, clock=lambda: now[0], sleep=sleep) as live:
        for chunk in live:
            watched = session.watch(chunk.video, chunk.waveform, watermark=chunk.watermark, ended=chunk.ended)
            told += lines(Seen(chunk.report._replace(lag=1.2), watched, chunk.ended))
            now[0] += 2.7 if chunk.report.end == 0.5 else 0.0
    text = "\n".join(told)
    assert "skipped 4 pictures and 2.0 s of sound; now 2 pictures a second" in text
    assert re.search(r"window \S+ to \S+ s, 1\.2 s behind", text)
    assert re.search(r"died: .*is cut short", text)


def test_a_film_is_what_it_is_said_to_be(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", seconds=12.0, seed=3)
    assert load_media(film.path).duration == pytest.approx(12.0, abs=0.1)
    tones = [scene.tone for scene in film.scenes]
    assert all(len(set(tones[place : place + 8])) == len(tones[place : place + 8]) for place in range(len(tones)))
    for now in (0.5, 4.0, 12.0):
        question, truth = film.question(now, 0)
        scene = film.scenes[round(now / SCENE) - 1]
        assert f" {scene.tone} tone" in question
        assert truth == scene.colour
        assert scene.tone in TONES
