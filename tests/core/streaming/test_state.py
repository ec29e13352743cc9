"""The state: never changed, bounded, and all that is needed to go on, elsewhere too."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from avfusion import (
    AudioVisualConnector,
    CheckpointError,
    InvalidTypeError,
    InvalidValueError,
    map_state,
    state_from_tensors,
    state_tensors,
)
from tests.core.strategies import Clip, clips
from tests.core.streaming.cutting import NAMES, Collected, build_connector, chunks_of, input_widths, part_of

ROOT = Path(__file__).parents[3]
CASES = {"one": ((3, 3), 0), "overlap": ((4, 1), 0), "two resolutions": ((4, 2), 2)}
END = {(3, 3): (1.5, 0.0), (4, 1): (2.0, 0.0), (4, 2): (2.0, 0.0)}  # of the last window, before the hour is over
cases = pytest.mark.parametrize(("cut", "fine"), CASES.values(), ids=CASES)


def noise(connector: AudioVisualConnector, step: int, batch: int = 1, seconds: int = 1) -> dict[str, Tensor]:
    """Seconds of plain tensors of every stream, other ones in every step."""
    generator = torch.Generator().manual_seed(step)
    rates, widths = connector.synchroniser.stream_rates, input_widths(connector)
    given = {"visual": torch.randn(batch, 2 * seconds, 2, 3, generator=generator, dtype=torch.float64)}
    for name, rate in rates.items():
        given[name] = torch.randn(batch, round(rate) * seconds, widths[name], generator=generator, dtype=torch.float64)
    return given


def slow_connector(cut: tuple[int, int] = (3, 3), fine: int = 0, **changes: Any) -> AudioVisualConnector:
    return build_connector(cut=cut, fine=fine, stream_rates={"audio": 6.0, "speech": 4.0}, **changes)


@settings(deadline=None, max_examples=15)
@given(batch=st.lists(clips(NAMES[1:]), min_size=1, max_size=2), case=st.sampled_from(sorted(CASES)), data=st.data())
def test_old_states_stay_as_they_were(batch: list[Clip], case: str, data: st.DataObject) -> None:
    """And from each of them the rest of the clip gives again what it gave."""
    connector = build_connector("features", *CASES[case])
    states, kept, outputs, parts = [connector.initial_state(len(batch))], [], [], []
    for chunk, watermark in chunks_of(batch, input_widths(connector), data.draw):
        kept.append(state_tensors(states[-1]))
        parts.append((chunk, watermark))
        out, state = connector.step(chunk, states[-1], watermark=watermark, partial=True)
        states.append(state)
        outputs.append(out.finished)
    last = connector.flush(states[-1]).finished
    for state, values in zip(states, kept, strict=False):
        now = state_tensors(state)
        assert set(now) == set(values)
        assert all(torch.equal(now[name], value) for name, value in values.items())
    begin = data.draw(st.integers(0, len(parts)))
    state = states[begin]
    for (chunk, watermark), wanted in zip(parts[begin:], outputs[begin:], strict=True):
        out, state = connector.step(chunk, state, watermark=watermark, partial=True)
        assert all(torch.equal(one, two) for one, two in zip(out.finished, wanted, strict=True))
    assert all(torch.equal(one, two) for one, two in zip(connector.flush(state).finished, last, strict=True))


@settings(deadline=None, max_examples=8)
@given(
    batch=st.lists(st.lists(clips(NAMES[1:]), min_size=1, max_size=2), min_size=2, max_size=2),
    case=st.sampled_from(sorted(CASES)),
    data=st.data(),
)
@torch.no_grad()
def test_rows_that_begin_and_end_at_their_own_times(batch: list[list[Clip]], case: str, data: st.DataObject) -> None:
    """Each row plays clips one after the other, pauses as it likes, and gives what each clip gives alone."""
    connector = build_connector("features", *CASES[case])
    widths = input_widths(connector)
    wanted = [Collected(1) for _ in batch]
    for row, playlist in enumerate(batch):
        for clip in playlist:
            alone = connector.initial_state(1)
            given = {name: part_of([clip], name, widths[name], [every(clip, name)], data.draw, row) for name in NAMES}
            _out, alone = connector.step(given, alone)
            wanted[row].add(_out.finished).add(connector.flush(alone).finished)

    state, found = connector.initial_state(len(batch)), Collected(len(batch))
    playing, done = [0] * len(batch), [dict.fromkeys(NAMES, 0) for _ in batch]
    while any(at < len(playlist) for at, playlist in zip(playing, batch, strict=True)):
        now = [playlist[min(at, len(playlist) - 1)] for at, playlist in zip(playing, batch, strict=True)]
        places: dict[str, list[list[int]]] = {name: [] for name in NAMES}
        for row, clip in enumerate(now):
            over = playing[row] >= len(batch[row])
            for name in NAMES:
                count = 0 if over else data.draw(st.sampled_from([0, 2, 7]))
                numbers = every(clip, name)[done[row][name] : done[row][name] + count]
                done[row][name] += len(numbers)
                places[name].append(numbers)
        chunk = {name: part_of(now, name, widths[name], places[name], data.draw) for name in NAMES}
        ends = [
            at < len(playlist) and all(done[row][name] == len(every(now[row], name)) for name in NAMES)
            for row, (at, playlist) in enumerate(zip(playing, batch, strict=True))
        ]
        out, state = connector.step(chunk, state, end=torch.tensor(ends))
        found.add(out.finished)
        for row in [row for row, ended in enumerate(ends) if ended]:
            playing[row], done[row] = playing[row] + 1, dict.fromkeys(NAMES, 0)
    fresh = state_tensors(connector.initial_state(len(batch)))
    assert all(torch.equal(state_tensors(state)[name], fresh[name]) for name in fresh if fresh[name].ndim == 1)
    for row, alone in enumerate(wanted):
        found.of(row).check_equal(alone)


def every(clip: Clip, name: str) -> list[int]:
    return list(range(len(clip.spans if name == "visual" else clip.streams[name])))


@cases
@torch.no_grad()
def test_reset_drops_a_row_and_leaves_the_others(cut: tuple[int, int], fine: int) -> None:
    connector = slow_connector(cut, fine)
    state = connector.initial_state(2)
    for step in range(2):
        _, state = connector.step(noise(connector, step, 2), state)
    alone = [connector.initial_state(1), map_state(lambda value: value[1:], state)]
    state = connector.reset(state, torch.tensor([True, False]))
    found, wanted = Collected(2), [Collected(1), Collected(1)]
    for step in range(2, 6):
        chunk = noise(connector, step, 2)
        out, state = connector.step(chunk, state)
        found.add(out.finished)
        for row in range(2):
            out, alone[row] = connector.step({name: v[row : row + 1] for name, v in chunk.items()}, alone[row])
            wanted[row].add(out.finished)
    for row in range(2):
        found.of(row).check_equal(wanted[row])
    assert found.spans[0][0][0] == 0.0
    assert found.spans[1][0][0] > 0.0


@cases
@torch.no_grad()
def test_nothing_grows(cut: tuple[int, int], fine: int) -> None:
    """Over a simulated hour: not the state, and not the process."""
    connector = slow_connector(cut, fine)
    state, sizes, resident, seconds = connector.initial_state(), set(), 0, 12
    steps = 3600 // seconds
    chunks = [noise(connector, place, seconds=seconds) for place in range(5)]
    for step in range(steps):
        out, state = connector.step(chunks[step % 5], state)
        if step >= steps // 3 and step % 12 == 0:  # as far into a window as any other of them
            sizes.add(sum(value.numel() * value.element_size() for value in state_tensors(state).values()))
        if step == steps // 3:
            resident = memory()
    assert len(sizes) == 1
    assert memory() - resident < 4e6
    assert out.finished.spans[0, -1].tolist() == [3600 - back for back in END[cut]]  # no drift


def memory() -> int:
    """Bytes that the process holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


