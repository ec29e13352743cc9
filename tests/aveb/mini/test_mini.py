"""The miniature: the same bytes for a seed, and media that hold what the records say."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avfusion import InvalidValueError
from avfusion.aveb import TASKS, Record, read_records
from avfusion.aveb.__main__ import main
from avfusion.aveb.mini import LEVELS, MAKERS, Oracle, generate, judge
from avfusion.aveb.mini.card import blind_chance
from avfusion.aveb.mini.vocabulary import COLOURS, FRAME_RATE
from avfusion.aveb.runner import find_data, run_task, score_answers
from avfusion.media import load_media

ITEMS = 16
PITCHES = {"beep": 880.0, "hum": 160.0}  # Hz, within 6 %
Truth = dict[str, Any]


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("mini"), items={"test": ITEMS, "train": 4}, difficulty="medium")


def items(mini: Path, task: str) -> list[tuple[Record, Truth]]:
    truths = {truth["id"]: truth for truth in map(json.loads, (mini / "test" / "truth.jsonl").read_text().splitlines())}
    return [(record, truths[record.id]) for record in read_records(task, mini / "test" / f"{task}.jsonl")]


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_every_byte_is_the_seed_s_however_many_workers(tmp_path: Path) -> None:
    given: dict[str, Any] = {"items": {"train": 2, "test": 27}, "tasks": ("asr", "avsr", "vqa"), "difficulty": "hard"}
    one = digest(generate(tmp_path / "one", **given))
    assert digest(generate(tmp_path / "two", **given, workers=2)) == one
    other = digest(generate(tmp_path / "other", **given, seed=1))
    assert {*other} == {*one}
    assert [name for name in one if "media" in name and one[name] == other[name]] == []


KILLED = """
import sys
from avfusion.aveb.mini import generate
if __name__ == "__main__":
    print("begins", flush=True)
    generate(sys.argv[1], items={"test": 27}, tasks=("asr", "avm"), workers=2)
