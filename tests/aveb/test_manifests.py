"""Each published manifest is read for what stands in it."""

import json
from pathlib import Path
from typing import Any

import pytest

from avfusion.aveb import Record, RecordError, Records, read_records
from avfusion.errors import InvalidValueError
from tests.aveb.published import FOLDER, MANIFESTS

ROOT = Path("/data")


def read(task: str, **options: Any) -> Records:
    return read_records(task, FOLDER / MANIFESTS[task], media_root=ROOT, **options)


def written(folder: Path, task: str, records: Any, **options: Any) -> Records:
    file = folder / "manifest.json"
    file.write_text(json.dumps(records))
    return read_records(task, file, **options)


def changed(task: str, **changes: Any) -> dict[str, Any]:
    """The first record of a manifest with other values; ``None`` drops one."""
    record = json.loads((FOLDER / MANIFESTS[task]).read_text())[0] | changes
    return {key: value for key, value in record.items() if value is not None}


@pytest.mark.parametrize("task", MANIFESTS)
def test_every_record_is_read(task: str) -> None:
    records = read(task)
    assert len(records) == len(json.loads((FOLDER / MANIFESTS[task]).read_text()))
    assert [record.index for record in records] == list(range(len(records)))
    assert {record.source for record in records} == {FOLDER / MANIFESTS[task]}
    assert len({record.id for record in records}) == len(records)
    assert (records.skipped, records.layout) == ((), "published manifest")


def test_textvqa_has_ten_answers() -> None:
    first, second = read("ocr")[:2]
    assert (first.id, first.question) == ("003a8ae2ef43b901", "what is the brand of this camera?")
    assert first.image == ROOT / "003a8ae2ef43b901.jpg"
    assert len(first.references) == 10
    assert second.references[:3] == ("3.5", "11", "13.0%")
    assert read("ocr")[7].references[-1] == "breitling"  # published with a space after it


def test_gqa_has_the_short_answer() -> None:
    first = read("vqa")[0]
    assert (first.question, first.references, first.image) == ("Is it overcast?", ("no",), ROOT / "n161313.jpg")


def test_flickr30k_has_five_references() -> None:
    first = read("ic")[0]
    assert first.image == ROOT / "flickr30k/Images/1011572216.jpg"
    assert first.question == "Write a short description about this image."
    assert (len(first.references), first.references[-1]) == (5, "A couple getting married")


def test_nextqa_has_five_candidates() -> None:
    first = read("video_qa")[0]
    assert first.video == ROOT / "1101/2574374895.mp4"
    assert (first.audio, first.image, first.span) == (None, None, None)
    assert first.candidates == ("clap proudly", "the lady sitting down", "lay on floor", "just picked it up", "crawl")
    assert (first.answer_index, first.references) == (2, ("lay on floor",))


def test_ego4d_has_times_and_two_files() -> None:
    first = read("ego4d_qa")[0]
    name = "14e96091-4011-4557-95b3-a195fb5c39d8__2"
    assert (first.id, first.video, first.audio) == (name, ROOT / f"{name}.mp4", ROOT / f"{name}.wav")
    assert first.span == (500.8864412879968, 519.1272512879968)
    assert not first.needs_cut
    assert first.references == ("A person operates a tablet.",)


def test_half_of_the_published_answers_are_the_third() -> None:
    assert [record.answer_index for record in read("ego4d_qa")] == [2, 2, 3, 2, 2, 1, 3, 1, 2, 4, 3, 1]


def test_presentations_have_their_times_in_the_name() -> None:
    record = read("presentation_qa")[4]
    assert record.video == ROOT / "MLS-ED58D/raw/MLS-ED58D_408.89_434.50.mp4"
    assert record.span == (408.89, 434.5)
    assert record.references[0].endswith("found on the boundary ∂Ω for some t in [0, T].")
    assert record.answer_index == 3


