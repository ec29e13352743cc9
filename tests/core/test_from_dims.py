"""Connectors from widths: any sizes give one that runs and loads again, or one clear error."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from avfusion import AudioVisualConnector, Frames, InvalidTypeError, InvalidValueError, TokenStream
from avfusion.functional.connector_sizes import most_tokens_in_frame, num_heads
from tests.core.strategies import frame_rates, offsets, rates


def test_derives_what_follows() -> None:
    connector = AudioVisualConnector.from_dims(visual=192, audio=64, llm=512, tokens_per_frame=16, num_queries=8)
    qformer = connector.projector.window_encoder.config
    assert (qformer["input_dim"], qformer["window_frames"], qformer["num_heads"]) == (256, 10, 4)
    assert qformer["tokens_per_frame"] == connector.synchroniser.tokens_per_frame == 26  # 50 a second, and a tie
    assert (connector.projector.stride_frames, connector.input_dims, connector.llm_dim) == (10, {}, 512)


def test_the_paper_s_connector_is_one_of_them() -> None:
    with torch.device("meta"):
        ours = AudioVisualConnector.from_dims(visual=768, audio=1280, llm=4096, stream_dim=768)
        paper = AudioVisualConnector()
    shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (ours, paper)]
    assert shapes[0] == shapes[1]
    assert ours.input_dims == {"audio": 1280}
    heads = [one.projector.window_encoder.config["num_heads"] for one in (ours, paper)]
    assert heads == [12, 12]


sizes = st.integers(1, 70)


@st.composite
def arguments(draw: st.DrawFn) -> dict[str, Any]:
    streams = st.dictionaries(st.sampled_from(["speech", "sounds", "music"]), sizes, min_size=1)
    rate = draw(frame_rates)
    chosen: dict[str, Any] = {
        "visual": draw(st.none() | sizes),
        "audio": draw(st.none() | sizes | streams),
        "llm": draw(sizes),
        "tokens_per_frame": draw(st.integers(1, 9)),
        "audio_rate": draw(rates),
        "frame_rate": rate,
        "window_seconds": draw(st.floats(0.3, 6.0)) / rate,  # 0.3 to 6 frames
        "overlap_seconds": draw(st.just(0.0) | st.floats(0.0, 4.0)) / rate,
        "num_queries": draw(st.integers(1, 5)),
        "hidden_size": draw(sizes),
        "num_layers": 1,
        "stream_dim": draw(st.none() | sizes),
        "fusion": draw(st.sampled_from(["features", "tokens"])),
    }
    assume(chosen["visual"] is not None or chosen["audio"] is not None)
    assume(chosen["audio_rate"] / rate < 100)  # small enough for a test
    return chosen


@settings(max_examples=200, deadline=None)
@given(arguments(), offsets, st.integers(1, 12))
def test_any_sizes_give_a_connector_that_runs_or_one_clear_error(
    chosen: dict[str, Any], start: float, count: int
) -> None:
    frames, overlap = (chosen[f"{name}_seconds"] * chosen["frame_rate"] for name in ("window", "overlap"))
    if frames < 1 - 1e-9 or int(overlap + 0.5) >= int(frames + 0.5):
        with pytest.raises(InvalidValueError, match=r"^(window|overlap)_seconds: "):
            AudioVisualConnector.from_dims(**chosen)
        return
    connector = AudioVisualConnector.from_dims(**chosen).eval()
    given_streams: dict[str, Any] = {}
    seconds = count / chosen["frame_rate"]
    if chosen["visual"] is not None:
        tokens = torch.randn(1, count, chosen["tokens_per_frame"], chosen["visual"])
        given_streams["visual"] = Frames.from_rate(tokens, chosen["frame_rate"])
    audio = {"audio": chosen["audio"]} if isinstance(chosen["audio"], int) else chosen["audio"] or {}
    for name, dim in audio.items():
        length = max(int(seconds * chosen["audio_rate"]), 1)
        given_streams[name] = TokenStream.from_rate(torch.randn(1, length, dim), chosen["audio_rate"], start=start)
    with torch.no_grad():
        out = connector(**given_streams)
    assert out.embeddings.shape[2] == chosen["llm"]
    assert out.embeddings.shape[1] % chosen["num_queries"] == 0
    assert bool(out.mask.any())
    assert bool(out.embeddings.isfinite().all())
    again = AudioVisualConnector.from_config(connector.config)
    assert again.config == connector.config
    assert [value.shape for value in again.parameters()] == [value.shape for value in connector.parameters()]


@settings(max_examples=200)
@given(rates, frame_rates, st.floats(-5.0, 5.0))
def test_no_frame_of_a_regular_grid_holds_more_tokens_than_slots(rate: float, frame_rate: float, start: float) -> None:
    assume(rate / frame_rate < 400)
    most = most_tokens_in_frame(rate, frame_rate)
    times = (torch.arange(min(12 * most, 2000), dtype=torch.float64) + 0.5) / rate + start
    first, last = (int(time * frame_rate) for time in (times[0], times[-1]))
    edges = torch.arange(first - 2, last + 3, dtype=torch.float64) / frame_rate
    places = torch.searchsorted(edges, times, right=True)
    assert int(places.unique(return_counts=True)[1].max()) <= most


@settings(max_examples=200)
@given(st.integers(1, 4096), st.integers(1, 4096))
def test_heads_divide_every_width(first: int, second: int) -> None:
    heads = num_heads(first, second)
    assert 1 <= heads <= 12
    assert first % heads == second % heads == 0
    assert heads == 1 or min(first, second) // heads >= 64


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"visual": 0}, r"visual: must be a whole number of at least 1, found 0"),
        ({"audio": -3}, r"audio: .*found -3"),
        ({"audio": {"speech": 0}}, r"audio\['speech'\]: .*found 0"),
        ({"llm": 0}, r"llm: .*found 0"),
        ({"hidden_size": 0}, r"hidden_size: .*found 0"),
        ({"num_queries": 0}, r"num_queries: .*found 0"),
        ({"visual": True}, r"visual: .*found True"),
        ({"visual": None, "audio": None}, r"visual, audio: at least one must be given, found neither"),
        ({"frame_rate": 0}, r"frame_rate: must be a positive, finite number per second, found 0"),
        ({"frame_rate": 1e-300}, r"frame_rate: 50 tokens a second must be at most 65536 a frame"),
        ({"audio_rate": float("nan")}, r"audio_rate: must be a positive, finite"),
        ({"audio_rate": {"speech": 1.0}}, r"audio_rate: must be among the streams \['audio'\], found \['speech'\]"),
        ({"tokens_per_frame": 0}, r"tokens_per_frame: .*found 0"),
        ({"tokens_per_frame": {"events": 2}}, r"tokens_per_frame: must be among the streams"),
        ({"window_seconds": 0.4}, r"window_seconds: must be at least a frame, which is 0\.5 s, found 0\.4"),
        ({"window_seconds": float("inf")}, r"window_seconds: must be a finite number"),
        ({"window_seconds": 1e6}, r"window_seconds: must be at most 65536 frames"),
        ({"window_seconds": 5000.0}, r"window_seconds: a window must have at most 65536 tokens"),
        ({"overlap_seconds": 5.0}, r"overlap_seconds: must be shorter than the window"),
        ({"overlap_seconds": -1.0}, r"overlap_seconds: must be a finite number of seconds, at least 0"),
        ({"stream_dim": 0}, r"stream_dim: .*found 0"),
        ({"fusion": "both"}, r"fusion: must be"),
    ],
)
def test_refuses_in_one_clear_sentence(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        AudioVisualConnector.from_dims(**{"visual": 24, "audio": 40, "llm": 64, **wrong})


@pytest.mark.parametrize("wrong", [{"visual": 24.0}, {"llm": "64"}, {"num_layers": None}])
def test_refuses_what_is_no_whole_number(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidTypeError, match=rf"{next(iter(wrong))}: must be a whole number"):
        AudioVisualConnector.from_dims(**{"visual": 24, "audio": 40, "llm": 64, **wrong})


def test_is_saved_and_loaded(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    connector = AudioVisualConnector.from_dims(
        visual=24, audio={"speech": 40, "sounds": 32}, llm=64, hidden_size=64, stream_dim=32, overlap_seconds=2.5
    ).eval()
    connector.save_pretrained(tmp_path)
    loaded = AudioVisualConnector.from_pretrained(tmp_path)
    media = {"visual": torch.randn(1, 20, 16, 24), "speech": torch.randn(1, 500, 40)}
    assert torch.equal(loaded(**media).embeddings, connector(**media).embeddings)
    assert loaded.projector.stride_frames == 5


class Sound(nn.Module):
    output_dim = 40

    def forward(self, waveform: object) -> None: ...


class RegularSound(Sound):
    rate, tokens_per_step = 8.0, 3


class Pictures(nn.Module):
    output_dim, tokens_per_frame = 24, 4

    def forward(self, video: object) -> None: ...


def test_encoders_tell_their_sizes() -> None:
    connector = AudioVisualConnector.from_encoders(visual=Pictures(), audio=RegularSound(), llm=64, hidden_size=64)
    assert connector.synchroniser.dims == {"visual": 24, "audio": 40}
    assert connector.synchroniser.tokens_per_frame == 15  # 4 steps of half a second and a tie, of 3 tokens each
    assert connector.synchroniser.stream_rates == {"audio": 24.0}
    apart = AudioVisualConnector.from_encoders(
        visual=Pictures(), audio={"a": RegularSound(), "b": Sound()}, llm=64, audio_rate={"b": 2.0}, fusion="tokens"
    )
    assert apart.synchroniser.slots == {"visual": 4, "a": 15, "b": 2}
    assert apart.input_dims == {"a": 40, "b": 40}
    with pytest.raises(InvalidValueError, match=r"audio_rate: must be given for Sound, which tells no rate"):
        AudioVisualConnector.from_encoders(audio=Sound(), llm=64)
