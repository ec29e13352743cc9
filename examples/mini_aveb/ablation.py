"""The study: every variant with every seed, each run written down as soon as it is done."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from time import process_time
from typing import Any

import torch
from transformers.utils import logging

from avfusion.errors import InvalidValueError
from avfusion.files import locked
from examples.mini_aveb.data import collate
from examples.mini_aveb.fitting import fit
from examples.mini_aveb.model import Variant
from examples.mini_aveb.scoring import figures, shares
from examples.mini_aveb.settings import Settings
from examples.mini_aveb.train import examine
from examples.mini_aveb.variants import VARIANTS
from examples.mini_aveb.workplace import Workplace

Row = dict[str, Any]


def study(
    out: Path, settings: Settings, *, seeds: int, workers: int, variants: Mapping[str, Variant] = VARIANTS
) -> list[Row]:
    """Runs what is not in ``runs.jsonl`` yet, seed by seed, so that a study that is cut has whole seeds.

    Args:
        out: the study's folder; files and towers, which all runs share, are made in it, or taken from it.
        settings: of every run; the seed is that of files and towers.
        seeds: runs of each variant, with seeds 0, 1, …
        workers: processes, each on one core.
        variants: what to compare.

    Returns:
        The rows of all runs that were asked for, seed by seed.
    """
    with locked(out):
        return _study(out, settings, seeds, workers, variants)


def _study(out: Path, settings: Settings, seeds: int, workers: int, variants: Mapping[str, Variant]) -> list[Row]:
    Workplace(out, settings).prepare()
    path = out / "runs.jsonl"
    wanted = [(seed, variant) for seed in range(seeds) for variant in variants.values()]
    done = _done(path, wanted)
    waiting = [pair for pair in wanted if _key(*pair) not in done]
    with path.open("a", encoding="utf-8") as file:
        for row in _runs(out, settings, waiting, workers):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
            done[row["seed"], row["variant"]["name"]] = row
            print(f"seed {row['seed']}, {row['variant']['name']}: {row['seconds']:.0f} s", flush=True)
    return [done[_key(*pair)] for pair in wanted]


def _runs(out: Path, settings: Settings, waiting: Sequence[tuple[int, Variant]], workers: int) -> Iterator[Row]:
    """Rows as they are done; a single worker is this process."""
    if not waiting:
        return
    if workers == 1:
        _begin(out, settings)
        yield from (run_one(*pair) for pair in waiting)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (out, settings)) as pool:
        for future in as_completed([pool.submit(run_one, *pair) for pair in waiting]):
            yield future.result()


def _key(seed: int, variant: Variant) -> tuple[int, str]:
    return seed, variant.name


def _done(path: Path, wanted: Sequence[tuple[int, Variant]]) -> dict[tuple[int, str], Row]:
    """The rows that are there; a last line that a killed study left unfinished is taken off."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    rows = {(row["seed"], row["variant"]["name"]): row for row in map(json.loads, whole.splitlines())}
    for seed, variant in wanted:
        row = rows.get((seed, variant.name))
        if row is not None and row["variant"] != asdict(variant):
            raise InvalidValueError(
                f"out: {path} has runs of {row['variant']}, found {asdict(variant)}; take another folder"
            )
    return rows


_shared: dict[str, Any] = {}


def _begin(out: Path, settings: Settings) -> None:
    """What a worker needs for all its runs."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    place = Workplace(out, settings)
    _shared.update(
        settings=settings,
        towers=place.prepare(),
        tokenizer=place.tokenizer(),
        train=place.items("train"),
        test=place.items("test"),
    )


def run_one(seed: int, variant: Variant) -> Row:
    """One variant, trained and examined."""
    start, settings = process_time(), _shared["settings"]
    model = fit(_shared["towers"], _shared["tokenizer"], _shared["train"], variant, settings, seed=seed)
    said = examine(model, _shared["tokenizer"], _shared["test"], variant)
    return {
        "seed": seed,
        "variant": asdict(variant),
        "figures": figures(said),
        "shares": shares(said),
        "tokens": _tokens(model, variant),
        "parameters": sum(parameter.numel() for parameter in model.connector.parameters()),
        "seconds": round(process_time() - start, 1),
    }


def _tokens(model: Any, variant: Variant) -> float:
    """Embeddings that a clip gives to the language model, on average over the test split."""
    items = _shared["test"]
    counts = [model.num_placeholders(features=collate(batch, variant.frame_rate)) for batch in _cut(items)]
    return float(torch.cat(counts).double().mean())


def _cut(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), 100):
        yield items[first : first + 100]
