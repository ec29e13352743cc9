"""Answers as models give them, with the reading of a careful person; and drawn ones, built around what they decide."""

import json
import math
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from avfusion.aveb.parsers import parse_choice, parse_label, parse_number, parse_yes_no

# "held-out" answers were written before the parsers had seen them; all are read now.
TABLE = [
    json.loads(line) for line in (Path(__file__).parent / "answers.jsonl").read_text(encoding="utf-8").splitlines()
]
ENOUGH = settings(max_examples=300, deadline=None)


def read(row: dict[str, Any], answer: str) -> Any:
    if row["kind"] == "choice":
        return parse_choice(answer, row["options"])
    if row["kind"] == "label":
        found = parse_label(answer, labels=row["options"])
        return None if found is None else ", ".join(found)
    return {"yes_no": parse_yes_no, "number": parse_number}[row["kind"]](answer)


@pytest.mark.parametrize("kind", ["choice", "yes_no", "label", "number"])
def test_table(kind: str) -> None:
    rows = [row for row in TABLE if row["kind"] == kind]
    wrong = [(row["answer"], row["right"], read(row, row["answer"])) for row in rows]
    assert [found for found in wrong if found[1] is not found[2] and found[1] != found[2]] == []
    assert len(rows) >= 20


@ENOUGH
@given(
    st.sampled_from(TABLE),
    st.sampled_from(
        [
            "<think>{}</think>",
            "<think>\n{}\n</think>\n\n",
            "{}</think>\n",
            "<thinking>{}</thinking>\n",
            "<reasoning>{}</reasoning>",
            "◁think▷{}◁/think▷",
        ]
    ),
    st.sampled_from(TABLE),
)
def test_reasoning_decides_nothing(row: dict[str, Any], reasoning: str, other: dict[str, Any]) -> None:
    assume("think" not in row["answer"] + other["answer"] and "channel" not in row["answer"] + other["answer"])
    assume("reasoning" not in row["answer"] + other["answer"] and "REASONING" not in row["answer"] + other["answer"])
    assume(row["answer"].strip())
    assert read(row, reasoning.format(other["answer"]) + row["answer"]) == row["right"]


@ENOUGH
@given(
    st.sampled_from(TABLE),
    st.sampled_from(["{}\n", "\n\n  {}", "**{}**", "<answer>{}</answer>", "{}\u200b", "<s> {} </s>"]),
)
def test_markup_around_the_whole_decides_nothing(row: dict[str, Any], markup: str) -> None:
    plain = "<" not in row["answer"] and "\\" not in row["answer"] and "\n" not in row["answer"]
    assume(plain or "answer" not in markup)
    assume(
        "think" not in row["answer"]
        and "channel" not in row["answer"]
        and row["answer"].strip()
        and "*" not in row["answer"]
    )
    assert read(row, markup.format(row["answer"])) == row["right"]


WORDS = ["amber", "basil", "cedar", "delta", "ember", "fennel", "garnet", "hazel", "indigo", "juniper", "kelp", "lotus"]
LETTERS = [
    "{}",
    "({})",
    "[{}]",
    "{}.",
    "{})",
    "{}:",
    "**{}**",
    "`{}`",
    "*{}*",
    "\\boxed{{{}}}",
    "$\\boxed{{\\text{{{}}}}}$",
    "<answer>{}</answer>",
    '{{"answer": "{}"}}',
    "```\n{}\n```",
    "# {}",
    "$ {}",
    "<b>{}</b>",
    "\\text{{{}}}",
]
FRAMES = [
    "{}",
    "Answer: {}",
    "**Answer:** {}",
    "The answer is {}",
    "The correct option is {}.",
    "I'd go with {}",
    "I choose {}.",
    "Final answer: {}",
    "So the answer is {}.",
    "My answer is {}!",
    "After listening, the best choice is {}.",
    "Therefore, {}.",
    "It must be {}.",
    "答案是{}",
    "Antwort: {}",
    "Respuesta: {}",
    "정답은 {}입니다.",
    "答えは{}です。",
    "Probably {}",
    "Option {}",
    "选{}",
]
BEFORE = [
    "",
    "Option {} is wrong because nothing of it is heard. ",
    "It is not {}. ",
    "I can rule out {}.\n",
    "Unlike {}, the scene is loud. ",
    "At first I thought {}. ",
    "{} is incorrect. ",
    "Is it {}? No. ",
]
AFTER = [
    "",
    " Unlike option {}, it fits.",
    " Option {} is wrong because it is silent.",
    ", not {}",
    " ({} is incorrect.)",
    "\n\nOption {} does not match.",
    ", rather than {}",
    " because {} shows something else",
]


