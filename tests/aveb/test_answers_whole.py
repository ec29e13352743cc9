"""What surrounds an answer: invented turns, reasoning, verdicts for every option; names in every spelling; cost."""

import sys
from collections.abc import Callable
from string import ascii_uppercase

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from avfusion.aveb.metrics import make_metric
from avfusion.aveb.parsers import parse_choice, parse_label, parse_number, parse_yes_no, strip_reasoning
from avfusion.aveb.parsers._markup import HEAD, TAIL, final_text

ENOUGH = settings(max_examples=200, deadline=None)
WORDS = ["amber", "basil", "cedar", "delta", "ember", "fennel"]
TURNS = [
    "\n\nQuestion: Which?\nAnswer: {}",
    "\nQ: Which?\nA: {}",
    "\nUser: Sure?\nAssistant: {}",
    "\n\nHuman: Sure?\n\nAssistant: {}",
    "\n### Question 2\nWhich?\n### Answer\n{}",
    "\n### Instruction:\nWhich?\n### Response:\n{}",
    "\n**Question:** Which?\nThe answer is {}",
    " Question: Which? Answer: {}",
    "\n---\nWhat is it?\nAnswer: {}",
    "<|im_end|>\n<|im_start|>user\nWhich?<|im_end|>\n<|im_start|>assistant\n{}",
    "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWhich?<|eot_id|>{}",
    "</s><s>[INST] Which? [/INST] {}",
    "</s> {}",
    "<|endoftext|>The answer is {}",
    "<end_of_turn>\n<start_of_turn>user\nWhich?<end_of_turn>\n<start_of_turn>model\n{}",
    "\n<|user|>\nWhich?\n<|assistant|>\n{}",
    "\n\n问题: 哪个\n答案: {}",
]
KINDS: list[tuple[Callable[[str], object], str, object, str]] = [
    (lambda text: parse_choice(text, WORDS), "B", 1, "C"),
    (parse_yes_no, "Yes", True, "no"),
    (parse_number, "3", 3, "5"),
    (lambda text: parse_label(text, labels=WORDS), "basil", ("basil",), "cedar"),
]


@ENOUGH
@given(
    st.sampled_from(KINDS),
    st.sampled_from(["{}", "{}.", "The answer is {}.", "**{}**", "<think>Question: no?\nUser: hm</think>{}"]),
    st.lists(st.sampled_from(TURNS), min_size=1, max_size=3),
)
def test_invented_turns_decide_nothing(
    kind: tuple[Callable[[str], object], str, object, str], frame: str, turns: list[str]
) -> None:
    parse, said, meant, other = kind
    assert parse(frame.format(said) + "".join(turns).format(*[other] * len(turns))) == meant


@pytest.mark.parametrize(
    "text",
    [
        "B\n\nQuestion: What is the colour of the car?\nA. Red\nB. Blue\nAnswer: C\n\nQuestion: Where is the",
        "Question: Which?\nA. amber\nB. basil\nAnswer: B",
        "Question: Which?\nAnswer: B\n\nQuestion: And now?\nAnswer: C",
        "User: Which?\nAssistant: B",
        "Let me restate it.\n\nQuestion: Which spice?\nAnswer: B",
        "### Question\nWhich?\n### Conclusion\n**B** fits.",
        "<|im_start|>user\nWhich?<|im_end|>\n<|im_start|>assistant\nB<|im_end|>",
        "<s> B </s>",
    ],
)
def test_a_turn_that_an_answer_begins_with_stays(text: str) -> None:
    assert parse_choice(text, WORDS) == 1


def _spellings(words: list[str]) -> list[str]:
    return [
        "_".join(words),
        "-".join(words),
        " ".join(words).upper(),
        words[0] + "".join(map(str.capitalize, words[1:])),
        "".join(map(str.capitalize, words)),
        "_".join(words) + "s",
    ]


@ENOUGH
@given(
    st.permutations(["siren", "engine", "rooster", "violin", "hammer", "whistle"]),
    st.integers(1, 3),
    st.sampled_from(range(5)),
    st.sampled_from(range(6)),
    st.sampled_from(["{}", "The class is {}.", '{{"label": "{}"}}', "`{}`", "**Sound:** {}\n\nIt is loud."]),
)
def test_labels_are_the_same_in_every_spelling(words: list[str], size: int, listed: int, said: int, frame: str) -> None:
    labels = [_spellings(words[:size])[listed], _spellings(words[3 : 3 + size])[listed]]
    assert parse_label(frame.format(_spellings(words[:size])[said]), labels=labels) == (labels[0].lower(),)


def test_a_label_s_plural_is_another_s_name() -> None:
    assert parse_label("dogs", labels=["dog", "dogs"]) == ("dogs",)
    assert parse_label("a new car", labels=["news", "car"]) == ("car",)


