"""Whatever is wrong with a file, the error is the library's and names the file and the record."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfusion.aveb import RecordError, read_records
from avfusion.errors import InvalidTypeError, InvalidValueError
from tests.aveb.published import FOLDER, MANIFESTS

RECORDS = {task: json.loads((FOLDER / name).read_text()) for task, name in MANIFESTS.items()}
FIELDS = sorted({field for records in RECORDS.values() for record in records for field in record})

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.just("\ud800\0/..")
values = st.recursive(scalars, lambda v: st.lists(v) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), v))


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, list[Any], int]:
    """Three records of a task, one of them with fields dropped or replaced, or wholly something else."""
    task = draw(st.sampled_from(sorted(RECORDS)))
    records = copy.deepcopy(RECORDS[task][:3])
    place = draw(st.integers(0, 2))
    if draw(st.booleans()):
        for field in draw(st.lists(st.sampled_from(sorted(records[place])), min_size=1, max_size=3)):
            if draw(st.booleans()):
                records[place].pop(field, None)
            else:
                records[place][field] = draw(values)
    else:
        records[place] = draw(values)
    return task, records, place


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken") / "manifest.json"


@given(damaged())
def test_a_damaged_record_is_one_error_with_its_number(file: Path, case: tuple[str, list[Any], int]) -> None:
    task, records, place = case
    file.write_text(json.dumps(records))
    good = [index for index in range(3) if index != place]
    skipping = read_records(task, file, skip_bad=True)
    if not skipping.skipped:  # some damage leaves a record that can be asked
        assert {record.index for record in read_records(task, file)} == {0, 1, 2}
        return
    assert [record.index for record in skipping] == good
    assert [(bad.file, bad.index) for bad in skipping.skipped] == [(file, place)]
    with pytest.raises(RecordError) as caught:
        read_records(task, file)
    assert str(caught.value) == str(skipping.skipped[0])
    assert str(caught.value).startswith(f"{file}[{place}]: ")
    assert len(str(caught.value)) < 1000


@given(st.sampled_from(sorted(MANIFESTS)), st.floats(0, 1))
def test_a_file_that_breaks_off_keeps_what_is_whole(file: Path, task: str, share: float) -> None:
    text = (FOLDER / MANIFESTS[task]).read_text()
    text = text[: 1 + int(share * (len(text) - 2))]
    file.write_text(text)
    with pytest.raises(RecordError, match=re.escape(str(file)) + r"\[\d+\]: not JSON"):
        read_records(task, file)
    skipping = read_records(task, file, skip_bad=True)
    assert [record.index for record in skipping] == list(range(len(skipping)))
    assert [bad.index for bad in skipping.skipped] == [len(skipping)]


@given(st.sampled_from(sorted(MANIFESTS)), st.binary(max_size=40) | st.text().map(lambda text: text.encode()))
def test_anything_at_all_is_one_error(file: Path, task: str, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(InvalidValueError, match=r"manifest\.json"):
        read_records(task, file)


@pytest.mark.parametrize("depth", [50, 500, 900, 5000, 100_000])
def test_depth_is_no_way_out(file: Path, depth: int) -> None:
    good = RECORDS["vqa"][0]
    file.write_text(f"[{json.dumps(good)}, {'[' * depth}{']' * depth}]")
    assert [bad.index for bad in read_records("vqa", file, skip_bad=True).skipped] == [1]
    file.write_text(json.dumps([good])[:-2] + f', "answer": {"[" * depth}{"]" * depth}' + "}]")
    with pytest.raises(RecordError, match=r"\[0\]"):
        read_records("vqa", file)


@pytest.mark.parametrize("number", ["1" + "0" * 5000, "NaN", "Infinity", "true", "null", "{}", "[]"])
def test_what_is_no_answer_is_refused(file: Path, number: str) -> None:
    file.write_text(f'[{{"image": "a.jpg", "question": "q", "answer": {number}}}]')
    with pytest.raises(RecordError, match=re.escape(str(file)) + r"\[0\]: "):
        read_records("vqa", file)


@pytest.mark.parametrize(
    ("task", "change", "words"),
    [
        ("vqa", {"image": "n161313"}, "media: must be a video, sound or image by its ending, found 'n161313'"),
        ("vqa", {"image": 5}, "image: must be the name of a file, or two in a list, found 5"),
        ("vqa", {"image": "a.mp4"}, "media: Questions about images (VQA) needs image, found ['video']"),
        ("vqa", {"question": " "}, "question: must not be blank, found ' '"),
        ("vqa", {"question": None}, "question: must be given, found none"),
        ("vqa", {"answer": ""}, "answer: must not be blank"),
        (
            "vqa",
            {"answer": None},
            "a record must have \"answer\" or \"answers\", found ['fullanswer', 'image', 'question']",
        ),
        ("ic", {"answer": ["a dog", ""]}, "answer: must not be blank, found ''"),
        ("ic", {"answer": []}, "answer: must be a list that is not empty, found []"),
        ("ocr", {"answer": ["", " "]}, "answer: must not be blank"),
        ("avsr", {"image": ["a.mp4"]}, "needs audio, found ['video']"),
        ("avsr", {"image": ["a.mp4", "b.mp4"]}, "image: must have one video track and one audio track"),
        ("avsr", {"image": ["a.mp4", None]}, "image: must be the name of a file, or two in a list"),
        ("avm", {"image": ["a.mp4", "b.jpg"]}, "media: must have one video track, found ['a.mp4', 'b.jpg']"),
        ("avm", {"answer": "Maybe"}, 'answer: must be "Yes" or "No", found \'Maybe\''),
        ("video_qa", {"answer": "sleep"}, "answer: must be one of the candidates ['clap proudly'"),
        ("video_qa", {"answer_candidates": None}, 'a record must have "answer_candidates", found none'),
        ("video_qa", {"answer_candidates": "clap"}, "answer_candidates: must be a list that is not empty"),
        ("video_qa", {"answer_candidates": ["lay on floor", ""]}, "answer_candidates: must not be blank"),
        ("avsd", {"conversation": [["q", "a"], ["q"]]}, "conversation: a turn must be a pair of question and answer"),
        ("avsd", {"conversation": [["q", "a"], ["q", ""]]}, "conversation: turn 2 must have question and answer"),
        ("avsd", {"conversation": None}, "a record must have \"conversation\", found ['image_name']"),
    ],
)
def test_messages_say_what_is_wrong(file: Path, task: str, change: dict[str, Any], words: str) -> None:
    file.write_text(json.dumps([RECORDS[task][1], RECORDS[task][0] | change]))
    with pytest.raises(RecordError) as caught:
        read_records(task, file)
    assert str(caught.value).startswith(f"{file}[1]: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("task", "content", "words"),
    [
        ("avm", '[{"category": 3}]', "VGG-Sound: a CSV of video"),
        ("avm", '[{"category": 3}]', "VGG-Sound Source: a JSON array of objects with"),
        ("avm", '[{"category": 3}]', "found JSON with the keys ['category']"),
        ("vqa", "[1, 2]", "found JSON of int"),
        ("vqa", '{"a": [', "not JSON (line 1: Expecting value)"),
        ("ac", "a,b\n1,2\n", "found text whose first line is 'a,b'"),
        ("vqa", "audiocap_id,youtube_id,start_time,caption\n1,a,2,b\n", "found the layout of AudioCaps"),
        ("vqa", "[]", "must hold records of published manifest, found none"),
        ("vqa", " \n", "must hold records, found nothing"),
    ],
)
def test_an_unknown_layout_says_what_was_looked_for(file: Path, task: str, content: str, words: str) -> None:
    file.write_text(content)
    with pytest.raises(InvalidValueError) as caught:
        read_records(task, file)
    assert str(caught.value).startswith(f"{file}: ")
    assert words in str(caught.value)


def test_a_folder_of_no_layout(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="found a folder without any of these files"):
        read_records("asr", tmp_path)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", "a\0b", tmp_path / ("x" * 5000)):
        with pytest.raises(InvalidValueError, match="path: cannot read"):
            read_records("vqa", path)
    with pytest.raises(InvalidTypeError, match="path: must be a file or folder, found None"):
        read_records("vqa", None)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="media_root: must be a folder, found 5"):
        read_records("vqa", FOLDER / MANIFESTS["vqa"], media_root=5)  # type: ignore[arg-type]
