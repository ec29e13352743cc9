"""Data sets are read as they are published by their own authors."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from avfusion.aveb import RecordError, Records, read_records


def read(folder: Path, task: str, content: Any, **options: Any) -> Records:
    file = folder / "annotations"  # the ending tells nothing: content does
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_records(task, file, **options)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_librispeech(tmp_path: Path) -> None:
    for chapter, lines in {
        "1089/134686": "1089-134686-0000 HE HOPED THERE WOULD BE STEW\n1089-134686-0001 STUFF IT INTO YOU\n",
        "121/121726": "121-121726-0000 ALSO A POPULAR CONTRIVANCE\n",
    }.items():
        touch(tmp_path, f"test-clean/{chapter}/x.flac")
        (tmp_path / "test-clean" / chapter / f"{chapter.replace('/', '-')}.trans.txt").write_text(lines)
    records = read_records("asr", tmp_path)
    assert [record.id for record in records] == ["1089-134686-0000", "1089-134686-0001", "121-121726-0000"]
    assert records[1].references == ("STUFF IT INTO YOU",)
    assert (records[1].index, records.layout) == (1, "LibriSpeech")
    touch(tmp_path, "test-clean/1089/134686/1089-134686-0000.flac")
    assert read_records("asr", tmp_path)[0].audio == tmp_path / "test-clean/1089/134686/1089-134686-0000.flac"
    assert read_records("asr", tmp_path, media_root="/data")[1].audio == Path("/data/1089/134686/1089-134686-0001.flac")
    one = tmp_path / "test-clean/121/121726/121-121726.trans.txt"
    assert len(read_records("asr", one)) == 1
    one.write_text("121-121726-0000\nnothing like it\n")
    with pytest.raises(RecordError, match=re.escape(str(one)) + r"\[0\]: a line must be SPEAKER-CHAPTER-NUMBER"):
        read_records("asr", tmp_path)
    records = read_records("asr", tmp_path, skip_bad=True)
    assert (len(records), [bad.index for bad in records.skipped]) == (2, [0, 1])


def test_audiocaps(tmp_path: Path) -> None:
    table = (
        "audiocap_id,youtube_id,start_time,caption\n"
        '103549,7fmOlUlwoNg,20,"Constant rattling noise, and sharp vibrations"\n'
        "103548,6BJ455B1aAs,0,A rocket flies by\n"
        "103547,7fmOlUlwoNg,20,Metal rattles\n"
        "103546,7fmOlUlwoNg,x,Metal rattles\n"
        "103545,7fmOlUlwoNg\n"
    )
    touch(tmp_path, "test/Y6BJ455B1aAs.wav", "6BJ455B1aAs.wav")
    records = read(tmp_path, "ac", table, skip_bad=True)
    assert [record.id for record in records] == ["7fmOlUlwoNg_20", "6BJ455B1aAs_0"]
    assert records[0].references == ("Constant rattling noise, and sharp vibrations", "Metal rattles")
    assert (records[0].span, records[0].needs_cut) == ((20.0, 30.0), False)
    assert (records[0].audio, records[1].audio) == (tmp_path / "7fmOlUlwoNg_20.wav", tmp_path / "6BJ455B1aAs.wav")
    assert [(bad.index, bad.reason[:25]) for bad in records.skipped] == [
        (3, "start_time: must be a num"),
        (4, "a row must have 4 cells, "),
    ]


def test_flickr30k(tmp_path: Path) -> None:
    images = [
        {"filename": "1007129816.jpg", "split": "test", "sentences": [{"raw": "A man."}, {"raw": "The man with hat."}]},
        {"filename": "1000092795.jpg", "split": "train", "sentences": [{"raw": "Two men."}]},
    ]
    [record] = read(tmp_path, "ic", {"images": images, "dataset": "flickr30k"})
    assert (record.id, record.references) == ("1007129816", ("A man.", "The man with hat."))
    assert (record.image, record.question) == (tmp_path / "1007129816.jpg", None)
    assert read(tmp_path, "ic", {"images": images}, split="train")[0].index == 1
    with pytest.raises(RecordError, match=r'annotations\[2\]: a record must have "split"'):
        read(tmp_path, "ic", {"images": [*images, {"filename": "1.jpg"}]})


def test_textvqa(tmp_path: Path) -> None:
    question = {"question": "what?", "image_id": "003a8ae2ef43b901", "question_id": 34602, "answers": ["dakota"] * 10}
    data = {"dataset_type": "val", "data": [question, question | {"answers": None}]}
    records = read(tmp_path, "ocr", data, skip_bad=True)
    assert (records[0].id, records[0].image) == ("34602", tmp_path / "003a8ae2ef43b901.jpg")
    assert (len(records[0].references), records.layout) == (10, "TextVQA")
    assert 'a record must have "answers"' in records.skipped[0].reason


def test_gqa(tmp_path: Path) -> None:
    question = {"imageId": "n161313", "question": "Is it overcast?", "answer": "no", "fullAnswer": "No, it is clear."}
    records = read(tmp_path, "vqa", {"201307251": question, "201640614": {"imageId": 5}}, skip_bad=True)
    assert (records[0].id, records[0].image, records.layout) == ("201307251", tmp_path / "n161313.jpg", "GQA")
    assert [bad.index for bad in records.skipped] == [1]


def test_nextqa(tmp_path: Path) -> None:
    table = (
        "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
        "4010069381,369,640,480,how do the men play,2,6,CH,roll,tap,strum,hit,pat\n"
        "4010069381,369,640,480,how do the men play,5,7,CH,roll,tap,strum,hit,pat\n"
    )
    records = read(tmp_path, "video_qa", table, skip_bad=True)
    assert (records[0].id, records[0].video) == ("4010069381_6", tmp_path / "4010069381.mp4")
    assert (records[0].answer_index, records[0].references) == (2, ("strum",))
    assert [(bad.index, bad.reason) for bad in records.skipped] == [(1, "answer: must be from 0 to 4, found '5'")]
    (tmp_path / "map_vid_vidorID.json").write_text('{"4010069381": "1164/4010069381"}')
    assert read(tmp_path, "video_qa", table, skip_bad=True)[0].video == tmp_path / "1164/4010069381.mp4"


def test_how2(tmp_path: Path) -> None:
    touch(tmp_path, "G1z1RB3pOKM.mp4")
    (tmp_path / "segments").write_text("G1z_1 G1z1RB3pOKM 116.13 117.75\nG1z_2 other 0 1.5\n")
    (tmp_path / "text.id.en").write_text("G1z_1 And the dark medium is a blue.\nG1z_2\nG1z_3 lost\n")
    records = read_records("avsr", tmp_path, skip_bad=True)
    assert (records[0].id, records[0].references) == ("G1z_1", ("And the dark medium is a blue.",))
    assert (records[0].video, records[0].audio) == (tmp_path / "G1z1RB3pOKM.mp4", tmp_path / "G1z1RB3pOKM.mp4")
    assert (records[0].span, records[0].needs_cut) == ((116.13, 117.75), True)
    assert (records[1].video, records[1].references) == (tmp_path / "other_0_1.5.mp4", ("",))
    assert [bad.index for bad in records.skipped] == [2]
    touch(tmp_path, "G1z1RB3pOKM_116.13_117.75.mp4")
    assert not read_records("avsr", tmp_path, skip_bad=True)[0].needs_cut


def test_avsd(tmp_path: Path) -> None:
    turns = [{"question": "who?", "answer": "a man"}, {"question": "where?", "answer": "in a room"}]
    dialogues = [{"image_id": "Y4U6T", "dialog": turns, "caption": "a man stands"}]
    touch(tmp_path, "Charades_v1_480/Y4U6T.mp4")
    [record] = read(tmp_path, "avsd", {"type": "test", "dialogs": dialogues})
    assert (record.question, record.references, record.history) == ("where?", ("in a room",), (("who?", "a man"),))
    assert record.audio == record.video == tmp_path / "Charades_v1_480/Y4U6T.mp4"
    turns[-1]["answer"] = "__UNDISCLOSED__"
    with pytest.raises(RecordError, match=r"\[0\]: conversation: turn 2 must have question and answer"):
        read(tmp_path, "avsd", {"dialogs": dialogues})
    with pytest.raises(RecordError, match=r"\[0\]: dialogs: must be a list"):
        read(tmp_path, "avsd", {"dialogs": 5})


def test_vggss(tmp_path: Path) -> None:
    touch(tmp_path, "frames/b.c_000030.jpg")
    records = read(
        tmp_path,
        "avssd",
        [
            {"file": "-0BIyqJj9ZU_000030", "class": "people belly laughing", "bbox": [[0, 0, 1, 1]]},
            {"file": "b.c_000030", "class": "playing violin, fiddle", "bbox": []},
            {"file": "x"},
        ],
        skip_bad=True,
    )
    assert (records[0].id, records[0].video) == ("-0BIyqJj9ZU_000030", tmp_path / "-0BIyqJj9ZU_000030.mp4")
    assert records[0].audio == tmp_path / "-0BIyqJj9ZU_000030.wav"
    assert (records[1].image, records[1].references) == (
        tmp_path / "frames/b.c_000030.jpg",
        ("playing violin", "fiddle"),
    )
    assert [bad.index for bad in records.skipped] == [2]


def test_vggsound(tmp_path: Path) -> None:
    table = '---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,waterfall burbling,train\n5,x,"a, b",test\n'
    records = read(tmp_path, "avssd", table, skip_bad=True)
    assert [(record.id, record.references) for record in records] == [("---g-f_I2yQ_000001", ("people marching",))]
    assert [(bad.index, bad.reason) for bad in records.skipped] == [(2, "second: must be a number, found 'x'")]


def vggss(count: int) -> list[dict[str, str]]:
    return [{"file": f"clip{i}_000030", "class": f"class {i % 3}"} for i in range(count)]


def test_pairs_of_vggss_match_half_of_the_time(tmp_path: Path) -> None:
    records = read(tmp_path, "avm", vggss(300))
    matching = [record for record in records if record.references == ("Yes",)]
    assert 120 < len(matching) < 180
    kinds = {entry["file"]: entry["class"] for entry in vggss(300)}
    for record in records:
        assert record.video is not None
        assert record.audio is not None
        same = kinds[record.video.stem] == kinds[record.audio.stem]
        assert same == (record in matching)
    assert [record.id for record in read(tmp_path, "avm", vggss(300))] == [record.id for record in records]
    assert [record.id for record in read(tmp_path, "avm", vggss(300), seed=1)] != [record.id for record in records]


def test_pairs_of_spokencoco(tmp_path: Path) -> None:
    data = [
        {"image": f"val2014/{i}.jpg", "captions": [{"text": "t", "wav": f"wavs/val/0/{i}.wav"}, {"wav": "2.wav"}]}
        for i in range(200)
    ]
    records = read(tmp_path, "avm", {"data": [*data, {"image": "x.jpg"}]}, skip_bad=True)
    assert (len(records), [bad.index for bad in records.skipped]) == (200, [200])
    assert 80 < sum(record.references == ("Yes",) for record in records) < 120
    for record in records:
        assert record.image is not None
        assert record.audio is not None
        assert (record.image.stem == record.audio.stem) == (record.references == ("Yes",))
    assert records[0].image == tmp_path / "val2014/0.jpg"


@pytest.mark.parametrize("task", ["ac", "ic", "ocr", "vqa", "video_qa", "avsd", "avssd", "avm"])
@pytest.mark.parametrize(
    "content",
    [
        '{"images": [1, {"filename": []}]}',
        '{"data": [{"question_id": 1, "captions": 5}, 3]}',
        '{"a": {"imageId": 5}, "b": 3}',
        '{"dialogs": [{"image_id": 5, "dialog": 6}, null]}',
        '[{"file": 5, "class": []}, 7]',
        "audiocap_id,youtube_id,start_time,caption\n,,,\n",
        "video,question,answer,a0,a1,a2,a3,a4\n,,,,,,,\n",
        'a,1,b,test\n"open,2\n',
        '{"images": [{"filename": "1.jpg"',
        "a,b\n" + "x" * 200_000,
    ],
)
def test_broken_files_are_the_librarys_error(tmp_path: Path, task: str, content: str) -> None:
    with pytest.raises(ValueError, match="annotations"):
        read(tmp_path, task, content)
