"""Exact under any cutting, order and repetition; a deterministic interval that covers; errors that say what to do."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from avfusion.aveb.metrics import METRICS, BenchmarkMetric, make_metric
from avfusion.aveb.metrics._base import _number
from avfusion.aveb.metrics._bootstrap import interval
from avfusion.errors import InvalidTypeError, InvalidValueError
from tests.aveb.metrics.samples import WITHOUT_JAVA, build, items, score, update

ROOT = Path(__file__).parents[3]


@settings(max_examples=15)
@given(data=st.data(), key=st.sampled_from(WITHOUT_JAVA), with_ids=st.booleans())
def test_batches_and_order_do_not_matter(data: st.DataObject, key: str, with_ids: bool) -> None:
    rows = items(key)
    whole, cut = build(key), build(key)
    update(whole, rows, with_ids=with_ids)
    mixed = data.draw(st.permutations(rows))
    edges = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=5)))
    for start, end in zip([0, *edges], [*edges, len(rows)], strict=True):
        update(cut, mixed[start:end], with_ids=with_ids)
    assert cut.compute() == whole.compute()
    assert whole.compute().items == len(rows)


@pytest.mark.parametrize("key", WITHOUT_JAVA)
def test_repeats_of_an_identity_count_once(key: str) -> None:
    rows = items(key)
    assert score(key, rows + rows[3:7] + rows) == score(key, rows)


def test_without_identities_alike_items_all_count() -> None:
    metric = make_metric("yes_no")
    metric.update(["yes", "yes", "no"], [["yes"]] * 3)
    assert metric.compute().items == 3
    assert metric.compute().value == 2 / 3


def test_which_of_unlike_repeats_counts_does_not_depend_on_order() -> None:
    scores = set()
    for said in (["yes", "no"], ["no", "yes"]):
        metric = make_metric("yes_no")
        metric.update(said, [["yes"]] * 2, ids=["same", "same"])
        scores.add(metric.compute())
    assert len(scores) == 1


@pytest.mark.parametrize("key", WITHOUT_JAVA)
def test_forward_scores_the_batch_and_keeps_it(key: str) -> None:
    rows = items(key)
    metric = build(key)
    update(metric, rows[:9])
    batch = rows[9:]
    found = metric(
        [row["prediction"] for row in batch],
        [row["references"] for row in batch],
        ids=[row["id"] for row in batch],
        questions=[row["question"] for row in batch],
        candidates=[row["candidates"] for row in batch],
    )
    assert found == score(key, batch)
    assert metric.compute() == score(key, rows)
    metric.reset()
    update(metric, batch)
    assert metric.compute() == found


def test_merges_pickles_and_stands_in_a_collection() -> None:
    rows = items("exact_match")
    left, right = build("exact_match"), build("exact_match")
    update(left, rows[:5])
    update(right, rows[5:])
    left.merge_state(pickle.loads(pickle.dumps(right)))
    assert left.half().compute() == score("exact_match", rows)
    both = MetricCollection({key: make_metric(key) for key in ("exact_match", "label")})
    both.update(["a dog"], [["A dog."]], ids=["1"])
    assert {name: found.value for name, found in both.compute().items()} == {"exact_match": 1.0, "label": 1.0}


def test_numbers_of_texts_are_exact_and_differ() -> None:
    numbers = {_number(f"clip {index}") for index in range(20_000)}
    assert len(numbers) == 20_000
    assert all(number == int(number) and 0 <= number < 2**53 for number in numbers)


def test_interval_covers_the_truth_nineteen_times_in_twenty() -> None:
    draws = torch.Generator().manual_seed(5)
    covered = 0
    for _ in range(300):
        right = torch.bernoulli(torch.full((80,), 0.7, dtype=torch.float64), generator=draws)
        statistics = torch.stack([right, torch.ones_like(right)], dim=1)
        (low, high), value = interval(statistics, lambda sums: sums[:, 0] / sums[:, 1], resamples=200, seed=0)
        assert low <= value <= high
        covered += low <= 0.7 <= high
    assert 0.90 <= covered / 300 <= 0.99


def test_interval_is_of_ratios_of_sums() -> None:
    metric = make_metric("wer")
    metric.update(["a b c d", "x"], [["a b c d"], ["z"]])  # short items weigh less
    found = metric.compute()
    assert found.value == 0.2
    assert found.interval == (0.0, 1.0)


def test_interval_depends_on_the_seed_alone() -> None:
    found = []
    for seed in (0, 0, 1):
        metric = make_metric("cider", seed=seed, resamples=200)
        update(metric, items("cider"))
        found.append(metric.compute())
    assert found[0] == found[1]
    assert found[0].value == found[2].value
    assert found[0].interval != found[2].interval


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"predictions": "yes"}, InvalidTypeError, "predictions: must be a sequence of strings, found one string"),
        ({"references": ["yes"]}, InvalidTypeError, "references: must be a sequence of sequences"),
        ({"references": "yes"}, InvalidTypeError, "references: must be a sequence of sequences"),
        ({"references": [[]]}, InvalidValueError, "references: must hold at least one text an item, found none in"),
        ({"references": [["yes"], ["no"]]}, InvalidValueError, "references: must be one for each of 1"),
        ({"predictions": [None]}, InvalidTypeError, "predictions: must hold strings, found NoneType"),
        ({"references": [[1]]}, InvalidTypeError, "references: must hold strings, found int"),
        ({"ids": "a"}, InvalidTypeError, "ids: must be a sequence of strings"),
        ({"ids": [7]}, InvalidTypeError, "ids: must hold strings, found int"),
        ({"ids": ["a", "b"]}, InvalidValueError, "ids: must be one for each of 1"),
        ({"questions": []}, InvalidValueError, "questions: must be one for each of 1"),
        ({"candidates": [["a"], ["b"]]}, InvalidValueError, "candidates: must be one for each of 1"),
        ({"candidates": ["a"]}, InvalidTypeError, "candidates: must be a sequence of sequences"),
    ],
)
@pytest.mark.parametrize("key", ["yes_no", "cider"])
def test_update_refuses(key: str, arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    metric = make_metric(key)
    with pytest.raises(kind, match=message):
        metric.update(**({"predictions": ["yes"], "references": [["yes"]]} | arguments))
    metric.update(["yes"], [["yes"]])  # nothing of what was refused is kept
    assert metric.compute().items == 1


@pytest.mark.parametrize("key", WITHOUT_JAVA)
def test_no_item_has_no_score(key: str) -> None:
    metric: BenchmarkMetric = build(key)
    metric.update([], [])
    with pytest.raises(InvalidValueError, match="must have been given at least one item"):
        metric.compute()


def test_unknown_key_and_resamples() -> None:
    with pytest.raises(InvalidValueError, match=r"key: must be one of cider, exact_match, .* found 'bleu'"):
        make_metric("bleu")
    with pytest.raises(InvalidValueError, match="resamples: must be at least 1, found 0"):
        make_metric("yes_no", resamples=0)
    assert list(METRICS) == sorted(METRICS)


@pytest.mark.parametrize("absent", ["torchmetrics", "rapidfuzz", "whisper_normalizer"])
def test_names_the_extra_that_is_missing(absent: str) -> None:
    code = (
        f"import sys; sys.modules[{absent!r}] = None\n"
        "try:\n    from avfusion.aveb.metrics import make_metric\n    make_metric('wer')\n"
        "except ImportError as error:\n    print(error)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("pip install avfusion[aveb]")