def test_how2_has_cased_references_and_times() -> None:
    first, second = read("avsr")[:2]
    assert (first.id, first.references, first.span) == ("-fZc293MpJk_3.33_3.68", ("Hi!",), (3.33, 3.68))
    assert first.question == "Can you transcribe the speech into text, paying attention to the video?"
    assert second.span == (35.8, 60.23)


def test_sound_sources_lose_their_sentence() -> None:
    labels = [record.references for record in read("avssd")]
    assert labels[0] == ("people belly laughing",)  # "The source of this sound in this scene is …"
    assert labels[2] == ("male singing",)  # "The source of the audio in this picture can be identified as …"
    assert labels[6] == ("playing harpsichord",)  # "From this picture, it can be found that … is produced by …"
    assert labels[8] == ("cat caterwauling",)  # "In this image, the given audio might originates from …"


def test_synonyms_become_references(tmp_path: Path) -> None:
    sentence = "In this image, the given audio might originates from playing violin, fiddle."
    [record] = written(tmp_path, "avssd", [changed("avssd", answer=sentence)])
    assert record.references == ("playing violin", "fiddle")
    [record] = written(tmp_path, "avssd", [changed("avssd", answer="dog barking")])
    assert record.references == ("dog barking",)
    with pytest.raises(RecordError, match=r"\[0\]: answer: must be a label or one of the sentences .*found 'I hear"):
        written(tmp_path, "avssd", [changed("avssd", answer="I hear the bark of a dog.")])


def test_matching_has_videos_and_images() -> None:
    records = read("avm")
    assert [record.references for record in records[:3]] == [("Yes",), ("No",), ("No",)]
    assert records[1].id == "-nQ9a0P1TlY_000023+-z4OZ7ls5Bo_000540"
    assert [record.video is None for record in records] == [False] * 7 + [True] * 5
    assert records[7].image == ROOT / "data/images/vqav2/val2014/COCO_val2014_000000405972.jpg"
    assert records[7].audio is not None
    assert records[7].audio.name == "m12e12lh0tbjh9-3B2X28YI3WF61VJZCEWNM7C3WC96B0_405972_777365.wav"
    assert records[11].question == "Is the audio describing the image?"


@pytest.mark.parametrize(("options", "answer"), [({}, "Yes"), ({"keep_mislabelled": True}, "No")])
def test_the_mislabelled_pair_is_corrected(tmp_path: Path, options: dict[str, bool], answer: str) -> None:
    folder = "Benchmark/VGGSound/scratch/shared/beegfs/hchen/train_data/VGGSound_final/video"
    wrong = changed("avm", image=[f"{folder}/1_0T2ZIjWnw_000031{ending}" for ending in (".mp4", ".wav")], answer="No")
    other = changed("avm", image=[f"{folder}/1_0T2ZIjWnw_000031.mp4", f"{folder}/other.wav"], answer="No")
    records = written(tmp_path, "avm", [wrong, other], **options)
    assert [record.references for record in records] == [(answer,), ("No",)]


def test_a_dialogue_asks_its_last_question() -> None:
    first = read("avsd")[0]
    assert (first.id, first.video) == ("Y4U6T", ROOT / "Charades_v1_480/Y4U6T.mp4")
    assert first.audio == ROOT / "audios/Y4U6T.wav"
    assert first.question == "Is there any other audio?"
    assert first.references == ("Just music in background but that is it.",)
    assert len(first.history) == 9
    assert first.history[0] == ("Is this a man or a woman?", "The person is a man.")


def test_a_dialogue_can_ask_every_question() -> None:
    records = read("avsd", turns="all")
    assert len(records) == 12 * 10
    assert (records[0].id, records[0].history) == ("Y4U6T:1", ())
    assert (records[2].id, len(records[2].history), records[2].index) == ("Y4U6T:3", 2, 0)
    with pytest.raises(InvalidValueError, match='turns: must be "last" or "all"'):
        read("avsd", turns="first")


