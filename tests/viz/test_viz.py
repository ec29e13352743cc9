"""Pictures hold what the values say: the data of their artists are looked at, and each can be rendered."""

import importlib
import io
import sys
from typing import Any

import matplotlib as mpl
import pytest
import torch
from matplotlib.figure import Figure

from avfusion import (
    AudioVisualConnector,
    CausalQFormer,
    ConnectorSize,
    Frames,
    FrameSynchroniser,
    InvalidValueError,
    SlidingWindowProjector,
    TokenStream,
    Video,
    Waveform,
    estimate_budget,
)
from avfusion.functional import FrameCausalMask, query_similarity
from avfusion.viz import (
    plot_attention,
    plot_budget,
    plot_clip,
    plot_mask,
    plot_query_similarity,
    plot_slots,
    plot_streaming_state,
    plot_timeline,
    plot_windows,
)


def rendered(figure: Any) -> str:
    """The figure as SVG: whatever is wrong with an artist shows up here."""
    page = io.StringIO()
    figure.savefig(page, format="svg")
    return page.getvalue()


def boxes(ax: Any) -> list[tuple[float, float, float]]:
    """Begin, end and middle height of each box."""
    found = [
        (patch.get_x(), patch.get_x() + patch.get_width(), patch.get_y() + patch.get_height() / 2)
        for patch in ax.patches
    ]
    return [tuple(round(value, 3) for value in box) for box in found]  # type: ignore[misc]


@pytest.fixture
def synchronise() -> FrameSynchroniser:
    return FrameSynchroniser(visual_dim=4, stream_dims={"audio": 4, "sounds": 3}, slots=8)


@pytest.fixture
def streams() -> dict[str, Any]:
    return {
        "visual": Frames.from_rate(torch.randn(2, 4, 3, 4), 2.0, lengths=[4, 2]),
        "audio": TokenStream.from_rate(torch.randn(2, 30, 4), 12.0, lengths=[30, 12]),
        "sounds": TokenStream.from_rate(torch.randn(2, 5, 3), 4.0, start=-0.3),
    }


def test_a_timeline_shows_each_token_in_the_shade_of_its_frame(
    synchronise: FrameSynchroniser, streams: dict[str, Any]
) -> None:
    ax = plot_timeline(synchronise, streams)
    frames = synchronise(**streams)
    wanted = [(*span, 2.0) for span in frames.spans[0, frames.frame_mask[0]].tolist()]
    assert boxes(ax) == [pytest.approx(box) for box in wanted]
    dashed = [patch.get_linestyle() == "--" for patch in ax.patches]
    assert dashed == [True, False, False, False, False, True]  # one added before the pictures, one after
    audio = next(dots for dots in ax.collections if dots.get_label() == "audio")
    torch.testing.assert_close(torch.tensor(audio.get_offsets()[:, 0]), streams["audio"].timestamps[0])
    shades = [tuple(colour) for colour in audio.get_facecolors()]
    assert [len(set(shades[first : first + 6])) for first in range(0, 30, 6)] == [1] * 5
    assert all(shades[first - 1] != shades[first] for first in range(6, 30, 6))
    assert rendered(ax.figure)


def test_tokens_that_fit_nowhere_are_crosses(synchronise: FrameSynchroniser) -> None:
    spans = torch.tensor([[[0.0, 0.5], [1.0, 1.5]]], dtype=torch.float64)  # with a gap
    pictures = Frames(torch.randn(1, 2, 3, 4), torch.ones(1, 2, 3, dtype=torch.bool), spans)
    ax = plot_timeline(synchronise, {"visual": pictures, "audio": TokenStream.from_rate(torch.randn(1, 12, 4), 12.0)})
    placed, lost = ax.collections
    assert (len(placed.get_offsets()), len(lost.get_offsets())) == (6, 6)


