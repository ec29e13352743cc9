"""Only real windows are computed, each once, in any portions, and every portion gives the same."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from avfusion import (
    AudioVisualConnector,
    CausalQFormer,
    Frames,
    FrameSynchroniser,
    InvalidValueError,
    MultiResolutionProjector,
    SlidingWindowProjector,
    TokenStream,
)
from avfusion.functional.packing import HostFrames, group_windows, join_small_groups
from tests.core.test_windows import cuts, leading_frames, window_starts

SLOTS, DIM = 2, 3  # of leading_frames


def qformer(**changes: Any) -> CausalQFormer:
    sizes = {"input_dim": DIM, "hidden_size": 4, "num_heads": 1, "num_queries": 2, "tokens_per_frame": SLOTS}
    return CausalQFormer(**{**sizes, "window_frames": 6, "dropout": 0.0, **changes})


def projector(window: int = 4, stride: int | None = None, **changes: Any) -> SlidingWindowProjector:
    torch.manual_seed(1)
    built = SlidingWindowProjector(
        window_encoder=qformer(), window_frames=window, stride_frames=stride, llm_dim=5, **changes
    )
    return built.double()


def ragged(lengths: list[int], **options: Any) -> Frames:
    tokens = torch.randn(len(lengths), max(lengths), SLOTS, DIM, dtype=torch.float64, **options)
    return Frames.from_rate(tokens, 2.0, lengths=lengths)


def frames_encoded(module: SlidingWindowProjector, frames: Frames) -> list[tuple[int, int]]:
    """Windows and frames a window of each call of the window encoder."""
    seen: list[tuple[int, int]] = []

    def note(encoder: nn.Module, given: tuple[Any, ...], options: dict[str, Any]) -> None:
        index = options.get("frame_index")
        seen.append(tuple((given[0] if index is None else index).shape[:2]))

    handle = module.window_encoder.register_forward_pre_hook(note, with_kwargs=True)
    module(frames)
    handle.remove()
    return seen


@settings(deadline=None, max_examples=60)
@given(frames=leading_frames(), cut=cuts(), multiple=st.integers(1, 3))
def test_groups_hold_every_real_window_once_and_its_real_frames_in_order(frames, cut, multiple) -> None:
    window, stride = cut
    host = HostFrames.of(frames)
    layout = host.windows(window, stride)
    total, count = frames.mask.shape[1], layout.mask.shape[1]
    found: dict[int, list[int]] = {}
    for group in group_windows(host, layout, multiple=multiple):
        length = group.frames.shape[1]
        assert length == window or length % multiple == 0
        for place, rows in zip(group.windows.tolist(), group.frames.tolist(), strict=True):
            assert place not in found
            found[place] = rows
            if group.whole:
                assert frames.mask.flatten(0, 1)[rows].all()
    for row in range(frames.mask.shape[0]):
        real = frames.mask[row].any(-1)
        length = int(real.nonzero().max()) + 1 if real.any() else 0
        starts = window_starts(length, window, stride)
        for k in range(count):
            inside = real[starts[k] : starts[k] + window].nonzero().flatten().tolist() if k < len(starts) else []
            rows = found.get(row * count + k)
            assert (rows is None) == (not inside)
            if rows is not None:
                held = [row * total + starts[k] + place for place in inside]
                assert [rows[place] for place in inside] == held


def test_windows_of_padding_and_missing_frames_are_not_computed() -> None:
    module = projector()
    frames = ragged([8, 5, 0, 2])
    assert frames_encoded(module, frames) == [(3, 4), (1, 2), (1, 1)]
    frames.mask[0, 0, 0] = False  # one empty slot: that window alone needs a mask
    assert frames_encoded(module, frames) == [(2, 4), (1, 4), (1, 2), (1, 1)]


@settings(deadline=None, max_examples=40)
@given(
    frames=leading_frames(),
    cut=cuts(),
    chunk=st.integers(1, 4),
    kept=st.booleans(),
    fine=st.booleans(),
    padding=st.sampled_from(["masked", "released"]),
)
def test_every_portion_gives_what_all_windows_at_once_give(frames, cut, chunk, kept, fine, padding) -> None:
    window, stride = cut
    torch.manual_seed(0)
    kind: Any = SlidingWindowProjector
    options: dict[str, Any] = {"window_frames": window, "stride_frames": stride, "llm_dim": 5}
    encoder = qformer(num_queries=2 * window, padding=padding)
    if fine:
        kind, options = MultiResolutionProjector, {**options, "fine_window_frames": 1, "fine_num_queries": 2}
    module = kind(window_encoder=encoder, chunk_windows=chunk, checkpoint_chunks=kept, **options).double()
    given = frames._replace(tokens=torch.where(frames.mask[..., None], frames.tokens, 0).requires_grad_())
    out = module(given)
    windows = module.cut(given)
    states = module.encode(windows)  # the padded batch in one call
    torch.testing.assert_close(out.query_states, states, atol=1e-12, rtol=0)
    embeddings = module.proj(states).masked_fill(~windows.window_mask.flatten()[:, None, None], 0)
    torch.testing.assert_close(out.embeddings.flatten(), embeddings.flatten(), atol=1e-12, rtol=0)
    wanted = [given.tokens, *module.parameters()]
    for one, two in zip(
        torch.autograd.grad(out.embeddings.square().sum(), wanted),
        torch.autograd.grad(embeddings.square().sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, two, atol=1e-10, rtol=1e-8)
    with torch.no_grad():
        for one, two in zip(module(frames), out, strict=True):
            torch.testing.assert_close(one, two, atol=1e-12, rtol=0)


def overlapping(padding: str, fine: bool, direction: str | None) -> SlidingWindowProjector:
    torch.manual_seed(1)
    encoder = qformer(padding=padding, causal_direction=direction, num_queries=4)
    options: dict[str, Any] = {"window_encoder": encoder, "window_frames": 4, "stride_frames": 1, "llm_dim": 5}
    if fine:
        return MultiResolutionProjector(**options, fine_window_frames=2, fine_num_queries=2).double()
    return SlidingWindowProjector(**options).double()


@settings(deadline=None, max_examples=200)
@given(
    frames=leading_frames(),
    padding=st.sampled_from(["released", "released", "masked"]),
    fine=st.booleans(),
    direction=st.sampled_from(["causal", "reversed", None]),
    grad=st.booleans(),
)
def test_windows_that_overlap_give_a_clip_what_it_gets_alone(frames, padding, fine, direction, grad) -> None:
    """Missing frames are zeros, whatever other clips hold there; so are the gradients of what is not there."""
    module = overlapping(padding, fine, direction)
    given = frames._replace(tokens=frames.tokens.clone().requires_grad_(grad))
    with torch.set_grad_enabled(grad):
        out = module(given)
    states = out.query_states.unflatten(0, (len(frames.mask), -1)) if len(out.query_states) else None
    total = torch.zeros_like(frames.tokens)
    for row in range(len(frames.mask)):
        real = frames.mask[row].any(-1).nonzero().flatten().tolist()
        length = real[-1] + 1 if real else 0
        alone = Frames(*(value[row : row + 1, :length].detach() for value in frames))
        alone = alone._replace(tokens=alone.tokens.clone().requires_grad_(grad))
        with torch.set_grad_enabled(grad):
            one = module(alone)
        count = one.mask.shape[1]
        torch.testing.assert_close(out.embeddings[row, :count], one.embeddings[0], atol=1e-12, rtol=0)
        assert not out.mask[row, count:].any()
        if states is not None:
            torch.testing.assert_close(states[row, : len(one.query_states)], one.query_states, atol=1e-12, rtol=0)
        if grad and length:
            total[row, :length] = torch.autograd.grad(one.embeddings.square().sum(), alone.tokens)[0]
    if grad and frames.tokens.numel():
        found = torch.autograd.grad(out.embeddings.square().sum(), given.tokens)[0]
        torch.testing.assert_close(found, total, atol=1e-10, rtol=1e-8)


def test_a_short_clip_beside_a_long_one_with_released_padding() -> None:
    module = overlapping("released", False, "reversed")
    frames = ragged([12, 2])
    short = Frames(*(value[1:, :2] for value in frames))
    out, alone = module(frames), module(short)
    torch.testing.assert_close(out.embeddings[1:, :4], alone.embeddings, atol=1e-12, rtol=0)
    states = module.encode(module.cut(frames))  # as compiled code does it
    torch.testing.assert_close(out.query_states, states, atol=1e-12, rtol=0)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_chunks_are_as_large_as_asked(grad, given) -> None:
    module = projector(chunk_windows=2 if given else None)
    with torch.set_grad_enabled(grad):
        calls = frames_encoded(module, ragged([20]))
    assert calls == ([(2, 4), (2, 4), (1, 4)] if given else [(5, 4)])


def test_without_gradients_a_chunk_has_a_bounded_number_of_elements(monkeypatch) -> None:
    module = projector(window=1)
    frames = Frames.from_rate(torch.empty(1, 500_010, SLOTS, DIM, dtype=torch.float64), 2.0)
    seen: list[int] = []
    monkeypatch.setattr(
        "avfusion.modules.projector.window_encoding.encode_windows",
        lambda encoder, offers, tokens, *rest: seen.append(tokens.shape[0]) or tokens.new_zeros(len(tokens), 2, 4),
    )
    with torch.no_grad():
        module(frames)
    assert len(seen) == 2
    assert max(seen) * SLOTS * DIM <= 6 * 320 * 1536


def test_checkpointed_chunks_are_computed_again_and_keep_only_their_inputs() -> None:
    saved = {}
    for kept in (False, True):
        module = projector(chunk_windows=2, checkpoint_chunks=kept)
        calls: list[int] = []
        module.window_encoder.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        sizes: list[int] = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        frames = ragged([24])
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = module(frames)
        assert len(calls) == 3
        out.embeddings.sum().backward()
        assert len(calls) == (6 if kept else 3)
        saved[kept] = sum(sizes)
    assert saved[True] < 0.2 * saved[False]


def test_tokens_that_follow_each_other_are_not_copied() -> None:
    module = projector()
    frames = ragged([8, 8])
    pointers: list[int] = []
    module.window_encoder.register_forward_pre_hook(lambda _, given: pointers.append(given[0].data_ptr()))
    module(frames)
    assert pointers == [frames.tokens.data_ptr()]


def test_overlapping_windows_share_their_frames() -> None:
    module = projector(window=4, stride=1)
    rows: list[int] = []
    module.window_encoder.register_forward_pre_hook(
        lambda _, given, options: rows.append(len(given[0])), with_kwargs=True
    )
    module(ragged([20]))
    assert rows == [20]


@pytest.mark.parametrize("chunk", [0, -1])
def test_chunks_of_none_are_refused(chunk) -> None:
    with pytest.raises(InvalidValueError, match=f"chunk_windows: must be at least 1, found {chunk}"):
        projector(chunk_windows=chunk)


def test_split_parameters_are_used_equally_often_whatever_is_real() -> None:
    module = projector(chunk_windows=1)
    full, short = ragged([8, 8]), ragged([8, 1])
    before = module(short)
    module.window_encoder.query_tokens.ds_id = 0  # as DeepSpeed marks them
    assert frames_encoded(module, full) == frames_encoded(module, short) == [(4, 4)]
    for one, two in zip(module(short), before, strict=True):
        torch.testing.assert_close(one, two, atol=1e-12, rtol=0)


# --- Compilers. ---

LENGTHS = ((2, 7), (3, 9), (1, 12), (4, 5), (2, 16), (5, 3), (3, 22), (2, 30), (6, 8), (1, 4))


@pytest.fixture
def graphs() -> list[torch.fx.GraphModule]:
    torch._dynamo.reset()
    return []


def counting(graphs: list[torch.fx.GraphModule]) -> Callable[..., Any]:
    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    return backend


@pytest.mark.parametrize(("stride", "grad"), [(None, True), (2, False)])
def test_two_graphs_serve_ten_lengths_and_batch_sizes(graphs, stride, grad) -> None:
    module, plain = projector(stride=stride), projector(stride=stride)
    module.compile_window_encoder(backend=counting(graphs))
    with torch.set_grad_enabled(grad):
        for batch, length in LENGTHS:
            frames = ragged([length, *[max(length - 3, 0)] * (batch - 1)])
            for one, two in zip(module(frames), plain(frames), strict=True):
                torch.testing.assert_close(one, two, atol=1e-12, rtol=0)
    assert len(graphs) == 2


def test_the_default_compiler_gives_the_same(graphs) -> None:
    module, plain = projector(), projector()
    module.compile_window_encoder()
    with torch.no_grad():
        frames = ragged([9, 5])
        torch.testing.assert_close(module(frames).embeddings, plain(frames).embeddings, atol=1e-10, rtol=0)


def connector() -> AudioVisualConnector:
    encoder = CausalQFormer(
        input_dim=16, hidden_size=8, num_heads=2, num_queries=2, window_frames=4, tokens_per_frame=25, dropout=0.0
    )
    return AudioVisualConnector(
        synchroniser=FrameSynchroniser(visual_dim=8, stream_dims={"audio": 8}, slots=25),
        projector=SlidingWindowProjector(window_encoder=encoder, window_frames=4, llm_dim=12),
        input_dims={"audio": 10},
    ).eval()


def media(batch: int, length: int) -> tuple[Frames, TokenStream]:
    lengths = [length, *[max(length - 3, 0)] * (batch - 1)]
    return (
        Frames.from_rate(torch.randn(batch, length, 16, 8), 2.0, lengths=lengths),
        TokenStream.from_rate(torch.randn(batch, 25 * length - 7, 10), 50.0),
    )


def test_the_whole_connector_compiles_in_one_piece_when_told_how_many_frames(graphs) -> None:
    module = connector()
    compiled = torch.compile(module, fullgraph=True, backend=counting(graphs))
    video, audio = media(2, 5)
    with torch.no_grad():
        out, same = (call(visual=video, audio=audio, num_frames=7) for call in (compiled, module))
        for one, two in zip(out, same, strict=True):
            torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)
        real = module(visual=video, audio=audio)
        count = real.mask.shape[1]
        torch.testing.assert_close(out.embeddings[:, :count], real.embeddings, atol=1e-6, rtol=1e-5)
        assert not out.mask[:, count:].any()
        late = audio._replace(timestamps=audio.timestamps + 2.0)
        with pytest.raises(RuntimeError, match="num_frames: must be at least what the longest clip needs"):
            compiled(visual=video, audio=late, num_frames=7)
        crowded = audio._replace(timestamps=audio.timestamps / 2)
        with pytest.raises(RuntimeError, match="audio: real tokens must be in time order and fit a frame and a slot"):
            compiled(visual=video, audio=crowded, num_frames=7)
    assert len(graphs) == 1


def test_too_few_frames_are_refused() -> None:
    video, audio = media(2, 7)
    with pytest.raises(
        InvalidValueError, match="num_frames: must be at least 7, which the longest clip needs, found 6"
    ):
        connector()(visual=video, audio=audio, num_frames=6)
    with pytest.raises(InvalidValueError, match="'num_frames' is an argument of forward"):
        FrameSynchroniser(stream_dims={"num_frames": 3})


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch 2.11 warns of its own reading
def test_an_exported_connector_goes_to_a_file_and_back(tmp_path) -> None:
    module = connector()

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.connector = module

        def forward(self, visual: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
            out = self.connector(visual=visual, audio=audio, num_frames=8)
            return out.embeddings, out.mask

    shapes = ({0: torch.export.Dim("batch", min=2, max=64)}, {0: torch.export.Dim("batch", min=2, max=64)})
    with torch.no_grad():
        program = torch.export.export(
            Fixed(), (torch.randn(2, 8, 16, 8), torch.randn(2, 200, 10)), dynamic_shapes=shapes
        )
        torch.export.save(program, tmp_path / "connector.pt2")
        loaded = torch.export.load(tmp_path / "connector.pt2").module()
        for batch in (2, 5):
            visual, audio = torch.randn(batch, 8, 16, 8), torch.randn(batch, 200, 10)
            embeddings, mask = loaded(visual, audio)
            wanted = module(visual=visual, audio=audio)
            torch.testing.assert_close(embeddings, wanted.embeddings, atol=1e-6, rtol=1e-5)
            assert torch.equal(mask, wanted.mask)


@given(
    lengths=st.lists(st.integers(0, 10), min_size=0, max_size=90),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=200)
def test_small_groups_are_joined_and_lose_nothing(lengths: list[int], seed: int) -> None:
    rounded = torch.tensor(lengths, dtype=torch.int64)
    whole = (torch.rand(len(lengths), generator=torch.Generator().manual_seed(seed)) < 0.5) & (rounded > 0)
    joined, same = join_small_groups(rounded, whole)
    real = rounded > 0
    assert torch.equal(joined > 0, real)
    assert (joined >= rounded).all()
    assert not (same & ~whole).any()
    assert not (same & (joined != rounded)).any()
    groups = {(int(count), bool(state)) for count, state in zip(joined[real], same[real], strict=True)}
    if int((max(lengths, default=0) - rounded)[real].sum()) <= 640 and int(real.sum()) <= 64:
        assert len(groups) <= 1
    if groups == {(10, True)}:
        assert whole[real].all()
