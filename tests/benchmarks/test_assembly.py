"""The assembly's suite adds up, and what is timed is what its names say. Nothing here looks at how long it takes."""

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import assembly
from benchmarks.suite import Settings
from examples.favor import FavorConfig, FavorForConditionalGeneration
from examples.favor.presets import full_config

STAGES = {
    *("vision tower", "image Q-Former", "audio tower"),
    *("synchroniser and connector", "merge and glue", "language model"),
}


def test_a_smoke_run(monkeypatch: pytest.MonkeyPatch) -> None:
    encode, calls = FavorForConditionalGeneration.encode, []

    def counting(self: Any, *args: Any, **inputs: Any) -> Any:
        calls.append(1)
        return encode(self, *args, **inputs)

    monkeypatch.setattr(FavorForConditionalGeneration, "encode", counting)
    result = assembly.run(Settings(smoke=True, rounds=1, block=0.0))
    # Two forward passes, one batch for the cache, and two epochs of one step from media: from the cache there are none.
    assert len(calls) == 5
    shares = {m.variant: m.value.median for m in result.measurements if m.quantity == "share of the forward pass"}
    assert sum(shares[name] for name in STAGES) == pytest.approx(1)
    assert all(value > 0 for value in shares.values())
    outside = shares["synchroniser and connector"] + shares["merge and glue"]
    assert shares["outside encoders and language model"] == pytest.approx(outside)
    share, gain = result.targets
    assert (share.value, share.target, share.at_least) == (pytest.approx(outside), 0.05, False)
    assert (gain.target, gain.at_least) == (5.0, True)
    spent = {m.variant: m for m in result.measurements if m.work.startswith("an epoch")}
    assert spent["from media"].ratio is not None
    assert gain.value == spent["from media"].ratio.median
    assert {"decode media", "processor"} <= {m.variant for m in result.measurements}
    assert assembly.AT_LEAST["cuda"] == 8.0


def test_calls_of_a_part_are_added_up() -> None:
    ticks = itertools.count()
    parts = {"one": nn.Identity(), "two": nn.Identity(), "never": nn.Identity()}
    watch = assembly._Stopwatch(parts, lambda: float(next(ticks)))

    def call() -> None:
        parts["one"](torch.zeros(1))
        parts["one"](torch.zeros(1))
        parts["two"](torch.zeros(1))

    for _ in range(2):
        spent, _ = watch.run(call, "cpu")
        assert spent == {"one": 2.0, "two": 1.0, "never": 0.0, "a forward pass": 7.0}
    watch.remove()
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in parts.values())


def test_the_scaled_model_keeps_the_published_proportions() -> None:
    def sizes(config: FavorConfig) -> dict[str, int]:
        with torch.device("meta"):
            parts = assembly._parts(FavorForConditionalGeneration(config))
        return {name: sum(value.numel() for value in part.parameters()) for name, part in parts.items()}

    full, scaled = sizes(full_config(assembly.PRESET)), sizes(FavorConfig(**assembly.SCALED))
    for name, size in scaled.items():
        assert 1 / 2.5 < size / full[name] * 128 < 2.5, name
