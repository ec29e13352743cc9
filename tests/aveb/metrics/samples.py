"""Texts that real models and people write, and texts that break things."""

from typing import Any

from hypothesis import strategies as st

from avfusion.aveb.metrics import METRICS, BenchmarkMetric, Score, make_metric

ADVERSARIAL = [
    "",
    " ",
    "...",
    "Um, uh.",
    "ÅNGSTRÖM naïve 東京 🙂 \u2028 x\u0000y",
    "\ud800 lone",
    "1,000,000 dollars and 5 cents; $2.50 (two fifty) [laughter] 3/4 21st 50%",
    "don't can't y'all'd've he's o'clock",
    "word " * 300,
    "new\nline\ttab\r\nend",
    "a ||| b",
]
CAPTIONS = [
    "A dog barks twice while a man's voice is heard.",
    "A dog is barking and a man speaks",
    "Rain falls on a tin roof",
    "rain falling on a roof, with thunder",
    "Two women in t-shirts are singing",
    "a child (maybe 3 years old) laughs",
]
WITHOUT_JAVA = sorted(METRICS.keys() - {"meteor", "spice", "spider"})


def judge(question: str, references: object, prediction: str) -> float:
    return len(prediction + question) % 4 / 3


def build(key: str, **options: Any) -> BenchmarkMetric:
    return make_metric(key, **({"judge": judge} if key == "judge" else {}), resamples=50, **options)


def items(key: str, count: int = 17) -> list[dict[str, Any]]:
    """Items that fit a metric, some of them alike, each with an identity."""
    texts = CAPTIONS + ADVERSARIAL
    rows = []
    for number in range(count):
        said, right = texts[number * 5 % len(texts)], texts[number * 3 % len(texts)]
        references = [right] if key == "wer" else [right, CAPTIONS[number % 6], right, CAPTIONS[0]]
        candidates = CAPTIONS
        if key == "yes_no":
            references = ["Yes" if number % 3 else "no"]
            said = ["yes.", "No way", "perhaps"][number % 5 % 3]
        elif key == "label":
            references = [CAPTIONS[number % 6]]
        elif key == "multiple_choice":
            references, said = [CAPTIONS[number % 6]], ["B", "rain falls on a tin roof", "none"][number % 3]
        row = {"prediction": said, "references": references, "candidates": candidates, "question": "what?" + said}
        rows.append(row | {"id": f"item {number}"})
    return rows


def update(metric: BenchmarkMetric, rows: list[dict[str, Any]], *, with_ids: bool = True) -> None:
    metric.update(
        [row["prediction"] for row in rows],
        [row["references"] for row in rows],
        ids=[row["id"] for row in rows] if with_ids else None,
        questions=[row["question"] for row in rows],
        candidates=[row["candidates"] for row in rows],
    )


def score(key: str, rows: list[dict[str, Any]]) -> Score:
    metric = build(key)
    update(metric, rows)
    return metric.compute()


words = st.sampled_from(["a", "dog", "cat", "barks", "the", "loudly", "日本", "2", "don't", "of", "colour", "é"])
sentences = st.lists(words, max_size=9).map(" ".join)
