"""What free-form answers decide, as tables."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfusion.aveb.parsers import SOUND_SOURCE_TEMPLATES, parse_choice, parse_label, parse_yes_no
from avfusion.errors import InvalidTypeError, InvalidValueError

CLOTHES = ["A scarf", "A hat", "A pair of jeans", "A dress", "A jacket"]


@pytest.mark.parametrize(
    ("text", "index"),
    [
        # a letter
        ("B", 1),
        (" b ", 1),
        ("(b)", 1),
        ("B.", 1),
        ("**C**", 2),
        ('"D"', 3),
        ("A", 0),
        ("Answer: C.", 2),
        ("answer: (c)", 2),
        ("The answer is B", 1),
        ("The answer is B because she wears it", 1),
        ("the correct answer is (D) A dress", 3),
        ("The answer is option e.", 4),
        ("Answer is A, as heard", 0),
        ("My choice would be D.", 3),
        ("Option D", 3),
        ("option a is right", 0),
        ("I pick option (e)", 4),
        ("D) A dress", 3),
        ("d. a dress", 3),
        ("E: A jacket", 4),
        ("Certainly (C) since they talk about trousers", 2),
        ("Answer: C. Not (A) or (B).", 2),
        ("C\n\nThe speaker mentions trousers.", 2),
        ("B - a hat", 1),
        ("**B**. A hat", 1),
        ("Answer: **A**", 0),
        ("The answer is I think", None),
        ("Answer: A scarf or a hat", None),
        # a number after a word that says so
        ("option 3", 2),
        ("Option #3.", 2),
        ("The answer is option 1", 0),
        ("choice (5)", 4),
        ("3", None),
        ("option 6", None),
        ("option 3.5", None),
        # the text
        ("A jacket", 4),
        ("a JACKET!", 4),
        ("A hat.\n", 1),
        ("Answer: a jacket", 4),
        ("Answer: A jacket", 4),
        ("They talk about a pair of jeans.", 2),
        ("“A dress”", 3),
        # ambiguous or nothing
        ("A or B", None),
        ("Answer: B or C", None),
        ("Answer: B, C", None),
        ("(A) and (C)", None),
        ("B. or C.", None),
        ("B, (D) and E", None),
        ("Answer: C. A, B and D are wrong.", 2),
        ("option 1 or option 2", None),
        ("a hat that hat a hat", 1),
        ("F", None),
        ("(z)", None),
        ("", None),
        ("...", None),
        ("I cannot tell", None),
        ("jackets", None),
        ("帽子", None),
    ],
)
def test_choice(text: str, index: int | None) -> None:
    assert parse_choice(text, CLOTHES) == index


@pytest.mark.parametrize(
    ("text", "candidates", "index"),
    [
        ("cat and dog", ["cat", "dog"], None),  # equally long
        ("a black dog", ["dog", "black dog"], 1),  # the longest
        ("catalogue", ["cat", "dog"], None),  # words, not letters
        ("1 x 10^-5", ["1 x 10^-3", "1 x 10^-5", "1 x 10^-6"], 1),
        ("1 x 10^-55", ["1 x 10^-3", "1 x 10^-5"], None),
        ("B", ["b", "a"], None),  # a letter and another's text
        ("A", ["a", "b"], 0),
        ("dog", ["dog", "dog"], None),
        ("A. Lincoln", ["Washington", "A. Lincoln"], 1),
        ("B. Lincoln", ["Washington", "A. Lincoln"], 1),
        ("I", ["cat", "dog"], None),
        ("three", ["three", "six"], 0),
        ("There's a bird. There's no dog.", ["dog", "bird"], 1),
        ("It doesn't contain a cat or a dog; it has a bird.", ["cat", "dog", "bird"], 2),
        ("A ✗ B ✓ C ✗", ["cat", "dog", "bird"], 1),
        ("It's 50%.", ["5", "50%"], 1),
        ("yes", ["...", "yes"], 1),  # a candidate without a word is never contained
        ("no match", ["...", "yes"], None),
        ("straße", ["STRASSE", "Straße"], 1),
        ("c" * 100_000, ["cat", "c"], None),
    ],
)
def test_choice_among(text: str, candidates: list[str], index: int | None) -> None:
    assert parse_choice(text, candidates) == index


@given(st.text(max_size=40), st.lists(st.text(max_size=10), min_size=1, max_size=6))
def test_choice_is_total(text: str, candidates: list[str]) -> None:
    index = parse_choice(text, candidates)
    assert index is None or 0 <= index < len(candidates)


@given(st.permutations(CLOTHES), st.integers(0, 4))
def test_choice_by_letter_follows_the_order_shown(shown: list[str], index: int) -> None:
    assert parse_choice(f"({'abcde'[index]})", shown) == parse_choice(f"I hear {shown[index]}!", shown) == index


@pytest.mark.parametrize(
    ("candidates", "kind"), [([], InvalidValueError), (["x"] * 27, InvalidValueError), ("abc", InvalidTypeError)]
)
def test_choice_refuses(candidates: list[str], kind: type[Exception]) -> None:
    with pytest.raises(kind, match="candidates"):
        parse_choice("A", candidates)


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("Yes", True),
        ("yes, they match", True),
        ("NO.", False),
        ("No, yes is wrong", False),
        ("The answer is: yes!", True),
        ("I do not know", None),
        ("nothing", None),
        ("yesterday", None),
        ("nope", False),
        ("", None),
        ("是", True),
        ("(no)", False),
        ("x" * 100_000 + " yes", True),
    ],
)
def test_yes_no(text: str, decision: bool | None) -> None:
    assert parse_yes_no(text) is decision


@pytest.mark.parametrize("template", SOUND_SOURCE_TEMPLATES)
@pytest.mark.parametrize("change", [str, str.lower, str.upper, lambda text: f" {text[:-1]}\n"])
def test_label_in_every_template(template: str, change: object) -> None:
    sentence = template.format("female speech, woman speaking")
    assert parse_label(change(sentence)) == ("female speech", "woman speaking")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("dog barking", ("dog barking",)),
        ("Dog barking.", ("dog barking",)),
        ("dog barking, Dog barking!, ", ("dog barking",)),
        ("The source of this sound in this scene is .", None),
        ("The source of this sound in this scene is", None),
        ("", None),
        (" ,.", None),
        ("犬", ("犬",)),
        ("It is a dog", ("dog",)),
        ("The sound is coming from **a dog barking**.", ("dog barking",)),
        ("<think>a cat?</think>dog", ("dog",)),
        ("dog barking, not cat meowing", ("dog barking",)),
        ("I cannot tell.", None),
    ],
)
def test_label(text: str, label: tuple[str, ...] | None) -> None:
    assert parse_label(text) == label


def test_label_with_other_templates() -> None:
    assert parse_label("I hear rain, drops here.", ["I hear {} here."]) == ("rain", "drops")
    with pytest.raises(InvalidValueError, match=re.escape("templates: must hold {} once, found 'I hear'")):
        parse_label("rain", ["I hear"])