GO_ON = """
import sys
import torch
from safetensors.torch import load_file, save_file
from avfusion import state_from_tensors
from tests.core.streaming.test_state import noise, slow_connector

folder, window, stride, fine = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(1)
connector = slow_connector((window, stride), fine)
connector.load_state_dict(load_file(f"{folder}/weights.safetensors"))
state = state_from_tensors(load_file(f"{folder}/state.safetensors"), like=connector.initial_state())
with torch.no_grad():
    out, state = connector.step(noise(connector, 5), state)
    rest = connector.flush(state)
save_file({"step": out.finished.embeddings, "rest": rest.finished.embeddings}, f"{folder}/out.safetensors")
"""


@cases
@torch.no_grad()
def test_another_process_goes_on(cut: tuple[int, int], fine: int, tmp_path: Path) -> None:
    connector = slow_connector(cut, fine)
    state = connector.initial_state(max_wait=3.0)
    for step in range(5):
        _, state = connector.step(noise(connector, step), state)
    save_file(connector.state_dict(), tmp_path / "weights.safetensors")
    save_file(state_tensors(state), tmp_path / "state.safetensors")
    arguments = [sys.executable, "-c", GO_ON, str(tmp_path), *map(str, cut), str(fine)]
    subprocess.run(arguments, cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    found = load_file(tmp_path / "out.safetensors")
    out, state = connector.step(noise(connector, 5), state)
    torch.testing.assert_close(found["step"], out.finished.embeddings, rtol=0, atol=1e-12)
    torch.testing.assert_close(found["rest"], connector.flush(state).finished.embeddings, rtol=0, atol=1e-12)


@torch.no_grad()
def test_rows_and_dtypes_of_a_state() -> None:
    connector = slow_connector()
    _, state = connector.step(noise(connector, 0, 3), connector.initial_state(3))
    last = map_state(lambda value: value[2:], state)
    out, _ = connector.step({name: value[2:] for name, value in noise(connector, 1, 3).items()}, last)
    whole, _ = connector.step(noise(connector, 1, 3), state)
    torch.testing.assert_close(out.finished.embeddings, whole.finished.embeddings[2:], rtol=0, atol=1e-12)
    half = connector.bfloat16()
    state = half.initial_state()
    chunk = {name: value.bfloat16() for name, value in noise(connector, 0).items()}
    for _ in range(2):
        out, state = half.step(chunk, state)
    assert out.finished.embeddings.dtype == torch.bfloat16
    floating = {name: value.dtype for name, value in state_tensors(state).items() if value.is_floating_point()}
    assert {dtype for name, dtype in floating.items() if "key" in name or "tokens" in name} == {torch.bfloat16}
    assert {dtype for name, dtype in floating.items() if "time" in name or "spans" in name} == {torch.float64}


@torch.no_grad()
def test_tensors_of_a_state_are_no_views_of_it() -> None:
    connector = slow_connector()
    _, state = connector.step(noise(connector, 0), connector.initial_state())
    before = state_tensors(state)
    for value in state_tensors(state).values():
        value.zero_()
    assert all(torch.equal(value, before[name]) for name, value in state_tensors(state).items())


def test_what_is_no_state_is_named() -> None:
    connector = slow_connector()
    tensors = state_tensors(connector.initial_state())
    lost = tensors.pop("projector.first")
    with pytest.raises(CheckpointError, match=r"found \['projector.first'\] missing and \['other'\] unknown"):
        state_from_tensors({**tensors, "other": lost}, like=connector.initial_state())
    with pytest.raises(InvalidTypeError, match="state: must be a tree of tuples and tensors, found dict"):
        map_state(lambda value: value, tensors)
    with pytest.raises(InvalidValueError, match=r"rows: must be \(batch,\) = \(1,\), found shape \(2,\)"):
        connector.reset(connector.initial_state(), torch.tensor([True, True]))
    with pytest.raises(InvalidTypeError, match=r"end: must be boolean, found torch.int64"):
        connector.step({}, connector.initial_state(), end=torch.tensor([1]))
