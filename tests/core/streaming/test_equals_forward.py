"""However a clip is cut into chunks, what its stream gives is what the clip gives at once."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avfusion import AudioVisualConnector, FinalisedFrames, Frames
from tests.core.strategies import Clip, clips, frame_rates
from tests.core.streaming.cutting import (
    NAMES,
    SLOTS,
    Collected,
    build_connector,
    build_projector,
    build_qformer,
    build_synchroniser,
    chunks_of,
    input_widths,
    whole,
)
from tests.core.test_projector import build
from tests.core.test_windows import leading_frames

fusions = st.sampled_from(["features", "tokens"])
cuts = st.sampled_from([(1, 1), (2, 2), (3, 3), (4, 2), (4, 1), (5, 3)])


@settings(deadline=None, max_examples=60)
@given(
    batch=st.lists(clips(NAMES[1:]), min_size=1, max_size=3),
    fusion=st.sampled_from(["features", "tokens"]),
    cut=cuts,
    data=st.data(),
)
def test_connector(batch: list[Clip], fusion: str, cut: tuple[int, int], data: st.DataObject) -> None:
    fine = data.draw(st.sampled_from([0, 1, 2])) if cut[0] % 2 == 0 else 0
    connector = build_connector(fusion, cut, fine)
    widths = input_widths(connector)
    wanted = Collected(len(batch)).add(connector(**whole(batch, widths, data.draw)))
    state, found = connector.initial_state(len(batch)), Collected(len(batch))
    for chunk, watermark in chunks_of(batch, widths, data.draw):
        out, state = connector.step(chunk, state, watermark=watermark)
        found.add(out.finished)
        assert not out.late.any()
    found.add(connector.flush(state).finished).check_equal(wanted)


@settings(deadline=None, max_examples=25)
@given(batch=st.lists(clips(NAMES[1:]), min_size=1, max_size=2), rate=frame_rates, fusion=fusions, data=st.data())
def test_synchroniser(batch: list[Clip], rate: float, fusion: str, data: st.DataObject) -> None:
    """Bit by bit: tokens, masks and spans."""
    synchroniser = build_synchroniser(fusion, frame_rate=rate)
    wanted = synchroniser(**whole(batch, synchroniser.dims, data.draw))
    state = synchroniser.initial_state(len(batch))
    found: list[list[tuple[Tensor, ...]]] = [[] for _ in batch]

    def add(out: FinalisedFrames) -> None:
        for row, length in enumerate(out.lengths.tolist()):
            found[row] += zip(*(value[row, :length] for value in out.frames), strict=True)
            assert not out.frames.mask[row, length:].any()
            assert not out.frames.spans[row, length:].any()

    for chunk, watermark in chunks_of(batch, synchroniser.dims, data.draw):
        out, state = synchroniser.step(chunk, state, watermark=watermark)
        add(out)
    add(synchroniser.flush(state))
    for row, frames in enumerate(found):
        for place, frame in enumerate(frames):
            assert all(torch.equal(one, value[row, place]) for one, value in zip(frame, wanted, strict=True))
        assert not wanted.spans[row, len(frames) :].any()


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("missing", ["visual", "audio", "nothing"])
@pytest.mark.parametrize(("frame_rate", "rate"), [(2.0, 50.0), (3.0, 7.3), (29.97, 25.0)])
def test_plain_tensors_go_on_where_they_stopped(frame_rate: float, rate: float, missing: str, learn: bool) -> None:
    connector = build_connector(
        cut=(4, 3), stream_dims={"audio": 4}, frame_rate=frame_rate, stream_rates={"audio": rate}, slots=25,
        learn_absent_tokens=learn,
    )  # fmt: skip
    given = {
        "visual": torch.randn(2, round(7 * frame_rate), 2, 3, dtype=torch.float64),
        "audio": torch.randn(2, round(6 * rate), 3, dtype=torch.float64),
    }
    given.pop(missing, None)
    state, found = connector.initial_state(2, streams=given), Collected(2)
    parts = {name: value.split(3 if name == "visual" else 11, 1) for name, value in given.items()}
    for place in range(max(map(len, parts.values()))):
        chunk = {name: value[place] for name, value in parts.items() if place < len(value)}
        out, state = connector.step(chunk, state)
        found.add(out.finished)
    found.add(connector.flush(state).finished).check_equal(Collected(2).add(connector(**given)))


@settings(deadline=None, max_examples=40)
@given(frames=leading_frames(), cut=cuts, encoder=st.sampled_from(["qformer", "plain", "mean", "mlp"]), data=st.data())
def test_projector(frames: Frames, cut: tuple[int, int], encoder: str, data: st.DataObject) -> None:
    """Whole frames in which nothing is real among them, window encoders that cannot stream too."""
    direction = {"causal_direction": None} if encoder == "plain" else {}
    projector = build_projector(3, 2, cut, **direction)
    if encoder in ("mean", "mlp"):
        projector = build(encoder, *cut)
    batch, total = frames.mask.shape[:2]
    state, found = projector.initial_state(batch), Collected(batch)
    edges = sorted({0, total, *data.draw(st.lists(st.integers(0, total), max_size=5))})
    for start, stop in pairwise(edges):
        lengths = None
        if data.draw(st.booleans()):
            lengths = torch.tensor([stop - start] * batch)
        chunk = Frames(*(value[:, start:stop] for value in frames))
        out, state = projector.step(chunk, state, lengths=lengths, partial=data.draw(st.booleans()))
        found.add(out.finished)
        if out.partial is not None:
            clip = Collected(batch).add(projector(Frames(*(value[:, :stop] for value in frames))))
            found.with_(out.partial).check_equal(clip)
    found.add(projector.flush(state).finished).check_equal(Collected(batch).add(projector(frames)))


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 0.15)])
@pytest.mark.parametrize("direction", ["causal", None])
@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_qformer(direction: str | None, backend: str, dtype: torch.dtype, atol: float) -> None:
    """After every frame, with masks, slots that nothing fills, and rows that get different numbers of frames."""
    qformer = build_qformer(
        8, 20, 6, hidden_size=8, num_heads=2, causal_direction=direction, attn_implementation=backend
    ).to(dtype)
    tokens = torch.randn(3, 6, 20, 8, dtype=dtype)
    mask = torch.rand(3, 6, 20) < 0.7
    mask[:, :, 15:] = False
    mask[0] = True
    mask[1, 2] = False
    masked = torch.where(mask[..., None], tokens, torch.nan)
    state, seen = qformer.initial_state(3), torch.zeros(3, dtype=torch.int64)
    for lengths in ([1, 0, 1], [2, 1, 1], [0, 3, 1], [3, 2, 1]):
        counts = torch.tensor(lengths)
        chunk, real = torch.full((3, 3, 20, 8), torch.nan, dtype=dtype), torch.zeros(3, 3, 20, dtype=torch.bool)
        for row, count in enumerate(lengths):
            chunk[row, :count] = masked[row, seen[row] : seen[row] + count]
            real[row, :count] = mask[row, seen[row] : seen[row] + count]
        real[1, counts[1] :] = True  # beyond its length nothing counts
        _, state = qformer.step(chunk, state, mask=real, lengths=counts)
        seen += counts
        assert state.num_frames.tolist() == seen.tolist()
        inside = torch.arange(6) < seen[:, None]
        assert state.mask.shape[1] == (mask & inside[..., None]).sum((1, 2)).max()
        wanted = qformer(masked, mask & inside[..., None])
        torch.testing.assert_close(qformer.flush(state), wanted, rtol=0, atol=atol)


def test_one_row_that_is_all_real() -> None:
    """The path without any mask, frame by frame and several at once."""
    qformer = build_qformer(8, 20, 6).double()
    tokens = torch.randn(2, 6, 20, 8, dtype=torch.float64)
    with torch.no_grad():
        state = qformer.initial_state(2)
        for start, stop in ((0, 1), (1, 4), (4, 6)):
            _, state = qformer.step(tokens[:, start:stop], state)
            torch.testing.assert_close(qformer.flush(state), qformer(tokens[:, :stop]), rtol=0, atol=1e-10)


def test_instruction() -> None:
    synchroniser = build_synchroniser(stream_dims={})
    projector = build_projector(3, SLOTS, (4, 2), instruction_dim=3)
    connector = AudioVisualConnector(synchroniser=synchroniser, projector=projector).double().eval()
    video, words = torch.randn(2, 11, 2, 3, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)
    said = {"instruction": words, "instruction_mask": torch.arange(5) < torch.tensor([[5], [2]])}
    state, found = connector.initial_state(2), Collected(2)
    for part in video.split(3, 1):
        out, state = connector.step({"visual": part}, state, **said)
        found.add(out.finished)
    found.add(connector.flush(state, **said).finished).check_equal(Collected(2).add(connector(video, **said)))


def test_modality_that_a_clip_lacks_gets_its_learned_token() -> None:
    connector = build_connector("tokens", (2, 2), learn_absent_tokens=True)
    video = torch.randn(2, 5, 2, 4, dtype=torch.float64)
    state, found = connector.initial_state(2, streams=["visual"]), Collected(2)
    for part in video.split(2, 1):
        out, state = connector.step({"visual": part}, state)
        found.add(out.finished)
    found.add(connector.flush(state).finished).check_equal(Collected(2).add(connector(video)))