"""


def test_a_generation_that_is_killed_looks_like_none_and_the_next_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    out, part = tmp_path / "set", tmp_path / ".set.part"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, str(tmp_path / "killed.py"), str(out)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not any(part.glob("test/media/*")):
            time.sleep(0.01)
        with pytest.raises(InvalidValueError, match=f"in use by process {process.pid}"):
            generate(out, items={"test": 1}, tasks=("asr",))
        process.kill()
    assert any(part.glob("test/media/*"))
    with pytest.raises(InvalidValueError, match="data: must be a folder"):
        find_data([str(out / "test")])
    generate(out, items={"test": 1}, tasks=("asr",))
    assert digest(out) == digest(generate(tmp_path / "other", items={"test": 1}, tasks=("asr",)))
    assert not part.exists()


def test_splits_and_tasks_hold_different_items(mini: Path) -> None:
    hashes = digest(mini)
    media = [value for name, value in hashes.items() if "media" in name]
    assert len(set(media)) == len(media)


def test_the_eleven_tasks_are_there(mini: Path) -> None:
    assert [*MAKERS] == [*TASKS][:11]
    for task in MAKERS:
        assert len(read_records(task, mini / "test" / f"{task}.jsonl", check_files=True)) == ITEMS


@pytest.mark.parametrize("task", MAKERS)
def test_the_oracle_gets_all_and_a_constant_answer_does_not(mini: Path, task: str, tmp_path: Path) -> None:
    records = read_records(task, mini / "test" / f"{task}.jsonl")
    answers = run_task(Oracle(mini / "test"), records, tmp_path)
    metric = {"spider": "cider"}.get(TASKS[task].metric, TASKS[task].metric)
    best = score_answers(answers, judge=judge, metric=metric).scores[metric]
    if metric != "cider":  # which has no fixed ceiling
        assert best.value == (0.0 if metric == "wer" else 1.0)
    constant = blind_chance(records)
    assert constant > 70 if metric == "wer" else constant < 65 or (metric == "cider" and constant < 60 * best.value)


def test_the_card_says_what_is_there(mini: Path) -> None:
    card = (mini / "README.md").read_text()
    for task in MAKERS:
        assert TASKS[task].title in card
    assert f"test: {ITEMS} items a task; train: 4 items a task" in card


def sound(path: Path | None) -> tuple[np.ndarray[Any, Any], int]:
    assert path is not None
    waveform = load_media(path, sample_rate=22050, video=False).waveform
    assert waveform is not None
    return waveform.samples[0].numpy(), 22050


def loudness(samples: np.ndarray[Any, Any], start: float, end: float) -> float:
    part = samples[round(start * 22050) : round(end * 22050)]
    return float(np.sqrt(np.mean(part**2)))


def film(record: Record) -> torch.Tensor:
    assert record.video is not None
    video = load_media(record.video, frame_rate=None, audio=False).video
    assert video is not None
    return video.pixels[0]


def colour_of(picture: torch.Tensor) -> str | None:
    """The colour that covers most of what is not grey."""
    pixels = picture.flatten(1).T.float()
    found = [
        int(((pixels - torch.tensor(ink, dtype=torch.float32)).abs().amax(1) < 60).sum()) for ink in COLOURS.values()
    ]
    return [*COLOURS][int(np.argmax(found))] if max(found) > 20 else None


def test_words_are_where_they_are_said(mini: Path) -> None:
    for record, truth in items(mini, "asr"):
        samples, _ = sound(record.audio)
        assert record.references == (" ".join(truth["words"]),)
        for (start, end), following in zip(truth["times"], truth["times"][1:], strict=False):
            assert loudness(samples, start, end) > 3 * loudness(samples, end + 0.02, following[0] - 0.02)


@pytest.mark.parametrize("name", PITCHES)
def test_a_tone_has_its_frequency(mini: Path, name: str) -> None:
    hertz = PITCHES[name]
    heard = 0
    for record, truth in items(mini, "ac"):
        for place, found in enumerate(truth["sounds"]):
            if found == name:
                samples, rate = sound(record.audio)
                part = samples[round((0.3 + 1.3 * place) * rate) : round((1.1 + 1.3 * place) * rate)]
                peak = np.abs(np.fft.rfft(part * np.hanning(len(part)))).argmax() * rate / len(part)
                assert 0.92 < peak / hertz < 1.08
                heard += 1
    assert heard


def test_things_have_their_colours_at_their_places(mini: Path) -> None:
    for task in ("ic", "vqa", "isqa"):
        for record, truth in items(mini, task):
            media = load_media(record.image or "", audio=False)
            assert media.video is not None
            for colour, _, x, y, _ in truth["things"]:
                pixel = media.video.pixels[0, 0, :, round(y), round(x)].tolist()
                assert pixel == list(COLOURS[colour])


def test_scenes_come_in_their_order(mini: Path) -> None:
    for record, truth in items(mini, "video_qa"):
        pictures = film(record)
        step = round(1.5 * FRAME_RATE)
        seen = [colour_of(pictures[place * step + step // 2]) for place in range(len(truth["scenes"]))]
        assert seen == [name.split()[0] for name in truth["scenes"]]
        asked = truth["scenes"].index(truth["asked"])
        assert record.references == (truth["scenes"][asked + (1 if truth["after"] else -1)],)


def test_a_hidden_word_is_on_screen_while_it_is_said_and_not_to_be_heard(mini: Path) -> None:
    for record, truth in items(mini, "avsr"):
        pictures = film(record)
        samples, _ = sound(record.audio)
        for place, (start, end) in enumerate(truth["times"]):
            assert is_noise(samples, start, end) == (place in truth["hidden"])
            seen = colour_of(pictures[round((start + end) / 2 * FRAME_RATE - 0.5)])
            assert seen == truth["colours"][place]
            if place in truth["hidden"]:
                assert seen == truth["words"][place]
        assert truth["hidden"]


def test_the_source_pulses_with_the_sound_and_nothing_else_does(mini: Path) -> None:
    for record, truth in items(mini, "avssd"):
        samples, _ = sound(record.audio)
        envelope = np.array(
            [
                loudness(samples, n / FRAME_RATE + 0.02, (n + 1) / FRAME_RATE - 0.02)
                for n in range(round(4 * FRAME_RATE))
            ]
        )
        pictures = film(record).float()
        sizes = [
            np.array([colour_area(picture, colour) for picture in pictures]) for colour, _, _, _, _ in truth["things"]
        ]
        together = [float(np.corrcoef(size, envelope)[0, 1]) for size in sizes]
        assert int(np.argmax(together)) == truth["source"]
        assert sorted(together)[-2] < 0.5 < max(together)
        colour, shape = truth["things"][truth["source"]][:2]
        assert record.references == (f"{colour} {shape}",)


def is_noise(samples: np.ndarray[Any, Any], start: float, end: float) -> bool:
    """Whether a sound is as loud at all frequencies: a word is not."""
    power = np.abs(np.fft.rfft(samples[round(start * 22050) : round(end * 22050)])) ** 2
    band = power[len(power) // 50 : len(power) // 2]
    return bool(np.exp(np.log(band + 1e-9).mean()) / band.mean() > 0.3)


def colour_area(picture: torch.Tensor, colour: str) -> int:
    ink = torch.tensor(COLOURS[colour])[:, None, None]
    return int(((picture - ink).abs().amax(0) < 70).sum())


def test_sound_and_picture_match_where_the_record_says_yes(mini: Path) -> None:
    for record, truth in items(mini, "avm"):
        samples, _ = sound(record.audio)
        envelope = [loudness(samples, n / FRAME_RATE + 0.02, (n + 1) / FRAME_RATE - 0.02) for n in range(32)]
        pictures = film(record).float()
        size = [float((picture.std(0) > 15).sum() + (picture.mean(0) > 100).sum()) for picture in pictures]
        together = np.corrcoef(size, envelope)[0, 1]
        assert (together > 0.4) == (record.references == ("Yes",)) == truth["match"]


def test_answers_are_balanced() -> None:
    drawn = {
        task: [MAKERS[task](np.random.default_rng(n), LEVELS["easy"], {}).record for n in range(200)]
        for task in ("video_qa", "avm")
    }
    places = Counter(record["answer_index"] for record in drawn["video_qa"])
    assert len(places) == 5
    assert min(places.values()) > 20
    assert min(Counter(record["references"] for record in drawn["avm"]).values()) > 70


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["mini", "--out", str(tmp_path / "m"), "--train", "0", "--validation", "0", "--test", "2", "--workers", "1"]
    assert main([*given, "--tasks", "ocr"]) == 0
    assert "2 items" in capsys.readouterr().out
    assert main([*given, "--tasks", "ocr"]) == 2
    assert "out: must be an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"difficulty": "mean"}, "difficulty: must be one of easy, medium, hard, found 'mean'"),
        ({"tasks": ("sing",)}, "tasks: must be among"),
        ({"items": {"test": 0}}, "items: must be at least 1"),
        ({"items": {"exam": 3}}, "items: must be at least 1 for splits among"),
        ({"workers": 0}, "workers: must be at least 1, found 0"),
    ],
)
def test_what_cannot_be_made_is_told(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        generate(tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()
