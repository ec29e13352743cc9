"""Records hold what fits together, and candidates are shuffled evenly and always alike."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avfusion.aveb import Record, Records, shuffled
from avfusion.errors import InvalidTypeError, InvalidValueError

CHOICE: dict[str, Any] = {
    "id": "v#1",
    "task": "video_qa",
    "video": Path("v.mp4"),
    "question": "which one",
    "candidates": ("a", "b", "c", "d", "e"),
    "answer_index": 2,
    "references": ("c",),
}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"id": ""}, InvalidValueError, "id: must not be blank"),
        ({"id": 3}, InvalidTypeError, "id: must be text"),
        ({"references": ()}, InvalidValueError, "references: must not be empty"),
        ({"references": "c"}, InvalidTypeError, "references: must be text, several as a tuple, found 'c'"),
        ({"references": ("d",)}, InvalidValueError, "references: must be the candidate at answer_index alone, 'c'"),
        ({"video": "v.mp4"}, InvalidTypeError, "video: must be a Path or None, found 'v.mp4'"),
        ({"video": None}, InvalidValueError, "media: must have at least one of video, audio, image"),
        ({"candidates": ("c",), "answer_index": 0}, InvalidValueError, "candidates: must be at least two"),
        ({"candidates": None}, InvalidValueError, "answer_index: must be None without candidates, found 2"),
        ({"answer_index": 5}, InvalidValueError, "answer_index: must be from 0 to 4, found 5"),
        ({"answer_index": True}, InvalidValueError, "answer_index: must be from 0 to 4, found True"),
        ({"history": (("q", "a", "x"),)}, InvalidValueError, "history: must hold pairs"),
        ({"history": [("q", "a")]}, InvalidTypeError, "history: must be a tuple of pairs"),
        ({"span": (3.0, 3.0)}, InvalidValueError, "span: must be 0 <= start < end < inf"),
        ({"span": (0.0, float("inf"))}, InvalidValueError, "span: must be"),
        ({"span": (float("nan"), 1.0)}, InvalidValueError, "span: must be"),
        ({"span": ("0", "1")}, InvalidTypeError, "span: must be two numbers"),
        ({"span": 5}, InvalidTypeError, "span: must be two numbers"),
        ({"needs_cut": True}, InvalidValueError, "needs_cut: needs a span"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], error: type[Exception], words: str) -> None:
    Record(**CHOICE)
    with pytest.raises(error) as caught:
        Record(**{**CHOICE, **change})
    assert words in str(caught.value)


def test_the_right_candidate_lands_everywhere_equally_often() -> None:
    count = 5000
    places = Counter(shuffled(Record(**{**CHOICE, "id": f"item{i}"})).answer_index for i in range(count))
    # Chi-squared of 4 degrees of freedom exceeds 18.5 once in a thousand: the ids are fixed, so it never changes.
    assert sum((places[place] - count / 5) ** 2 / (count / 5) for place in range(5)) < 18.5


def test_a_shuffle_keeps_the_candidates_and_the_right_one() -> None:
    record = Record(**CHOICE)
    for seed in range(20):
        other = shuffled(record, seed)
        assert sorted(other.candidates or ()) == sorted(CHOICE["candidates"])
        assert other.references == ("c",)
        assert replace(other, candidates=record.candidates, answer_index=2) == record
    assert len({shuffled(record, seed).candidates for seed in range(20)}) > 10
    assert len({shuffled(replace(record, id=str(i))).candidates for i in range(20)}) > 10


def test_a_shuffle_is_the_same_in_every_process() -> None:
    code = (
        "from pathlib import Path; from avfusion.aveb import Record, shuffled;"
        f"print(shuffled(Record(**{CHOICE!r}), 7).candidates)".replace("PosixPath", "Path")
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(shuffled(Record(**CHOICE), 7).candidates) == "('d', 'b', 'e', 'a', 'c')"


def test_repeated_candidates_keep_their_right_one() -> None:
    record = Record(**{**CHOICE, "candidates": ("c", "b", "c", "c", "e")})
    other = shuffled(record, 1)
    assert other.candidates is not None
    assert other.answer_index is not None
    assert other.candidates[other.answer_index] == "c"


def test_a_record_without_candidates_is_left_alone() -> None:
    record = Record(id="1", task="vqa", image=Path("i.jpg"), references=("no",))
    assert shuffled(record, 3) is record


def test_records_are_a_sequence() -> None:
    record = Record(**CHOICE, source=Path("f.json"), index=4)
    records = Records((record, record))
    assert (len(records), records[0], records[:1], list(records)) == (2, record, (record,), [record, record])
    assert record.place == "f.json[4]"