@pytest.mark.parametrize("times", [[500, 519.5], [500.5, 519], [500, 519], [0, 1]])
def test_ends_of_a_span_may_be_whole(tmp_path: Path, times: list[float]) -> None:
    [record] = written(tmp_path, "ego4d_qa", [changed("ego4d_qa", duration=times)])
    assert record.span == tuple(map(float, times))


@pytest.mark.parametrize("times", [[5], [5, "6"], [6, 5], [-1, 5], [0, float("nan")], [True, 5], {}, "0-5", 7])
def test_a_span_that_is_none_is_a_bad_record(tmp_path: Path, times: Any) -> None:
    with pytest.raises(RecordError, match=r"manifest\.json\[0\]: duration: must"):
        written(tmp_path, "ego4d_qa", [changed("ego4d_qa", duration=times)])


def test_a_span_may_be_missing(tmp_path: Path) -> None:
    assert written(tmp_path, "ego4d_qa", [changed("ego4d_qa", duration=None)])[0].span is None


def test_a_number_is_an_answer(tmp_path: Path) -> None:
    [record] = written(tmp_path, "ocr", [changed("ocr", answer=[13, 13.5, "13%", ""])])
    assert record.references == ("13", "13.5", "13%", "")
    [record] = written(tmp_path, "video_qa", [changed("video_qa", answer=3, answer_candidates=[1, 2, 3, 4, 5])])
    assert (record.answer_index, record.references) == (2, ("3",))


def test_one_answer_or_several_under_either_name(tmp_path: Path) -> None:
    [one] = written(tmp_path, "ic", [changed("ic", answer="a dog", image=None, image_name="x/1.PNG")])
    [several] = written(tmp_path, "ic", [changed("ic", answer=None, answers=["a dog", "the dog"])])
    assert (one.references, several.references) == (("a dog",), ("a dog", "the dog"))
    assert one.image == tmp_path / "x/1.PNG"


def test_an_answer_may_differ_from_its_candidate_in_case_and_period(tmp_path: Path) -> None:
    [record] = written(tmp_path, "video_qa", [changed("video_qa", answer=" Lay on  floor.")])
    assert (record.answer_index, record.references) == (2, ("lay on floor",))


def test_ids_that_come_twice_are_numbered(tmp_path: Path) -> None:
    same, own = changed("vqa"), changed("vqa", question_id=77)
    records = written(tmp_path, "vqa", [same, same, changed("vqa", image="n161313#2.jpg"), same, own])
    assert [record.id for record in records] == ["n161313", "n161313#2", "n161313#2#2", "n161313#3", "77"]


def test_unicode_is_kept(tmp_path: Path) -> None:
    [record] = written(tmp_path, "vqa", [changed("vqa", question="¿Está nublado? 雲", answer="não", image="b/雲.jpg")])
    assert (record.question, record.references, record.id) == ("¿Está nublado? 雲", ("não",), "雲")


def test_an_object_a_line_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "manifest.jsonl"
    lines = [json.dumps(changed("vqa")), "", "{nothing", json.dumps(changed("vqa"))]
    file.write_text("\n".join(lines))
    records = read_records("vqa", file, skip_bad=True)
    assert len(records) == 2
    assert [bad.index for bad in records.skipped] == [1]
    file.write_text(lines[0])
    assert len(read_records("vqa", file)) == 1


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps([changed("vqa")]), encoding="utf-8-sig")
    assert len(read_records("vqa", file)) == 1


def as_asked(record: Record) -> tuple[Any, ...]:
    return record.question, record.references


def test_twelve_thousand_records_are_no_matter(tmp_path: Path) -> None:
    records = written(tmp_path, "vqa", [changed("vqa", image=f"n{i % 400}.jpg") for i in range(12_577)])
    assert len({record.id for record in records}) == 12_577
    assert {as_asked(record) for record in records} == {("Is it overcast?", ("no",))}