def test_a_clip_shows_pictures_sound_and_the_slots_of_each_stream(
    synchronise: FrameSynchroniser, streams: dict[str, Any]
) -> None:
    video = Video.from_rate(torch.randint(256, (2, 4, 3, 6, 8), dtype=torch.uint8), 2.0, lengths=[4, 2])
    wave = Waveform.from_samples([torch.randn(20000), torch.randn(4000)], 8000, start=[0.25, 0.0])
    figure = plot_clip(synchronise, streams, video=video, waveform=wave)
    seen, heard, slots = figure.axes
    alone = plot_slots(synchronise, streams)
    assert [len(bars) for bars in alone.containers] == [len(bars) for bars in slots.containers]
    assert alone.get_xlim() == slots.get_xlim() == (-0.5, 2.5)
    assert [image.get_array().shape for image in seen.images] == [(6, 8, 3)] * 4
    assert torch.equal(torch.tensor(seen.images[1].get_array()), video.pixels[0, 1].permute(1, 2, 0))
    assert seen.images[1].get_extent()[:2] == pytest.approx((0.51, 0.99))
    (sound,) = heard.collections
    outline = torch.tensor(sound.get_paths()[0].vertices)
    assert float(outline[:, 0].min()) == pytest.approx(0.25, abs=0.01)
    assert float(outline[:, 0].max()) == pytest.approx(2.75, abs=0.01)
    assert float(outline[:, 1].max()) == pytest.approx(float(wave.samples[0].max()))

    real = dict.fromkeys(streams, 0)
    for bars in slots.containers:
        name, held = bars.get_label().split()
        real[name] += len(bars) * (held == "True")
    assert real == {"visual": 12, "audio": 30, "sounds": 5}
    assert sum(len(bars) for bars in slots.containers) == 6 * 8 * 3
    assert [text.get_text() for text in slots.get_legend().get_texts()] == ["visual", "audio", "sounds"]
    assert rendered(figure)


def test_a_clip_may_lack_everything_but_a_stream(synchronise: FrameSynchroniser, streams: dict[str, Any]) -> None:
    figure = plot_clip(synchronise, {"sounds": streams["sounds"]}, clip=1)
    assert [ax.get_ylabel() for ax in figure.axes] == ["slot"]
    with pytest.raises(InvalidValueError, match=r"clip: must be from 0 to 1, found 2"):
        plot_clip(synchronise, streams, clip=2)
    with pytest.raises(InvalidValueError, match=r"waveform: must be of 2 clips, found 1"):
        plot_clip(synchronise, streams, waveform=Waveform.from_samples(torch.zeros(1, 10), 10))
    with pytest.raises(InvalidValueError, match=r"streams: must be among .*found \['smell'\]"):
        plot_timeline(synchronise, {"smell": streams["audio"]})
    with pytest.raises(InvalidValueError, match=r"streams: must have the same batch size"):
        plot_timeline(synchronise, {**streams, "audio": torch.zeros(1, 3, 4)})


def test_windows_are_those_that_are_cut() -> None:
    frames = Frames.from_rate(torch.zeros(2, 7, 2, 3), 2.0, lengths=[7, 3])
    ax = plot_windows(frames, window_frames=4, stride_frames=2, num_queries=5)
    lanes = [[box for box in boxes(ax) if box[2] == lane] for lane in range(4)]
    assert [len(lane) for lane in lanes] == [7, 4, 4, 4]
    assert lanes[2][0][0] == pytest.approx(1.0, abs=0.02)
    assert lanes[3][-1][1] == pytest.approx(4.0, abs=0.02)  # a frame that is missing
    assert [patch.get_fill() for patch in ax.patches[-4:]] == [True, True, True, False]
    assert sum(text.get_text() == "5 embeddings" for text in ax.texts) == 3
    assert len(plot_windows(frames, window_frames=4, clip=1).get_yticklabels()) == 2
    assert rendered(ax.figure)


@pytest.mark.parametrize("direction", ["causal", "reversed"])
def test_a_mask_is_the_mask(direction: Any) -> None:
    mask = FrameCausalMask(num_frames=3, tokens_per_frame=2, direction=direction)
    real = torch.tensor([True] * 5 + [False])
    shown = torch.tensor(plot_mask(mask, real).images[0].get_array())
    assert torch.equal(shown[:, :5] == 1, mask.dense()[:, :5])
    assert bool((shown[:, 5] == -1).all())
    assert torch.equal(torch.tensor(plot_mask(mask).images[0].get_array()) == 1, mask.dense())
    with pytest.raises(InvalidValueError, match=r"key_mask: must be \(token,\) = \(6,\), found shape \(5,\)"):
        plot_mask(mask, real[:5])


