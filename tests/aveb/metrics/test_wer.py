"""The word error rate against jiwer and torchmetrics, and Whisper's normaliser."""

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.text import WordErrorRate as PlainWordErrorRate

from avfusion.aveb._text import whisper_english
from avfusion.aveb.metrics import WordErrorRate
from tests.aveb.metrics.samples import ADVERSARIAL, CAPTIONS, sentences


def rate(predictions: list[str], references: list[str]) -> float:
    metric = WordErrorRate(resamples=1)
    metric.update(predictions, [[reference] for reference in references])
    return metric.compute().value


@settings(max_examples=60)
@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=6))
def test_is_that_of_jiwer_and_torchmetrics(pairs: list[tuple[str, str]]) -> None:
    said, right = (list(texts) for texts in zip(*pairs, strict=True))
    plain_said, plain_right = ([whisper_english()(text).strip() for text in texts] for texts in (said, right))
    assert rate(said, right) == pytest.approx(jiwer.wer(plain_right, plain_said), rel=1e-12)
    if any(plain_right):
        assert rate(said, right) == pytest.approx(float(PlainWordErrorRate()(plain_said, plain_right)), rel=1e-6)


@pytest.mark.parametrize("right", ADVERSARIAL + CAPTIONS)
@pytest.mark.parametrize("said", ADVERSARIAL[:-2] + CAPTIONS[:2])
def test_adversarial_texts_agree_with_jiwer(said: str, right: str) -> None:
    plain_said, plain_right = (" ".join(whisper_english()(text).split()) for text in (said, right))
    assert rate([said], [right]) == jiwer.wer(plain_right, plain_said)


@pytest.mark.parametrize(
    ("said", "right", "value"),
    [
        ("", "", 0.0),
        ("um", "uh, hmm.", 0.0),
        ("", "one two", 1.0),
        ("she hears rain", "", 3.0),  # three insertions; an empty reference counts as one word
        ("HELLO, world!", "hello world", 0.0),
        ("the grey colour", "the gray color", 0.0),
        ("he's got twenty-five dollars", "he has got $25", 0.0),
        ("can't", "can not", 0.0),
        ("a b c d", "b c d e", 0.5),
        ("word " * 3000, "word " * 3000 + "x", 1 / 3001),
    ],
)
def test_defined_values(said: str, right: str, value: float) -> None:
    assert rate([said], [right]) == value


def test_empty_references_add_errors_but_no_words() -> None:
    assert rate(["a b", "rain falls"], ["", "rain falls"]) == 2 / 2
    assert rate(["", "rain falls"], ["", "rain falls"]) == 0.0


@given(st.text(max_size=30))
def test_takes_any_text(text: str) -> None:
    assert rate([text], [text]) == 0.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Mr. Park visited Assoc. Prof. Kim Jr.", "mister park visited associate professor kim junior"),
        ("I'm honoured; you've analysed it", "i am honored you have analyzed it"),
        ("He turned twenty one in nineteen ninety-nine", "he turned 21 in 1999"),
        ("[noise] it costs two hundred pounds (laughs)", "it costs £200"),
        ("Café Noël", "cafe noel"),
        ("one oh one", "101"),
    ],
)
def test_normaliser_is_that_of_whisper(text: str, words: str) -> None:
    assert " ".join(whisper_english()(text).split()) == words
