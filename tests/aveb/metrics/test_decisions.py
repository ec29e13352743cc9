"""Exact match, multiple choice, yes/no, labels and the judge: what counts, what is unparsed, what is refused."""

from collections.abc import Sequence
from typing import Any

import pytest

from avfusion.aveb.metrics import Judge, make_metric
from avfusion.errors import InvalidTypeError, InvalidValueError

SCENE = "The source of this sound in this scene is {}."


@pytest.mark.parametrize(
    ("key", "prediction", "references", "value"),
    [
        ("exact_match", "Skier.", ["skier"], 1.0),
        ("exact_match", " the  T-shirt!", ["The t-shirt"], 1.0),
        ("exact_match", "t shirt", ["t-shirt"], 0.0),
        ("exact_match", "no, it is clear", ["no"], 0.0),
        ("exact_match", "Cafe\u0301", ["café"], 1.0),
        ("exact_match", "b", ["a", "b"], 1.0),
        ("exact_match", "?!", ["no"], None),
        ("exact_match", "", [""], None),
        ("yes_no", "Yes, the sound fits.", ["Yes"], 1.0),
        ("yes_no", "no", ["Yes", "yes."], 0.0),
        ("yes_no", "maybe", ["No"], None),
        ("yes_no", "", ["No"], None),
        ("label", "dog barking", [SCENE.format("dog barking")], 1.0),
        ("label", SCENE.format("Woman speaking"), [SCENE.format("female speech, woman speaking")], 1.0),
        ("label", SCENE.format("female speech, woman speaking"), ["female speech", "woman speaking"], 1.0),
        ("label", "dog barking, cat meowing", ["dog barking"], 0.0),
        ("label", "dog", ["dog barking"], 0.0),
        ("label", "", ["dog barking"], None),
        ("label", "The source of this sound in this scene is", ["dog barking"], None),
    ],
)
def test_one_item(key: str, prediction: str, references: list[str], value: float | None) -> None:
    metric = make_metric(key)
    metric.update([prediction], [references])
    score = metric.compute()
    assert (score.value, score.unparsed) == ((0.0, 1.0) if value is None else (value, 0.0))


def test_multiple_choice_counts_what_it_cannot_read() -> None:
    candidates = ["a man", "dog", "bird", "a child", "cat"]
    said = ["E", "(e)", "It was the cat.", "dog", "dog or cat", "no idea"]
    metric = make_metric("multiple_choice")
    metric.update(said, [["cat"]] * 6, candidates=[candidates] * 6)
    score = metric.compute()
    assert (score.value, score.unparsed, score.items) == (3 / 6, 2 / 6, 6)


def test_multiple_choice_takes_any_of_alike_candidates() -> None:
    metric = make_metric("multiple_choice")
    metric.update(["A", "C", "B"], [["dog"]] * 3, candidates=[["dog", "cat", "dog"]] * 3)
    assert metric.compute().value == 2 / 3


@pytest.mark.parametrize(
    ("key", "arguments", "message"),
    [
        ("multiple_choice", {}, "candidates: must be given"),
        ("multiple_choice", {"candidates": [["b", "c"]]}, r"references: must hold one of the candidates \['b', 'c'\]"),
        ("yes_no", {"references": [["perhaps"]]}, "references: must say yes or say no"),
        ("yes_no", {"references": [["yes", "no"]]}, "references: must say yes or say no"),
        ("label", {"references": [["..."]]}, "references: must name the source of a sound"),
        (
            "vqa_accuracy",
            {"references": [["a", "a", "a"]]},
            "references: must be at least four answers an item, found 3",
        ),
        ("wer", {"references": [["a", "b"]]}, "references: must be one transcript an item, found 2"),
    ],
)
def test_refusals(key: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        make_metric(key).update(**({"predictions": ["a"], "references": [["a"]]} | arguments))


def test_judge_is_asked_about_every_item() -> None:
    asked = []

    def judge(question: str, references: Sequence[str], prediction: str) -> float:
        asked.append((question, tuple(references), prediction))
        return {"good": 1.0, "fair": 0.5}.get(prediction, False)

    metric = Judge(judge)
    metric.update(["good", "fair", "bad"], [["r", "s"]] * 3, questions=["q1", "q2", "q3"])
    assert metric.compute().value == 0.5
    assert asked == [("q1", ("r", "s"), "good"), ("q2", ("r", "s"), "fair"), ("q3", ("r", "s"), "bad")]


@pytest.mark.parametrize(
    ("verdict", "kind", "message"),
    [
        (1.5, InvalidValueError, "judge: must give 0 to 1, found 1.5"),
        (float("nan"), InvalidValueError, "judge: must give 0 to 1, found nan"),
        ("good", InvalidTypeError, "judge: must give a number, found 'good'"),
        (None, InvalidTypeError, "judge: must give a number, found None"),
    ],
)
def test_judge_must_give_a_share(verdict: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Judge(lambda *_: verdict).update(["a"], [["a"]], questions=["q"])


def test_judge_needs_questions_and_to_be_callable() -> None:
    with pytest.raises(InvalidValueError, match="questions: must be given to a judge"):
        Judge(lambda *_: 1.0).update(["a"], [["a"]])
    with pytest.raises(InvalidTypeError, match="judge: must be callable, found str"):
        make_metric("judge", judge="gpt")