def test_attention_is_put_where_its_window_is() -> None:
    maps = torch.rand(2, 3, 2, 4, 5, 6)  # three windows of five frames
    looks = maps.mean((0, 2)).sum(-1)
    table = torch.tensor(plot_attention(maps, stride_frames=3).collections[0].get_array())
    assert table.shape == (12, 11)
    torch.testing.assert_close(table[4:8, 3:8], looks[1].double())
    assert bool((table[4:8, :3] == 0).all())
    assert bool((table[4:8, 8:] == 0).all())

    one = torch.tensor(plot_attention(maps, layer=-1, head=0).collections[0].get_array())
    torch.testing.assert_close(one[:4, :5], maps[1, 0, 0].sum(-1).double())
    spans = Frames.from_rate(torch.zeros(1, 13, 1, 1), 2.0).spans[0]
    ax = plot_attention(maps, spans=spans)
    assert torch.tensor(ax.collections[0].get_array()).shape == (12, 13)  # what is beyond the clip is padding
    assert ax.collections[0].get_coordinates()[0, :, 0].tolist() == [0.5 * edge for edge in range(14)]
    assert rendered(ax.figure)


def test_attention_by_modality() -> None:
    maps = torch.rand(1, 2, 1, 3, 4, 5)
    ax = plot_attention(maps, groups={"visual": slice(0, 3), "audio": [3, 4]})
    table = torch.tensor(ax.collections[0].get_array())
    assert table.shape == (6, 16)
    torch.testing.assert_close(table[:3, :4], maps[0, 0, 0, ..., :3].sum(-1).double())
    torch.testing.assert_close(table[3:, 12:], maps[0, 1, 0, ..., 3:].sum(-1).double())
    assert {"visual", "audio"} <= {text.get_text() for text in ax.texts}
    with pytest.raises(InvalidValueError, match=r"spans, groups: give one of them, found both"):
        plot_attention(maps, groups={"visual": [0]}, spans=torch.zeros(4, 2))
    with pytest.raises(InvalidValueError, match=r"maps: must be \(layer, window, .*found shape \(2, 1, 3, 4, 5\)"):
        plot_attention(maps[0])


def test_query_similarity_is_the_cosine() -> None:
    states = torch.randn(2, 4, 8)
    states[1, 2] = 0
    ax = plot_query_similarity(states, window=1)
    shown = torch.tensor(ax.images[0].get_array())
    wanted = torch.nn.functional.cosine_similarity(states[1, :, None].double(), states[1, None].double(), dim=-1)
    torch.testing.assert_close(shown, wanted)
    assert ax.get_title().endswith(f"{query_similarity(states[1]).item():.2f}")
    with pytest.raises(InvalidValueError, match=r"window: must be from 0 to 1, found 5"):
        plot_query_similarity(states, window=5)


@pytest.fixture
def connector() -> AudioVisualConnector:
    qformer = CausalQFormer(
        input_dim=8, hidden_size=8, num_heads=2, num_queries=2, window_frames=10, tokens_per_frame=6
    )
    return AudioVisualConnector(
        synchroniser=FrameSynchroniser(visual_dim=4, stream_dims={"audio": 4}, stream_rates={"audio": 12.0}, slots=6),
        projector=SlidingWindowProjector(window_encoder=qformer, window_frames=10, stride_frames=5, llm_dim=8),
    ).eval()


