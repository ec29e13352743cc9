"""Every suite runs at tiny sizes and writes what the page is made of. Nothing here looks at how long anything takes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import against_released, against_transformers, growth, ours, sizes
from benchmarks.__main__ import SUITES, main
from benchmarks.agreement import check_agreement
from benchmarks.flops import executed_flops
from benchmarks.measure import Spread, time_in_turns
from benchmarks.memory import peak_bytes
from benchmarks.peers import weights
from benchmarks.suite import Settings

SMOKE = Settings(smoke=True, rounds=2, block=0.0)


@pytest.fixture
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is measured in processes that take seconds to start; they have a test of their own."""
    for suite in (against_released, growth):
        monkeypatch.setattr(suite, "peak_bytes", lambda *_, **__: 1000)


def is_spread(content: dict[str, Any]) -> bool:
    lower, upper = content["quartiles"]
    return content["rounds"] >= 1 and lower <= content["median"] <= upper


@pytest.mark.usefixtures("_no_processes")
@pytest.mark.parametrize("suite", SUITES)
def test_smoke_run_writes_results(suite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--smoke", "--only", suite, "--out", str(tmp_path)])
    content = json.loads((tmp_path / f"{suite}.json").read_text())
    assert content["suite"] == suite
    assert content["settings"]["smoke"]
    assert content["hardware"]["cores"] >= 1
    assert set(content["versions"]) == {"python", "torch", "transformers", "avfusion"}
    assert content["measurements"]
    for measurement in content["measurements"]:
        assert measurement["unit"] in {"s", "B", "FLOP", "FLOP/s", ""}
        assert is_spread(measurement)
        assert "ratio" not in measurement or is_spread(measurement["ratio"])
    cells = [(m["work"], m["variant"], m["quantity"]) for m in content["measurements"]]
    assert len(set(cells)) == len(cells)
    for target in content["targets"]:
        enough = target["value"] >= target["target"] if target["bound"] == "at least" else None
        assert target["met"] == (target["value"] <= target["target"] if enough is None else enough)
    printed = capsys.readouterr().out
    assert all(target["name"] in printed for target in content["targets"])
    assert f"of {len(content['targets'])} targets met" in printed
    assert str(tmp_path.parent) not in json.dumps(content)


@pytest.mark.usefixtures("_no_processes")
def test_smoke_run_leaves_the_committed_results_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.__main__.RESULTS", tmp_path)
    main(["--smoke", "--only", "growth"])
    assert not list(tmp_path.iterdir())


def test_nothing_is_timed_that_computes_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    right = weights.for_released

    def wrong(*arguments: Any) -> dict[str, torch.Tensor]:
        state = right(*arguments)
        return state | {"layers.1.down.bias": state["layers.1.down.bias"] + torch.linspace(0, 1, sizes.SMOKE.hidden)}

    monkeypatch.setattr(weights, "for_released", wrong)
    with pytest.raises(RuntimeError, match="24 windows: outputs must agree"):
        against_released.run(SMOKE)


def test_peer_of_transformers_that_computes_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    right = weights.for_transformers

    def wrong(*arguments: Any, **named: Any) -> dict[str, torch.Tensor]:
        return {name: 1.5 * value for name, value in right(*arguments, **named).items()}

    monkeypatch.setattr(weights, "for_transformers", wrong)
    with pytest.raises(RuntimeError, match="Blip2QFormerModel, eager: outputs must agree"):
        against_transformers.run(SMOKE)


def test_agreement() -> None:
    ones = torch.ones(3)
    check_agreement("these", ones, ones + 5e-4)
    for other in (ones + 2e-3, ones * torch.nan):
        with pytest.raises(RuntimeError, match="these: outputs must agree"):
            check_agreement("these", other, ones)


def test_memory_of_a_process() -> None:
    """A peak that is known from below: the gradients of the weights."""
    held = sum(parameter.numel() for parameter in ours.projector(sizes.SMOKE).parameters()) * 4
    assert peak_bytes(SMOKE, model="avfusion", task="training", windows=2, checkpoint_every=1) > held


def test_every_backend_executes_the_operations_of_its_products() -> None:
    """All count attention's two products; the fused ones are not missed."""
    size = sizes.FULL._replace(stream=16, hidden=16, heads=2, queries=4, slots=4, llm_dim=24)
    frames = ours.frames(ours.tokens(size, 1, 20))

    def count(name: Any) -> int:
        projector = ours.projector(size)
        ours.encoder_of(projector).set_attn_implementation(name)
        return executed_flops(lambda: projector(frames))

    assert count("sdpa") == count("eager")
    assert 0 < count("prefix_sdpa") < count("sdpa")


def test_operations_of_a_backward_pass_are_counted() -> None:
    x, y = torch.randn(2, 1, 2, 3, 5, requires_grad=True).unbind()
    products = 2 * 2 * 3 * 3 * 5  # of one head and window: two of them forwards, five backwards

    def step() -> None:
        attention = torch.nn.functional.scaled_dot_product_attention(x, y, y)
        if torch.is_grad_enabled():
            attention.sum().backward()

    assert executed_flops(step) == 2 * products
    assert executed_flops(step, training=True) == 7 * products


def test_turns() -> None:
    order: list[str] = []
    timings = time_in_turns({name: lambda name=name: order.append(name) for name in "ab"}, device="cpu", rounds=3)
    assert "".join(order).endswith("ababab")
    assert len(timings.of("a")) == len(timings.seconds["wall time"]["b"]) == 3


def test_ratio_is_taken_round_by_round() -> None:
    timings = time_in_turns({"a": lambda: None, "b": lambda: None}, device="cpu", rounds=3)
    timings.seconds[timings.clock].update(a=[1.0, 10.0, 2.0], b=[2.0, 30.0, 2.0])
    assert timings.ratio("b", "a") == Spread(median=2.0, lower=1.5, upper=2.5, rounds=3)
