"""CIDEr-D against pycocoevalcap's, and the words that captions are cut into."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider

from avfusion.aveb._text import caption_words
from avfusion.aveb.metrics import CIDErD, make_metric
from avfusion.aveb.metrics.cider import cider_d
from avfusion.errors import InvalidValueError
from tests.aveb.metrics.samples import ADVERSARIAL, CAPTIONS, sentences

items_of_captions = st.lists(
    st.tuples(sentences, st.lists(sentences, min_size=1, max_size=4)), min_size=1, max_size=6
).filter(lambda items: any(text for _, texts in items for text in texts))  # pycocoevalcap needs one word


def theirs(predictions: list[str], references: list[list[str]]) -> tuple[float, list[float]]:
    right = dict(enumerate(references))
    value, scores = Cider().compute_score(right, {number: [text] for number, text in enumerate(predictions)})
    return float(value), scores.tolist()


@settings(max_examples=100)
@given(items_of_captions)
def test_equals_pycocoevalcap(items: list[tuple[str, list[str]]]) -> None:
    predictions, references = [said for said, _ in items], [right for _, right in items]
    value, scores = theirs(predictions, references)
    assert cider_d(predictions, references) == pytest.approx(scores, rel=1e-12, abs=1e-14)
    metric = CIDErD(resamples=1)
    metric.update(predictions, references)
    value, _ = theirs(*_words(predictions, references))
    assert metric.compute().value == pytest.approx(value, rel=1e-12, abs=1e-14)


def test_equals_pycocoevalcap_on_real_and_adversarial_captions() -> None:
    predictions = CAPTIONS + ADVERSARIAL
    references = [
        [CAPTIONS[(number + 1) % 6], CAPTIONS[0], CAPTIONS[0], text] for number, text in enumerate(predictions)
    ]
    metric = CIDErD()
    metric.update(predictions, references)
    value, scores = theirs(*_words(predictions, references))
    assert metric.compute().value == pytest.approx(value, rel=1e-12)
    low, high = metric.compute().interval
    assert min(scores) < low < value < high < max(scores)


def _words(predictions: list[str], references: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    def cut(text: str) -> str:
        return " ".join(caption_words(text))

    return [cut(text) for text in predictions], [[cut(text) for text in texts] for texts in references]


def test_rarity_is_counted_over_the_whole_set() -> None:
    captions = ["a dog barks", "a cat sleeps", "a bird sings"]
    metric = CIDErD()
    for said in captions:
        metric.update([said], [[said]])
    assert metric.compute().value == pytest.approx(theirs(captions, [[said] for said in captions])[0])


def test_empty_captions_and_a_single_item_score_zero() -> None:
    for predictions, references in ((["a dog"], [["a dog"]]), (["", ""], [[""], ["."]])):
        metric = make_metric("cider")
        metric.update(predictions, references)
        assert metric.compute().value == 0.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A man's dog doesn't bark.", "a man 's dog does n't bark"),
        ("They’ll  can't “quote” won't", "they 'll ca n't quote wo n't"),
        ("t-shirts, women/girls & U.S. flags", "t-shirts women/girls & u.s. flags"),
        ("It costs $5.00 or 1,000 at 10:30!", "it costs $ 5.00 or 1,000 at 10:30"),
        ("a child (maybe 3) -- laughs...", "a child -lrb- maybe 3 -rrb- laughs"),
        ("cannot gonna o'clock", "can not gon na o'clock"),
        ("Ω_t 東京 é", "ω_t 東京 é"),
        ("", ""),
        (" . ", ""),
    ],
)
def test_words_of_captions(text: str, words: str) -> None:
    assert " ".join(caption_words(text)) == words


def test_refuses_an_unknown_tokeniser() -> None:
    with pytest.raises(InvalidValueError, match="tokeniser: must be"):
        make_metric("cider", tokeniser="spacy")
