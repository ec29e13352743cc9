"""Names of media on their authors' machines become files below the root."""

import json
from pathlib import Path

import pytest

from avfusion.aveb import RecordError, Records, read_records


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def image_of(folder: Path, name: str) -> Path | None:
    file = folder / "manifest.json"
    file.write_text(json.dumps([{"image": name, "question": "q", "answer": "a"}]))
    return read_records("vqa", file, media_root=folder / "media")[0].image


@pytest.mark.parametrize(
    ("name", "there", "found"),
    [
        ("/mnt/authors/data/vqa/n1.jpg", ["n1.jpg", "vqa/n1.jpg"], "vqa/n1.jpg"),
        ("/mnt/authors/data/vqa/n1.jpg", ["n1.jpg", "other/vqa/n1.jpg"], "n1.jpg"),
        ("/mnt/authors/data/vqa/n1.jpg", [], "n1.jpg"),
        ("data/vqa/n1.jpg", [], "data/vqa/n1.jpg"),
        ("data/vqa/n1.jpg", ["n1.jpg"], "n1.jpg"),
        ("./data//vqa/n1.jpg", ["data/vqa/n1.jpg"], "data/vqa/n1.jpg"),
        ("../../data/n1.jpg", ["n1.jpg"], "n1.jpg"),
        ("../../data/n1.jpg", [], "data/n1.jpg"),
        ("/data/../../etc/n1.jpg", [], "n1.jpg"),
        (r"C:\data\vqa\n1.jpg", ["vqa/n1.jpg"], "vqa/n1.jpg"),
        (r"C:\data\vqa\n1.jpg", [], "n1.jpg"),
        (" n1.JPEG ", [], "n1.JPEG"),
    ],
)
def test_the_longest_end_that_is_there(tmp_path: Path, name: str, there: list[str], found: str) -> None:
    touch(tmp_path / "media", *there)
    assert image_of(tmp_path, name) == tmp_path / "media" / found


@pytest.mark.parametrize("name", ["/", "..", "", "a\0.jpg", "."])
def test_a_name_of_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordError, match=r"\[0\]: media: must"):
        image_of(tmp_path, name)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "media/n1.jpg").mkdir(parents=True)
    touch(tmp_path / "media", "n1.jpg/x")
    assert image_of(tmp_path, "data/n1.jpg") == tmp_path / "media/data/n1.jpg"


def test_media_stand_beside_the_file_without_a_root(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps([{"image": "a/n1.jpg", "question": "q", "answer": "a"}]))
    assert read_records("vqa", tmp_path / "m.json")[0].image == tmp_path / "a/n1.jpg"


def test_missing_media_are_told_if_asked(tmp_path: Path) -> None:
    record = {"question": "q", "answer": "a"}
    (tmp_path / "m.json").write_text(json.dumps([record | {"image": name} for name in ("n1.jpg", "n2.jpg")]))
    touch(tmp_path, "n1.jpg")
    with pytest.raises(RecordError, match=r"m.json\[1\]: image: no such file, .*n2.jpg"):
        read_records("vqa", tmp_path / "m.json", check_files=True)
    assert len(read_records("vqa", tmp_path / "m.json", check_files=True, skip_bad=True)) == 1


def ego4d(folder: Path) -> Records:
    record = {
        "image_name": ["14e9__2.mp4", "14e9__2.wav"],
        "question": "q",
        "answer": "b",
        "answer_candidates": ["a", "b"],
        "duration": [500, 519.5],
    }
    (folder / "ego4d_qa.json").write_text(json.dumps([record]))
    return read_records("ego4d_qa", folder / "ego4d_qa.json")


def test_ego4d_recordings_stand_in_for_clips_that_are_not_cut(tmp_path: Path) -> None:
    touch(tmp_path, "14e9.mp4")
    [record] = ego4d(tmp_path)
    assert (record.video, record.audio) == (tmp_path / "14e9.mp4", tmp_path / "14e9.mp4")
    assert (record.needs_cut, record.span) == (True, (500.0, 519.5))
    touch(tmp_path, "14e9.wav")
    assert ego4d(tmp_path)[0].audio == tmp_path / "14e9.wav"
    touch(tmp_path, "14e9__2.mp4", "14e9__2.wav")
    [record] = ego4d(tmp_path)
    assert (record.video, record.needs_cut) == (tmp_path / "14e9__2.mp4", False)


def test_a_recording_stands_in_beside_its_clip_too(tmp_path: Path) -> None:
    record = {"image": ["raw/dA_5_3.3_4.mp4", "raw/dA_5_3.3_4.wav"], "answer": "Hi!"}
    (tmp_path / "how2.json").write_text(json.dumps([record]))
    touch(tmp_path, "raw/dA_5.mp4")
    [found] = read_records("avsr", tmp_path / "how2.json")
    assert (found.video, found.needs_cut, found.span) == (tmp_path / "raw/dA_5.mp4", True, (3.3, 4.0))


def test_names_of_other_tasks_tell_no_times(tmp_path: Path) -> None:
    record = {"image": ["abc_12_000031.mp4", "abc_12_000031.wav"], "answer": "dog barking"}
    (tmp_path / "m.json").write_text(json.dumps([record]))
    assert read_records("avssd", tmp_path / "m.json")[0].span is None