@st.composite
def decided(draw: st.DrawFn) -> tuple[str, list[str], int]:
    """An answer that decides for one option and rejects another, the options, and which it is."""
    options = draw(st.permutations(WORDS))[: draw(st.integers(2, len(WORDS)))]
    right, wrong = draw(st.permutations(range(len(options))))[:2]
    frame, after = draw(st.sampled_from(FRAMES)), draw(st.sampled_from(AFTER))
    before = draw(st.sampled_from(BEFORE))
    letter = draw(st.sampled_from(LETTERS if not before and not after else LETTERS[:9])).format(ascii_uppercase[right])
    if before and frame == "{}":
        frame = "The answer is {}"
    said = draw(
        st.sampled_from([letter, f"{letter} {options[right]}", f"{letter} ({options[right]})"])
        if letter[-1] in ".:)"
        else st.just(letter)
    )
    answer = frame.format(said)
    if after[:1].isspace() and not after.startswith(" because") and not answer.endswith((".", "。")):
        answer += "."
    return before.format(ascii_uppercase[wrong]) + answer + after.format(ascii_uppercase[wrong]), options, right


@ENOUGH
@given(decided())
def test_what_an_answer_decides_is_read(drawn: tuple[str, list[str], int]) -> None:
    answer, options, right = drawn
    assert parse_choice(answer, options) == right


@ENOUGH
@given(
    st.integers(2, 12).flatmap(lambda count: st.tuples(st.just(count), st.permutations(range(count)))),
    st.sampled_from(
        [
            "{} or {}",
            "{} and {}",
            "Either {} or {}.",
            "({}), ({})",
            "{}/{}",
            "Answer: {} or {}",
            "{} & {}",
            "Both {} and {} are right.",
        ]
    ),
)
def test_two_options_are_undecided(drawn: tuple[int, list[int]], frame: str) -> None:
    count, (first, second, *_) = drawn
    assert parse_choice(frame.format(ascii_uppercase[first], ascii_uppercase[second]), WORDS[:count]) is None


@ENOUGH
@given(
    st.permutations(WORDS),
    st.integers(2, 12),
    st.sampled_from(["{}. {}\n", "({}) {} ", "{}) {}, ", "{}: {}\n", "{} "]),
    st.data(),
)
def test_repeated_options_decide_nothing(words: list[str], count: int, item: str, data: st.DataObject) -> None:
    options = words[:count]
    echo = "".join(item.format(letter, word) for letter, word in zip(ascii_uppercase, options, strict=False))
    right = data.draw(st.integers(0, count - 1))
    assert parse_choice(echo, options) is None
    assert parse_choice(f"{echo}\nAnswer: {ascii_uppercase[right]}", options) == right


YES = [
    "yes",
    "Yes",
    "YES.",
    "**Yes**",
    "Yes, they match.",
    "\\boxed{yes}",
    "<answer>Yes</answer>",
    "oui",
    "是的",
    "はい",
    "Ja.",
    '{"answer": true}',
]
NO = [
    "no",
    "No",
    "NO!",
    "**No**",
    "No, they don't.",
    "\\boxed{No}",
    "<answer>no</answer>",
    "Not really.",
    "不是",
    "いいえ",
    "Nein",
    '{"answer": "no"}',
]


@ENOUGH
@given(
    st.sampled_from([(word, True) for word in YES] + [(word, False) for word in NO]),
    st.sampled_from(["{}", "<think>yes or no?</think>{}", "<think>No? Yes?</think>\n{}", "{}\n", "Answer: {}"]),
    st.sampled_from(["", "\nThere is no doubt about it.", "\nA dog is in the picture."]),
)
def test_yes_and_no_are_read(said: tuple[str, bool], frame: str, after: str) -> None:
    assert parse_yes_no(frame.format(said[0]) + after) is said[1]


@ENOUGH
@given(
    st.integers(-(10**9), 10**9),
    st.sampled_from(
        [
            "{}",
            "{:,}",
            "**{}**",
            "The answer is {}.",
            "There are {:,} dogs.",
            "\\boxed{{{}}}",
            "<answer>{}</answer>",
            "{} in total",
            "Total: {}",
            "{}个",
        ]
    ),
)
def test_whole_numbers_are_read(value: int, frame: str) -> None:
    assert parse_number(frame.format(value)) == value


@ENOUGH
@given(
    st.integers(0, 99),
    st.integers(0, 99),
    st.sampled_from(["{} or {}", "{}-{}", "between {} and {}", "{} to {}", "{} dogs and {} cats"]),
)
def test_two_numbers_are_undecided(first: int, second: int, frame: str) -> None:
    assume(first != second)
    assert parse_number(frame.format(first, second)) is None


@ENOUGH
@given(st.text(max_size=60))
def test_parsers_are_total(text: str) -> None:
    assert parse_yes_no(text) in (True, False, None)
    assert parse_choice(text, ["cat", "dog"]) in (0, 1, None)
    value = parse_number(text)
    assert value is None or math.isfinite(value)
    assert parse_label(text, labels=["cat", "dog"]) in (("cat",), ("dog",), None)
    parse_label(text)