def test_a_streaming_state_is_what_it_keeps(connector: AudioVisualConnector) -> None:
    state = connector.initial_state(2)
    for frame in range(30):  # 15 s of pictures, and 14.2 s of sound
        sound = torch.zeros(2, 170, 4)[:, 6 * frame : 6 * frame + 6]
        chunk = {"visual": torch.zeros(2, 1, 3, 4), "audio": sound}
        _, state = connector.step(chunk, state, end=torch.tensor([frame == 11, False]))  # the other clip is another
    ax = plot_streaming_state(connector, state, row=1)
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "pending visual",
        "pending audio",
        "pending frames",
        "open window",
    ]
    lanes = [[box[:2] for box in boxes(ax) if box[2] == lane] for lane in range(4)]
    assert lanes[0] == [(14.0, 14.5), (14.5, 15.0)]
    waiting = state.projector.spans[1, state.projector.mask[1].any(-1)].tolist()
    assert lanes[2] == [tuple(span) for span in waiting]
    seen = int(state.projector.windows.num_frames[1].max())
    assert lanes[3] == [(10.0, 10.0 + 0.5 * seen)]
    assert f"{seen} of 10 frames" in {text.get_text() for text in ax.texts}
    times = torch.tensor(ax.collections[0].get_offsets()[:, 0])
    torch.testing.assert_close(times, state.synchroniser.streams[0].timestamps[1])
    assert len(times) == 2
    assert rendered(ax.figure)


def test_a_streaming_state_of_nothing(connector: AudioVisualConnector) -> None:
    ax = plot_streaming_state(connector, connector.initial_state())
    assert boxes(ax) == []
    assert rendered(ax.figure)
    with pytest.raises(InvalidValueError, match=r"row: must be from 0 to 0, found 1"):
        plot_streaming_state(connector, connector.initial_state(), row=1)


def test_a_budget_is_the_estimate() -> None:
    size = ConnectorSize(hidden_size=64, input_dim=128)
    rates = [1.0, 2.0, 3.0]
    figure = plot_budget(
        45.0, frame_rates=rates, window_frames=[5, 10], num_queries=[8, 16], connector=size, prompt_tokens=7
    )
    tokens, flops, cache = figure.axes
    assert [line.get_label() for line in tokens.lines][1] == "5 frames, 16 queries"
    cost = [
        estimate_budget(
            45.0, frame_rate=rate, connector=size._replace(window_frames=10, num_queries=8), prompt_tokens=7
        )
        for rate in rates
    ]
    assert tokens.lines[2].get_xdata().tolist() == rates
    assert tokens.lines[2].get_ydata().tolist() == [one.num_tokens for one in cost]
    assert flops.lines[2].get_ydata().tolist() == [(one.connector_flops + one.prefill_flops) / 1e12 for one in cost]
    assert cache.lines[2].get_ydata().tolist() == [one.cache_bytes / 2**20 for one in cost]
    assert tokens.lines[0].get_ydata().tolist() == [9 * 2 * 8 / 2, 18 * 8, 27 * 8]  # windows of 5 frames, 8 queries
    assert rendered(figure)
    with pytest.raises(InvalidValueError, match=r"frame_rates: must hold at least one number, found none"):
        plot_budget(frame_rates=[])


def test_given_axes_are_drawn_on_and_pyplot_is_left_alone(
    synchronise: FrameSynchroniser, streams: dict[str, Any]
) -> None:
    import matplotlib.pyplot as plt

    figure = Figure()
    upper, lower = figure.subplots(2)
    frames = Frames.from_rate(torch.zeros(1, 4, 1, 1), 2.0)
    assert plot_windows(frames, window_frames=2, ax=upper) is upper
    assert plot_timeline(synchronise, streams, ax=lower) is lower
    assert plt.get_fignums() == []


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("avfusion.viz")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"avfusion\.viz needs matplotlib: pip install 'avfusion\[viz\]'"):
        importlib.import_module("avfusion.viz")


def test_dark_styles_are_followed() -> None:
    frames = Frames.from_rate(torch.zeros(1, 4, 1, 1), 2.0)
    with mpl.rc_context({"text.color": "#abcdef", "axes.facecolor": "#010203", "xtick.color": "#abcdef"}):
        page = rendered(plot_windows(frames, window_frames=2, num_queries=3).figure)
        mask = plot_mask(FrameCausalMask(num_frames=2, tokens_per_frame=1))
    assert "#abcdef" in page
    assert mpl.colors.to_hex(mask.images[0].cmap(0.5)) == "#010203"
