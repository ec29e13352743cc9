"""Sound block by block: one result, for whole clips and for streams of any chunks; pictures one by one."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from avfusion import (
    AlignmentError,
    AudioEncoder,
    CheckpointError,
    InvalidTypeError,
    InvalidValueError,
    RegularAudioEncoder,
    StreamingAudioEncoder,
    TokenStream,
    Video,
    Waveform,
    map_state,
    state_from_tensors,
    state_tensors,
)
from avfusion.encoders import BlockwiseAudioEncoder
from tests.encoders import tiny

HOP, BLOCK, LEFT, AHEAD = 320, 5, 4, 2  # the last three in tokens
SECOND = tiny.RATE


def blockwise(block: int = BLOCK, left: int = LEFT, ahead: int = AHEAD, **options: Any) -> BlockwiseAudioEncoder:
    """Over Whisper in float64."""
    torch.manual_seed(1)
    heard = (block + left + ahead) / 50
    encoder = tiny.whisper(**{"chunk_seconds": heard, **options}).double()
    return BlockwiseAudioEncoder(
        encoder=encoder, block=block / 50, left_context=left / 50, look_ahead=ahead / 50, segment_batch_size=3
    )


def sound(*lengths: int, start: float = 0.0) -> Waveform:
    return tiny.clips(*lengths, start=start, dtype=torch.float64)


def cut(clip: Tensor, begin: int, end: int, start: float) -> Waveform:
    """A stretch of a clip, on its clock."""
    return Waveform.from_samples([clip[begin:end]], tiny.RATE, start=start + begin / tiny.RATE)


def together(chunks: list[Waveform]) -> Waveform:
    """A chunk of each clip."""
    samples = [chunk.samples[0, : int(chunk.lengths[0])] for chunk in chunks]
    return Waveform.from_samples(samples, tiny.RATE, start=[float(chunk.start[0]) for chunk in chunks])


class Heard:
    """The tokens of each clip so far."""

    def __init__(self, clips: int) -> None:
        self.tokens: list[list[Tensor]] = [[] for _ in range(clips)]
        self.times: list[list[float]] = [[] for _ in range(clips)]

    def add(self, stream: TokenStream) -> None:
        for row in range(len(self.tokens)):
            real = stream.mask[row]
            assert not stream.tokens[row][~real].any()
            self.tokens[row] += list(stream.tokens[row][real])
            self.times[row] += stream.timestamps[row][real].tolist()

    def check(self, row: int, whole: TokenStream, index: int = 0, atol: float = 1e-10) -> None:
        real = whole.mask[index]
        assert self.times[row] == pytest.approx(whole.timestamps[index][real].tolist(), abs=1e-9)
        if self.times[row]:
            torch.testing.assert_close(torch.stack(self.tokens[row]), whole.tokens[index][real], rtol=0, atol=atol)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 9000), min_size=1, max_size=3), st.integers(0, 6), st.integers(0, 6), st.booleans())
def test_each_block_is_what_whisper_makes_of_it_and_what_is_around_it(
    lengths: list[int], left: int, ahead: int, silence: bool
) -> None:
    encoder = blockwise(BLOCK, left, ahead, chunk_seconds=0.5 if silence else (BLOCK + left + ahead) / 50)
    wave = sound(*lengths, start=0.7)
    stream = encoder(wave)
    assert stream.mask.sum(1).tolist() == [-(-length // HOP) for length in lengths]
    for row, length in enumerate(lengths):
        parts = []
        for begin in range(0, length, BLOCK * HOP):
            low, high = max(begin - left * HOP, 0), min(begin + (BLOCK + ahead) * HOP, length)
            heard = Waveform.from_samples([wave.samples[row, low:high]], tiny.RATE)
            first = (begin - low) // HOP
            parts.append(encoder.encoder(heard).tokens[0, first : first + BLOCK])
        found = stream.tokens[row][stream.mask[row]]
        torch.testing.assert_close(found, torch.cat(parts) if parts else found, rtol=0, atol=1e-10)
        times = 0.7 + (torch.arange(len(found), dtype=torch.float64) + 0.5) / 50
        torch.testing.assert_close(stream.timestamps[row][stream.mask[row]], times, rtol=0, atol=1e-12)
    assert torch.equal(encoder.timeline(wave).timestamps, stream.timestamps)
    assert torch.equal(encoder.timeline(wave).mask, stream.mask)


@pytest.mark.parametrize("positions", [25, 1500])
def test_whole_chunks_without_context_are_whisper_as_it_is(positions: int) -> None:
    whisper = tiny.whisper(positions).double()
    wave = sound(20000, 8000, 100, 0, start=-0.3)
    encoder = BlockwiseAudioEncoder(encoder=whisper, block=whisper.chunk_seconds)
    tiny.assert_same_stream(encoder(wave), whisper(wave), atol=1e-10)
    assert encoder.delay == whisper.chunk_seconds


@pytest.mark.parametrize("positions", [5, 24])
def test_fewer_positions_are_a_whisper_of_that_length(positions: int) -> None:
    """Whose weights are the same, but for the positions that it lacks."""
    short = tiny.whisper(25, chunk_seconds=positions / 50).double()
    model = tiny.whisper(positions).double()
    state = short.model.state_dict()
    model.model.load_state_dict({**state, "embed_positions.weight": state["embed_positions.weight"][:positions]})
    wave = sound(9000, 700)
    tiny.assert_same_stream(short(wave), model(wave), atol=1e-10)
    assert not torch.allclose(short(wave).tokens[0, :5], tiny.whisper(25).double()(wave).tokens[0, :5], atol=1e-3)


@st.composite
def cuts(draw: st.DrawFn, lengths: list[int]) -> list[list[int]]:
    """For each clip, where its chunks end; as many for all, some of them empty."""
    steps = draw(st.integers(1, 6))
    ends = [sorted(draw(st.lists(st.integers(0, n), min_size=steps - 1, max_size=steps - 1))) for n in lengths]
    return [[*row, n] for row, n in zip(ends, lengths, strict=True)]


@settings(max_examples=25)
@given(st.data(), st.sampled_from([(5, 4, 2), (7, 0, 0), (3, 9, 11)]))
def test_a_stream_is_the_whole_clip(data: st.DataObject, policy: tuple[int, int, int]) -> None:
    """However the sound of each clip comes in, and wherever it ends; a state once saved is as good as another."""
    encoder = blockwise(*policy)
    lengths = data.draw(st.lists(st.integers(0, 8000), min_size=1, max_size=3))
    ends = data.draw(cuts(lengths))
    jitter = st.floats(-0.04, 0.04)
    starts = [0.7 * row - 0.5 for row in range(len(lengths))]
    wave = sound(*lengths)._replace(start=torch.tensor(starts, dtype=torch.float64))
    heard, state, begins = Heard(len(lengths)), encoder.initial_state(len(lengths)), [0] * len(lengths)
    for step in range(len(ends[0])):
        chunks = []
        for row, clip in enumerate(wave.samples):
            late = data.draw(jitter) if begins[row] else 0.0
            chunks.append(cut(clip, begins[row], ends[row][step], starts[row] + late))
            begins[row] = ends[row][step]
        before = {name: value.clone() for name, value in state_tensors(state).items()}
        stream, after = encoder.step(tiny.spoil(together(chunks), extra=3), state)
        assert all(torch.equal(value, before[name]) for name, value in state_tensors(state).items())
        heard.add(stream)
        state = after
        for row in range(len(lengths)):
            blocks = int(state.blocks[row])
            reached = starts[row] + blocks * policy[0] / 50 if begins[row] else -torch.inf
            assert float(encoder.watermark(state)[row]) == pytest.approx(reached)
            assert begins[row] - blocks * policy[0] * HOP < (policy[0] + policy[2]) * HOP  # nothing waits longer
            assert int(state.kept[row]) <= (sum(policy) + 1) * HOP
    heard.add(encoder.flush(state))
    whole = encoder(wave)
    for row in range(len(lengths)):
        heard.check(row, whole, row)


@pytest.mark.parametrize("name", tiny.AUDIO)
def test_every_encoder_hears_blocks(name: str) -> None:
    encoder = BlockwiseAudioEncoder(encoder=tiny.AUDIO[name](), block=0.2, left_context=0.1, look_ahead=0.1)
    assert isinstance(encoder, AudioEncoder)
    assert isinstance(encoder, StreamingAudioEncoder)
    wave = tiny.clips(14000, 5000, start=1.0)
    whole, heard, state = encoder(wave), Heard(2), encoder.initial_state(2)
    assert bool((whole.timestamps.diff()[whole.mask[:, 1:]] >= 0).all())
    for begin in range(0, 14000, 2500):
        chunks = [
            cut(row[:n], min(begin, n), begin + 2500, 1.0) for row, n in zip(wave.samples, (14000, 5000), strict=True)
        ]
        stream, state = encoder.step(together(chunks), state)
        heard.add(stream)
    heard.add(encoder.flush(state))
    for row in range(2):
        heard.check(row, whole, row, atol=1e-5)


def test_clips_end_and_others_follow_in_their_rows() -> None:
    encoder = blockwise()
    first, other, second = sound(7000, start=2.0), sound(9000), sound(4000, start=0.25)
    state, heard = encoder.initial_state(2), [Heard(2), Heard(2)]
    rows = [first.samples[0], other.samples[0]]
    stream, state = encoder.step(together([cut(rows[0], 0, 6000, 2.0), cut(rows[1], 0, 5000, 0.0)]), state)
    heard[0].add(stream)
    last = together([cut(rows[0], 6000, 7000, 2.0), cut(rows[1], 5000, 5000, 0.0)])
    stream, state = encoder.step(last, state, end=torch.tensor([True, False]))
    heard[0].add(stream)
    assert float(encoder.watermark(state)[0]) == -torch.inf
    heard[0].check(0, encoder(first))
    next_chunk = together([cut(second.samples[0], 0, 4000, 0.25), cut(rows[1], 5000, 9000, 0.0)])
    stream, state = encoder.step(next_chunk, state)
    heard[1].add(stream)
    heard[1].add(encoder.flush(state))
    heard[1].check(0, encoder(second))
    heard[0].tokens[1] += heard[1].tokens[1]
    heard[0].times[1] += heard[1].times[1]
    heard[0].check(1, encoder(other))

    stream, state = encoder.step(
        together([cut(rows[0], 0, 3000, 0.0), cut(rows[1], 0, 3000, 9.0)]), encoder.initial_state(2)
    )
    dropped = encoder.reset(state, torch.tensor([True, False]))
    assert encoder.flush(dropped).mask.any(1).tolist() == [False, True]
    torch.testing.assert_close(encoder.flush(dropped).tokens[1], encoder.flush(state).tokens[1], rtol=0, atol=0)


@pytest.mark.parametrize("told", [False, True])
def test_a_gap_ends_a_stretch_and_nothing_is_lost(told: bool) -> None:
    """Sound that stops and goes on later: two clips, at their times."""
    encoder, wave = blockwise(), sound(9000).samples[0]
    heard, state = Heard(1), encoder.initial_state()
    stream, state = encoder.step(cut(wave, 0, 4500, 0.0), state)
    heard.add(stream)
    if told:
        stream, state = encoder.step(None, state, watermark=4500 / SECOND + 0.01)
        assert not stream.mask.any()  # not longer than sound may be off
        assert float(encoder.watermark(state)) == pytest.approx(0.2)
        stream, state = encoder.step(None, state, watermark=0.9)
        heard.add(stream)
        assert len(heard.times[0]) == 15
        assert float(encoder.watermark(state)) == 0.9
    stream, state = encoder.step(cut(wave, 4500, 9000, 0.9), state, watermark=torch.tensor([0.3]))
    heard.add(stream)
    heard.add(encoder.flush(state))
    parts = [encoder(cut(wave, 0, 4500, 0.0)), encoder(cut(wave, 4500, 9000, 0.9))]
    whole = TokenStream(*(torch.cat(pair, 1) for pair in zip(*parts, strict=True)))
    heard.check(0, whole)


def test_sound_that_never_comes_is_not_waited_for() -> None:
    encoder = blockwise()
    stream, state = encoder.step(None, encoder.initial_state(2), watermark=torch.tensor([torch.inf, 3.0]))
    assert stream.tokens.shape == (2, 0, encoder.output_dim)
    assert stream.tokens.dtype == torch.float64
    assert encoder.watermark(state).tolist() == [torch.inf, 3.0]
    stream, state = encoder.step(together([cut(torch.zeros(9), 0, 0, 0.0), sound(6000, start=2.98)]), state)
    assert float(stream.timestamps[1, 0]) == pytest.approx(3.01)  # not before the watermark


def test_a_state_is_saved_and_resumed(tmp_path: Any) -> None:
    encoder, wave = blockwise(), sound(9000, 8000)
    rows = list(wave.samples)
    _, state = encoder.step(together([cut(row, 0, 4100, 0.0) for row in rows]), encoder.initial_state(2))
    save_file(state_tensors(state), tmp_path / "state.safetensors")
    again = state_from_tensors(load_file(tmp_path / "state.safetensors"), encoder.initial_state(2))
    rest = together([cut(row, 4100, 9000, 0.0) for row in rows])
    found, wanted = (encoder.step(rest, each) for each in (again, state))
    assert all(torch.equal(*pair) for pair in zip(found[0], wanted[0], strict=True))
    second = map_state(lambda value: value[1:], state)
    alone, _ = encoder.step(cut(rows[1], 4100, 9000, 0.0), second)
    torch.testing.assert_close(alone.tokens[0], wanted[0].tokens[1][wanted[0].mask[1]], rtol=0, atol=1e-10)
    with pytest.raises(CheckpointError, match=r"\['kept'\] missing"):
        state_from_tensors({k: v for k, v in state_tensors(state).items() if k != "kept"}, state)


def test_a_trained_encoder_gets_gradients_without_sound_too() -> None:
    encoder = blockwise(frozen=False)
    for wave in (sound(5000, 0), sound(0, 0)):
        encoder.zero_grad()
        encoder(wave).tokens.sum().backward()
        grads = [value.grad for value in encoder.parameters() if value.requires_grad]
        assert all(grad is not None and bool(grad.isfinite().all()) for grad in grads)


def test_delay_and_cost_are_as_documented() -> None:
    encoder = blockwise()
    assert encoder.delay == pytest.approx((BLOCK + AHEAD) / 50)
    wave = sound((BLOCK + AHEAD) * HOP)
    assert not encoder.step(cut(wave.samples[0], 0, (BLOCK + AHEAD) * HOP - 1, 0.0), encoder.initial_state())[
        0
    ].mask.any()
    assert encoder.step(wave, encoder.initial_state())[0].mask.sum() == BLOCK
    positions = []
    encoder.encoder.model.layer_norm.register_forward_hook(lambda _, given, __: positions.append(given[0].shape[:2]))
    encoder(sound(40 * BLOCK * HOP))
    assert sum(rows * count for rows, count in positions) == 40 * (LEFT + BLOCK + AHEAD)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda e, s: e.step(sound(100, 100), s), InvalidValueError, r"must be 1 clips, as the state, found 2"),
        (lambda e, s: e.step(sound(100, start=0.1), s), AlignmentError, r"not overlap: must start at 0.250 s"),
        (lambda e, s: e.step(sound(100, start=float("nan")), s), AlignmentError, r"found nan s"),
        (
            lambda e, s: e.step(Waveform.from_samples([torch.zeros(100)], 8000, start=0.25), s),
            InvalidValueError, r"waveform.sample_rate: must stay 16000, found 8000: resample",
        ),
        (lambda e, s: e.step(torch.zeros(1, 100), s), InvalidTypeError, r"waveform: must be an avfusion.Waveform"),
        (lambda e, s: e.step(None, s, watermark=float("nan")), InvalidValueError, r"watermark: must be one number"),
        (lambda e, s: e.step(None, s, watermark=[1.0, 2.0]), InvalidValueError, r"watermark: .* \(batch,\) = \(1,\)"),
        (lambda e, s: e.step(None, s, end=torch.tensor([1])), InvalidTypeError, r"end: must be boolean"),
        (lambda e, s: e.initial_state(0), InvalidValueError, r"batch_size: must be at least 1, found 0"),
    ],
)  # fmt: skip
def test_refuses_and_keeps_what_it_has(call: Any, error: type[Exception], message: str) -> None:
    encoder, wave = blockwise(), sound(8000)
    _, state = encoder.step(cut(wave.samples[0], 0, 4000, 0.0), encoder.initial_state())
    with pytest.raises(error, match=message):
        call(encoder, state)
    heard = Heard(1)
    heard.add(encoder.step(cut(wave.samples[0], 0, 4000, 0.0), encoder.initial_state())[0])
    stream, state = encoder.step(cut(wave.samples[0], 4000, 8000, 0.0), state)
    heard.add(stream)
    heard.add(encoder.flush(state))
    heard.check(0, encoder(wave))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"block": 0}, InvalidValueError, r"block: must be positive and finite, found 0"),
        ({"block": 0.1, "left_context": -1}, InvalidValueError, r"left_context: must be at least 0 and finite"),
        ({"block": 0.1, "look_ahead": float("inf")}, InvalidValueError, r"look_ahead: must be at least 0 and finite"),
        ({"block": 0.1, "segment_batch_size": 0}, InvalidValueError, r"segment_batch_size: must be at least 1"),
        ({"block": 0.4, "look_ahead": 0.2}, InvalidValueError, r"block: must fit .* into the 0.5 s .*, found 0.6 s"),
        ({"block": 0.1, "encoder": len}, InvalidTypeError, r"encoder: must be an nn.Module, found builtin_function"),
    ],
)  # fmt: skip
def test_refuses_policies(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BlockwiseAudioEncoder(**{"encoder": tiny.whisper(), **options})


@pytest.mark.parametrize("seconds", [0.0, 0.52])
def test_refuses_chunks_that_whisper_does_not_take(seconds: float) -> None:
    with pytest.raises(
        InvalidValueError, match=rf"chunk_seconds: must be from 0.02 to the model's 0.5, found {seconds}"
    ):
        tiny.whisper(chunk_seconds=seconds)


@pytest.mark.parametrize("name", tiny.VISUAL)
def test_pictures_in_chunks_are_the_whole_video(name: str) -> None:
    """Visual encoders see each picture by itself, and need no state."""
    encoder = tiny.VISUAL[name]()
    video = tiny.film(5)
    whole = encoder(video)
    parts = [encoder(Video(*(value[:, a:b] for value in video))) for a, b in ((0, 1), (1, 4), (4, 5))]
    torch.testing.assert_close(torch.cat([part.tokens for part in parts], 1), whole.tokens, rtol=0, atol=1e-5)
    assert torch.equal(torch.cat([part.spans for part in parts], 1), whole.spans)


def test_tells_the_rate_of_its_encoder() -> None:
    regular = BlockwiseAudioEncoder(encoder=tiny.whisper(), block=0.2)
    assert isinstance(regular, RegularAudioEncoder)
    assert (regular.rate, regular.tokens_per_step) == (50.0, 1)
