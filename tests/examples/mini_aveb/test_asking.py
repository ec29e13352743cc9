"""What else is asked about a clip in training has the answers that the benchmark's own questions have."""

import random

import pytest

from avfusion.aveb import Record
from avfusion.aveb.mini import generate
from examples.mini_aveb.asking import MOST, ask
from examples.mini_aveb.data import read_split
from examples.mini_aveb.keeping import Pairs


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    tasks = ("asr", "ic", "vqa", "video_qa", "avsd", "isqa")
    folder = generate(tmp_path_factory.mktemp("mini") / "data", items={"test": 5}, tasks=tasks, difficulty="medium")
    return read_split(folder / "test", tasks)


def _often(record: Record, truth: dict[str, object]) -> list[list[Record]]:
    return [ask(record, truth, random.Random(seed)) for seed in range(60)]


def test_the_record_itself_is_always_asked_first(pairs: Pairs) -> None:
    for record, truth in pairs:
        assert all(asked[0] == record and len(asked) <= max(MOST.values()) for asked in _often(record, truth))


def test_the_same_question_has_the_same_answer(pairs: Pairs) -> None:
    met = dict.fromkeys(("vqa", "video_qa", "avsd"), 0)
    for record, truth in pairs:
        for other in (other for asked in _often(record, truth) for other in asked[1:]):
            if other.question == record.question:
                assert other.references == record.references, record.id
                met[record.task] += 1
    assert min(met.values()) > 10


def test_spoken_questions_are_answered_alike_in_writing(pairs: Pairs) -> None:
    met = 0
    for record, truth in pairs:
        if record.task == "isqa":
            written = f"{' '.join(truth['words']).capitalize()}?"
            asked = [other for asked in _often(record, truth) for other in asked[1:]]
            assert {other.task for other in asked} == {"vqa"}
            assert {other.references for other in asked if other.question == written} == {record.references}
            met += 1
    assert met == 5


def test_candidates_hold_the_answer_once_and_are_of_the_clip_first(pairs: Pairs) -> None:
    for record, truth in pairs:
        for other in (other for asked in _often(record, truth) for other in asked[1:] if other.task == "video_qa"):
            assert other.candidates is not None
            assert len(set(other.candidates)) == 5
            assert other.candidates.count(other.references[0]) == 1
            assert len({*other.candidates} & {*truth["scenes"]}) == min(5, len(truth["scenes"]) - 1)


def test_sound_alone_is_asked_about_once(pairs: Pairs) -> None:
    for record, truth in pairs:
        if record.task == "asr":
            assert all(asked == [record] for asked in _often(record, truth))
