"""A target that is missed says so, in the table and on the page; the committed page is the committed results'."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import page, report
from benchmarks.__main__ import RESULTS, SUITES
from benchmarks.measure import Spread
from benchmarks.suite import Measurement, Result, Settings, Target

MACHINE = {
    "hardware": {"processor": "Abacus", "cores": 2, "threads": 1, "memory_gib": 4.0},
    "versions": {"python": "3.11.0", "torch": "2.11.0"},
    "commit": "0123456789abcdef",
    "changed_since_commit": True,
    "date": "2030-01-01",
}
RESULT = Result(
    {},
    [
        Measurement("forward", "avfusion", "CPU time", "s", Spread(0.0123456, 0.012, 0.013, 5)),
        Measurement("forward", "peer", "CPU time", "s", Spread(0.02, 0.0199, 0.021, 5), Spread(1.6, 1.5, 1.7, 5)),
        Measurement("forward", "avfusion", "operations", "FLOP", Spread.of([25e9])),
    ],
    [Target("speed", 1.35, 1.349), Target("memory", 0.45, 0.46, at_least=False), Target("share", 0.85, 0.85)],
)


def content(settings: Settings) -> dict[str, Any]:
    return report.as_json("connector", RESULT, settings, MACHINE)


def test_missed_target_is_not_met() -> None:
    assert [target["met"] for target in content(Settings())["targets"]] == [False, False, True]
    lines = report.table("connector", RESULT.targets).splitlines()
    assert lines[0].endswith("≥ 1.35     1.349  falls short by 0.1%")
    assert lines[1].endswith("≤ 0.45      0.46  falls short by 2.2%")
    assert lines[2].endswith("met")


def test_page(tmp_path: Path) -> None:
    report.write(content(Settings()), report.path_of("connector", "cpu", tmp_path))
    text = page.render(tmp_path)
    assert "## The connector against its peers, CPU\n" in text
    assert "Abacus, 2 cores, 1 thread, 4 GiB. Python 3.11.0, torch 2.11.0; commit `0123456789ab` with changes" in text
    assert "| speed | ≥ 1.35 | 1.349 | **no** |\n" in text
    assert "| share | ≥ 0.85 | 0.85 | yes |\n" in text
    assert "| avfusion | 12.3 ms (12.0 to 13.0) | 25.0 GFLOP |  |\n" in text
    assert "| peer | 20.0 ms (19.9 to 21.0) |  | × 1.6 (1.5 to 1.7) |\n" in text
    assert text == page.render(tmp_path)


def test_page_of_a_smoke_run_is_refused(tmp_path: Path) -> None:
    report.write(content(Settings(smoke=True)), report.path_of("connector", "cuda", tmp_path))
    with pytest.raises(ValueError, match="found a smoke run"):
        page.render(tmp_path)


@pytest.mark.skipif(
    not any(report.path_of(suite, device, RESULTS).exists() for suite in SUITES for device in page.DEVICES),
    reason="no results here",
)
def test_committed_page_is_made_of_the_committed_results() -> None:
    assert page.PAGE.read_text() == page.render(RESULTS)