@ENOUGH
@given(
    st.integers(2, 6),
    st.data(),
    st.sampled_from(
        [
            ("| {} | {} | {} |\n", "✓", "✗"),
            ("| {} | {} | {} |\n", "yes", "no"),
            ("- {}. {}: {}\n", "correct", "incorrect"),
            ("{}) {} - {}\n", "matches", "does not match"),
            ("**{}. {}** is heard? {}.\n", "Yes", "No"),
        ]
    ),
    st.booleans(),
)
def test_verdicts_for_every_option_decide(
    count: int, data: st.DataObject, list_: tuple[str, str, str], favours: bool
) -> None:
    right = data.draw(st.integers(0, count - 1))
    row, accepted, rejected = list_
    rows = [
        row.format(ascii_uppercase[place], WORDS[place], accepted if place == right else rejected)
        for place in range(count)
        if place != right or favours
    ]
    assume(len(rows) > 1)
    head = "| Option | Name | Heard |\n|---|---|---|\n" if row.startswith("|") else ""
    assert parse_choice(head + "".join(rows), WORDS[:count]) == right


@ENOUGH
@given(st.integers(3, 6), st.data())
def test_elimination_leaves_one(count: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, count - 1))
    others = [ascii_uppercase[place] for place in range(count) if place != right]
    named = ", ".join(others[:-1]) + " and " + others[-1]
    frame = data.draw(
        st.sampled_from(
            [
                "{} can all be ruled out.",
                "It is not {}.",
                "I can eliminate {}.",
                "All but {right} are wrong.",
                "Everything except {right} is implausible.",
                "None of the options except {right} fits.",
            ]
        )
    )
    assert parse_choice(frame.format(named, right=ascii_uppercase[right]), WORDS[:count]) == right
    if len(others) > 2 and "right" not in frame:
        assert parse_choice(frame.format(" and ".join(others[:2])), WORDS[:count]) is None


@ENOUGH
@given(
    st.text(alphabet="ab <>/\n", max_size=20),
    st.lists(
        st.sampled_from(["<think>", "</think>", "<reasoning>", "</reasoning>", "<answer>", "</answer>", " x ", "y"]),
        max_size=8,
    ),
)
def test_stripping_twice_gives_the_same(text: str, parts: list[str]) -> None:
    once = strip_reasoning(text + "".join(parts))
    assert strip_reasoning(once) == once
    assert "think>" not in once
    assert "reasoning>" not in once


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),
        ("<think>a", ""),
        ("<think>a</think>", ""),
        ("b <think>a</think>", "b"),
        ("<think>a</think>b<think>c</think> ", "b"),
        ("<think>a <answer>b</answer>", "b"),
        ("<think>a</think>\n<answer>b</answer>", "b"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b", "b"),
        (" as it is ", " as it is "),
    ],
)
def test_strip_reasoning(text: str, answer: str) -> None:
    assert strip_reasoning(text) == answer


@pytest.mark.parametrize("key", ["cider", "exact_match", "vqa_accuracy", "wer", "judge", "label"])
@pytest.mark.parametrize("frame", ["<think>two cats, no</think>\n{}", "two cats</think>{}", "<answer>{}</answer>"])
def test_metrics_score_the_answer_without_its_reasoning(key: str, frame: str) -> None:
    seen: list[str] = []

    def judge(question: str, references: object, prediction: str) -> float:
        seen.append(prediction)
        return 1.0

    said = ["a dog barks", "rain on a roof"]
    values = []
    for predictions in (said, [frame.format(text) for text in said], ["<think>a dog barks", "<think>rain</think>"]):
        metric = make_metric(key, resamples=2, **({"judge": judge} if key == "judge" else {}))
        references = [[text] * (4 if key == "vqa_accuracy" else 1) for text in said]
        metric.update(predictions, references, questions=["What?"] * 2)
        values.append(metric.compute().value)
    assert values[0] == values[1]
    assert seen[2:] == [*seen[:2], "", ""] if key == "judge" else values[2] == (1.0 if key == "wer" else 0.0)


HOSTILE = [
    "A B C D ",
    "1 ",
    "yes no ",
    "not A, ",
    "amber ",
    "the answer is ",
    "Question: ",
    "\nQ: x\n",
    "</s>",
    "<s></s>",
    "<think>",
    "</think>",
    "<answer>",
    "| A ",
    "|\n",
    "A: no\n",
    "Conclusion\n",
    "\\boxed{",
    "{",
    " ",
    "\n",
    "all but ",
    "so ",
    "is ",
    "- [x] A\n",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_of_a_long_answer_the_beginning_and_the_end_are_read(piece: str) -> None:
    assert len(final_text(piece * (100_000 // len(piece)))) <= HEAD + TAIL + 1


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("parse", [kind[0] for kind in KINDS], ids=["choice", "yes_no", "number", "label"])
def test_steps_grow_with_the_length(piece: str, parse: Callable[[str], object]) -> None:
    small, large = (_steps(lambda size=size: parse(piece * (size // len(piece)))) for size in (600, 1200))
    assert large <= 2.5 * small + 500


def _steps(run: Callable[[], object]) -> int:
    """Calls and resumptions, of Python's functions and of built-in ones."""
    count = 0

    def counted(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        run()
    finally:
        sys.setprofile(before)
    return count
