"""VQA accuracy against the challenge's rules, written out a second time and in another way."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfusion.aveb._text import vqa_answer
from avfusion.aveb.metrics import VQAAccuracy

MARKS = [*';/[]"{}()=+\\_-><@`,?!']
NUMBERS = ["none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
VALUES = dict(zip(NUMBERS, ["0", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"], strict=True))
RESTORED = {
    "dont": "don't",
    "isnt": "isn't",
    "oclock": "o'clock",
    "couldntve": "couldntve",
    "couldn'tve": "couldn't've",
    "couldnt've": "couldn't've",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
    "'ows'at": "'ow's'at",
    "twas": "'twas",
    "maam": "ma'am",
    "somebody'd": "somebodyd",
    "somebodyd": "somebodyd",
    "youre": "you're",
    "im": "im",
    "shed": "shed",
    "well": "well",
    "id": "id",
}


def processed(answer: str) -> str:
    """Lower case; commas and question marks out; genitives apart; marks; periods; numbers; articles; contractions."""
    text = re.sub(r"[,?]", "", answer.lower()).replace("'s", " 's").strip()
    text = re.sub(r"[\n\t]", " ", text).strip()
    loose = {mark for mark in MARKS if re.search(rf"{re.escape(mark)} | {re.escape(mark)}", text)}
    text = "".join("" if letter in loose else " " if letter in MARKS else letter for letter in text)
    text = re.sub(r"\.(?![0-9])", "", text)
    words = [VALUES.get(word, word) for word in text.split()]
    return " ".join(RESTORED.get(word, word) for word in words if word not in ("a", "an", "the"))


def accuracy(said: str, people: list[str]) -> float:
    """The mean, over people left out, of a third for each other who agrees, at most one."""
    shares = []
    for left_out in range(len(people)):
        others = [answer for number, answer in enumerate(people) if number != left_out]
        shares.append(min(1.0, sum(processed(answer) == processed(said) for answer in others) / 3))
    return sum(shares) / len(shares)


def ours(said: str, people: list[str]) -> float:
    metric = VQAAccuracy(resamples=1)
    metric.update([said], [people])
    return metric.compute().value


pieces = st.sampled_from(
    [*RESTORED, *NUMBERS, *MARKS, "the", "A", "an", "dog's", "3.5", "u.s.", "1,000", ". ", " ", "é"]
)
answers = st.lists(st.tuples(pieces, st.sampled_from(["", " "])), max_size=6).map(
    lambda parts: "".join(word + space for word, space in parts)
)


@given(answers)
def test_processing_follows_the_rules(answer: str) -> None:
    assert vqa_answer(answer) == processed(answer)


@given(answers, st.lists(answers, min_size=4, max_size=12))
def test_accuracy_leaves_one_out(said: str, people: list[str]) -> None:
    assert ours(said, people) == pytest.approx(accuracy(said, people), rel=1e-12)
    assert ours(people[0], people * 4) == 1.0


@pytest.mark.parametrize(("agree", "value"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_ten_people(agree: int, value: float) -> None:
    people = ["Dakota"] * agree + [f"other {number}" for number in range(10 - agree)]
    assert ours("the dakota.", people) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        ("13.0%", "13.0%."),
        ("breitling ", "Breitling"),
        ("two", "2"),
        ("none", "0"),
        ("t-shirt", "t shirt"),
        ("2/5.00", "2 5.00"),
        ("stop - go", "stop  go"),
        ("A/B - c", "a b  c"),
        ("dont", "don't"),
        ("line\none", "line 1"),
        ("", "the"),
        ("1,000", "1000"),
    ],
)
def test_answers_that_are_the_same(answer: str, same: str) -> None:
    assert vqa_answer(answer) == vqa_answer(same)


def test_takes_no_more_than_thirty_two_periods_away() -> None:
    assert vqa_answer("x" + "." * 40) == "x" + "." * 8


@pytest.mark.parametrize(("answer", "restored"), RESTORED.items())
def test_contractions(answer: str, restored: str) -> None:
    assert vqa_answer(answer) == restored
