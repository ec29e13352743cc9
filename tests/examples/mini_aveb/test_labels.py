"""What the towers are taught about a file is what can be found in it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from avfusion.aveb.mini import MAKERS, generate
from avfusion.aveb.mini.vocabulary import COLOURS, SPOKEN
from examples.mini_aveb.data import media_of, read_split
from examples.mini_aveb.labels import HEARD, SEEN, THINGS, heard, seen
from examples.mini_aveb.towers import AUDIO_RATE

SAMPLE_RATE = 16000


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("mini") / "data", items={"test": 3}, seed=5) / "test"


def _ink(picture: Tensor, colour: str) -> Tensor:
    """``(height, width)`` bool: pixels of about that colour."""
    wanted = torch.tensor(COLOURS[colour], dtype=torch.float32)[:, None, None]
    return (picture.float() - wanted).abs().amax(0) < 60


def test_seen_agrees_with_the_pixels(split: Path) -> None:
    pairs, count = read_split(split), len(THINGS)
    checked = {"shown": 0, "large": 0}
    for (record, truth), media in zip(pairs, media_of(pairs), strict=True):
        if media.video is None or record.task == "ocr":
            continue
        pixels = media.video.pixels[0]
        target = seen(truth, len(pixels)).bool()
        assert target.shape == (len(pixels), SEEN)
        left, right, large = target[:, : 3 * count].unflatten(1, (3, count)).unbind(1)
        sizes: dict[str, dict[bool, list[int]]] = {}
        for frame, picture in enumerate(pixels):
            told = {THINGS[place].split()[0] for place in (left | right)[frame].nonzero().flatten().tolist()}
            found = {colour for colour in COLOURS if _ink(picture, colour).sum() > 25}
            assert found == told, (record.id, frame)
            checked["shown"] += len(told)
            for place in (left ^ right)[frame].nonzero().flatten().tolist():  # in one half only
                columns = _ink(picture, THINGS[place].split()[0]).any(0).nonzero().float()
                assert (columns.mean() < 32) == left[frame, place], (record.id, frame)
            if "beats" in truth or "seen" in truth:
                for colour in told:
                    names = [place for place, name in enumerate(THINGS) if name.startswith(colour)]
                    big = bool(large[frame, names].any())
                    sizes.setdefault(colour, {}).setdefault(big, []).append(int(_ink(picture, colour).sum()))
        for by_size in sizes.values():
            assert min(by_size[True]) > max(by_size[False]), record.id
            checked["large"] += len(by_size[True])
    assert min(checked.values()) > 30


def test_written_words_are_told(split: Path) -> None:
    for record, truth in read_split(split, ["ocr"]):
        [row] = seen(truth, 1)
        assert row.nonzero().flatten().tolist() == [3 * len(THINGS) + SPOKEN.index(record.references[0])]


def test_heard_agrees_with_the_sound(split: Path) -> None:
    pairs = read_split(split)
    something = 0
    for (record, truth), media in zip(pairs, media_of(pairs), strict=True):
        if media.waveform is None:
            continue
        samples = media.waveform.samples[0]
        steps = len(samples) * int(AUDIO_RATE) // SAMPLE_RATE
        loud = samples[: steps * 320].unflatten(0, (steps, 320)).square().mean(1).sqrt()
        told = heard(truth, steps)
        if record.task in ("ac", "avsd", "avssd", "avm"):  # of one loudness; clicks and bells have silence in them
            assert loud[told == 0].quantile(0.9) < 0.02, record.id
            assert loud[told > 0].mean() > 0.03, record.id
        else:
            assert loud[told > 0].mean() > 3 * loud[told == 0].mean(), record.id
        something += int((told > 0).sum())
    assert something > 500


def test_what_is_heard_is_named_in_order(split: Path) -> None:
    for record, truth in read_split(split, ["asr", "isqa", "ac"]):
        told = heard(truth, 400)
        names = [HEARD[number] for number in torch.unique_consecutive(told[told > 0]).tolist()]
        wanted = truth["words"] if "words" in truth else truth["sounds"]
        # a word said twice in a row has silence in between
        assert names == [name for place, name in enumerate(wanted) if not place or name != wanted[place - 1]], record.id


def test_hidden_words_are_told_as_noise(split: Path) -> None:
    for _, truth in read_split(split, ["avsr"]):
        told = heard(truth, 400)
        for place in truth["hidden"]:
            start, end = truth["times"][place]
            assert told[round((start + end) / 2 * AUDIO_RATE)] == HEARD.index("hiss")


def test_every_task_is_labelled(split: Path) -> None:
    labelled = set()
    for record, truth in read_split(split):
        if seen(truth, 40).any() or heard(truth, 200).any():
            labelled.add(record.task)
    assert labelled == {*MAKERS}
