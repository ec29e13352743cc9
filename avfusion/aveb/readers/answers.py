"""Right answers, in the form that a task's kind of answer asks for."""

from typing import Any

from avfusion.aveb.readers.fields import as_list, as_text, shown, texts
from avfusion.aveb.readers.labels import labels_of
from avfusion.aveb.tasks import Task
from avfusion.errors import InvalidValueError

_MAY_BE_BLANK = {"transcript", "short_answer"}  # silence; one of ten people who gave no answer


def answer_fields(task: Task, answer: Any, candidates: Any = None) -> dict[str, Any]:
    """The answer fields of a record: ``references``, and of a multiple-choice task ``candidates`` and ``answer_index``.

    Args:
        task: says which kind of answer.
        answer: one answer or a list of them; numbers are taken for their text.
        candidates: what a multiple-choice question offers.
    """
    if task.answer == "multiple_choice":
        return choice_fields(answer, candidates)
    references = texts(answer, "answer", blank=task.answer in _MAY_BE_BLANK)
    if task.answer != "transcript" and not any(references):
        raise InvalidValueError(f"answer: must not be blank, found {shown(answer)}")
    if task.answer == "yes_no":
        references = tuple(map(yes_or_no, references))
    if task.answer == "label":
        references = tuple(dict.fromkeys(label for reference in references for label in labels_of(reference)))
    return {"references": references}


def choice_fields(answer: Any, candidates: Any) -> dict[str, Any]:
    """The fields of a multiple-choice record whose answer is the text of one of its candidates."""
    if candidates is None:
        raise InvalidValueError('a record must have "answer_candidates", found none')
    offered = tuple(as_text(candidate, "answer_candidates") for candidate in as_list(candidates, "answer_candidates"))
    right = texts(answer, "answer")
    if len(right) != 1:
        raise InvalidValueError(f"answer: must be one of the candidates, found {shown(answer)}")
    for same in (str, _loose):
        places = [place for place, candidate in enumerate(offered) if same(candidate) == same(right[0])]
        if places:
            return at_place(offered, places[0])
    raise InvalidValueError(f"answer: must be one of the candidates {shown(list(offered))}, found {shown(answer)}")


def at_place(candidates: tuple[str, ...], place: int) -> dict[str, Any]:
    """The fields of a multiple-choice record whose answer is the candidate at a place."""
    return {"candidates": candidates, "answer_index": place, "references": (candidates[place],)}


def yes_or_no(text: str) -> str:
    """``"Yes"`` or ``"No"``."""
    word = text.strip(" .!").lower()
    if word not in ("yes", "no"):
        raise InvalidValueError(f'answer: must be "Yes" or "No", found {shown(text)}')
    return word.capitalize()


def _loose(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(" .")
