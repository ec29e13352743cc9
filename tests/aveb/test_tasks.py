"""Every task is declared, and can be found by its name."""

import pytest

from avfusion.aveb import TASKS, Task, get_task
from avfusion.errors import InvalidTypeError, InvalidValueError

AVEB = ["asr", "ac", "ic", "ocr", "vqa", "video_qa", "avsr", "avsd", "isqa", "avssd", "avm"]
METRIC = {
    "transcript": {"wer"},
    "caption": {"cider", "spider"},
    "short_answer": {"exact_match", "vqa_accuracy"},
    "multiple_choice": {"multiple_choice"},
    "yes_no": {"yes_no"},
    "label": {"label"},
    "free_text": {"judge"},
}


def test_the_eleven_and_the_two() -> None:
    assert list(TASKS) == [*AVEB, "ego4d_qa", "presentation_qa"]
    assert all(name == task.name for name, task in TASKS.items())


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_declaration_is_whole(task: Task) -> None:
    assert task.needs
    assert task.metric in METRIC[task.answer]
    assert task.source.startswith("https://")
    assert task.prompt is None or task.prompt.strip()


def test_what_is_published_and_known() -> None:
    assert get_task("Video QA").published == {"FAVOR": 49.3, "InstructBLIP": 21.0}
    assert get_task("asr").licence == "CC BY 4.0"
    assert {task.seen for task in TASKS.values()} == {"unknown"}


@pytest.mark.parametrize("name", ["avm", "AVM", " Avm "])
def test_names_are_forgiving(name: str) -> None:
    assert get_task(name) is TASKS["avm"]
    assert get_task("Ego4D-QA") is TASKS["ego4d_qa"]


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InvalidValueError, match=r"must be one of asr, ac, .* found 'avr'"):
        get_task("avr")
    with pytest.raises(InvalidTypeError, match="must be the name of a task"):
        get_task(None)  # type: ignore[arg-type]
