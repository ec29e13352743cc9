"""Batches of clips, and the same clips as they come in: every stream of every clip cut on its own."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from avfusion import (
    AudioVisualConnector,
    CausalQFormer,
    Frames,
    FrameSynchroniser,
    LLMEmbeddings,
    MultiResolutionProjector,
    SlidingWindowProjector,
    TokenStream,
)
from tests.core.strategies import Clip, rubbish, scattered_mask, token_values

NAMES = ("visual", "audio", "speech")
WIDTHS = {"visual": 3, "audio": 4, "speech": 2}
VISUAL_TOKENS, SLOTS = 2, 12


def build_synchroniser(fusion: str = "features", **changes: Any) -> FrameSynchroniser:
    widths = WIDTHS if fusion == "features" else dict.fromkeys(NAMES, 4)
    return FrameSynchroniser(
        **{
            "visual_dim": widths["visual"],
            "stream_dims": {name: widths[name] for name in NAMES[1:]},
            "slots": SLOTS,
            "fusion": fusion,
            **changes,
        }
    )


def build_qformer(width: int, slots: int, frames: int, queries: int = 2, **changes: Any) -> CausalQFormer:
    return CausalQFormer(
        **{
            "input_dim": width,
            "hidden_size": 4,
            "num_heads": 1,
            "num_queries": queries,
            "window_frames": frames,
            "tokens_per_frame": slots,
            "dropout": 0.0,
            **changes,
        }
    )


def build_projector(
    width: int, slots: int, cut: tuple[int, int] = (3, 3), fine: int = 0, **changes: Any
) -> SlidingWindowProjector:
    """With ``fine``, two resolutions: parts of so many frames."""
    window, stride = cut
    torch.manual_seed(2)
    encoder = build_qformer(width, slots, window, window // fine if fine else 2, **changes)
    if not fine:
        projector = SlidingWindowProjector(
            window_encoder=encoder, window_frames=window, stride_frames=stride, llm_dim=5
        )
    else:
        projector = MultiResolutionProjector(
            window_encoder=encoder,
            window_frames=window,
            stride_frames=stride,
            fine_window_frames=fine,
            fine_num_queries=1,
            llm_dim=5,
        )
    return projector.double().eval()


def build_connector(
    fusion: str = "features", cut: tuple[int, int] = (3, 3), fine: int = 0, **changes: Any
) -> AudioVisualConnector:
    synchroniser = build_synchroniser(fusion, **changes)
    projector = build_projector(synchroniser.output_dim, synchroniser.tokens_per_frame, cut, fine)
    maps = {"audio": 3} if fusion == "features" else {}
    return AudioVisualConnector(synchroniser=synchroniser, projector=projector, input_dims=maps).double().eval()


def input_widths(connector: AudioVisualConnector) -> dict[str, int]:
    return {**connector.synchroniser.dims, **connector.input_dims}


Places = list[list[int]]  # of each clip, the numbers of the tokens or pictures that come


def part_of(
    batch: Sequence[Clip], name: str, width: int, places: Places, draw: st.DrawFn, first: int = 0
) -> Frames | TokenStream:
    """Some tokens or pictures of each clip, with rubbish in the padding; values as of :mod:`tests.core.strategies`."""
    longest = max(map(len, places)) + draw(st.integers(0, 2))
    tail = (VISUAL_TOKENS, width) if name == "visual" else (width,)
    tokens = rubbish((len(batch), longest, *tail), draw(st.integers(0, 9)))
    times = rubbish((len(batch), longest, 2), draw(st.integers(0, 9)))
    mask = torch.zeros(len(batch), longest, dtype=torch.bool)
    for row, (clip, numbers) in enumerate(zip(batch, places, strict=True)):
        for number, place in zip(numbers, scattered_mask(draw, len(numbers), longest), strict=True):
            count = VISUAL_TOKENS * width if name == "visual" else width
            tokens[row, place] = token_values(first + row, name, number, count).view(tail)
            when = clip.spans[number] if name == "visual" else (clip.streams[name][number],) * 2
            times[row, place] = torch.tensor(when, dtype=torch.float64)
            mask[row, place] = True
    if name == "visual":
        return Frames(tokens, mask[..., None].expand(-1, -1, VISUAL_TOKENS), times)
    return TokenStream(tokens, mask, times[..., 0])


def lengths_of(batch: Sequence[Clip], name: str) -> list[int]:
    return [len(clip.spans if name == "visual" else clip.streams[name]) for clip in batch]


def whole(
    batch: Sequence[Clip], widths: dict[str, int], draw: st.DrawFn, first: int = 0
) -> dict[str, Frames | TokenStream]:
    return {
        name: part_of(batch, name, widths[name], [list(range(n)) for n in lengths_of(batch, name)], draw, first)
        for name in NAMES
    }


def chunks_of(
    batch: Sequence[Clip], widths: dict[str, int], draw: st.DrawFn, first: int = 0
) -> Iterator[tuple[dict[str, Frames | TokenStream], dict[str, Tensor]]]:
    """What comes in each step, and up to when each stream is then said to have been given.

    In every step some streams bring nothing, and each clip gets a number of its own of each other stream's tokens;
    where a stream of a clip is through, this is said sooner or later, or never.
    """
    done = {name: [0] * len(batch) for name in NAMES}
    said = {name: torch.full((len(batch),), -torch.inf, dtype=torch.float64) for name in NAMES}
    for _ in range(draw(st.integers(1, 6))):
        chunk = {}
        for name in draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3)):
            counts = lengths_of(batch, name)
            places = []
            for row, count in enumerate(counts):
                begin = done[name][row]
                done[name][row] = min(count, begin + draw(st.integers(0, 8)))
                places.append(list(range(begin, done[name][row])))
                if done[name][row] == count and draw(st.booleans()):
                    said[name][row] = torch.inf
            chunk[name] = part_of(batch, name, widths[name], places, draw, first)
        yield chunk, {name: value.clone() for name, value in said.items()}
    rest = {
        name: part_of(
            batch, name, widths[name],
            [list(range(b, n)) for b, n in zip(done[name], lengths_of(batch, name), strict=True)], draw, first,
        )
        for name in NAMES
    }  # fmt: skip
    yield rest, {name: value.clone() for name, value in said.items()}


class Collected:
    """What steps gave each clip, one after the other."""

    def __init__(self, batch: int) -> None:
        self.embeddings: list[list[Tensor]] = [[] for _ in range(batch)]
        self.spans: list[list[list[float]]] = [[] for _ in range(batch)]
        self.states: list[list[Tensor]] = [[] for _ in range(batch)]

    def add(self, out: LLMEmbeddings) -> "Collected":
        batch = len(self.embeddings)
        windows = out.query_states.unflatten(0, (batch, -1)) if out.query_states.shape[0] else None
        for row in range(batch):
            real = out.mask[row]
            self.embeddings[row] += list(out.embeddings[row][real])
            self.spans[row] += out.spans[row][real].tolist()
            if windows is not None:
                self.states[row] += list(windows[row].flatten(0, 1)[real])
            assert not out.embeddings[row][~real].any()
        return self

    def with_(self, out: LLMEmbeddings) -> "Collected":
        """The same and one more, this one left as it is."""
        other = Collected(len(self.embeddings))
        for name, rows in vars(self).items():
            setattr(other, name, [list(row) for row in rows])
        return other.add(out)

    def of(self, row: int) -> "Collected":
        """What one clip got."""
        other = Collected(1)
        for name, rows in vars(self).items():
            setattr(other, name, [rows[row]])
        return other

    def check_equal(self, other: "Collected", atol: float = 1e-10) -> None:
        for row, (mine, theirs) in enumerate(zip(self.embeddings, other.embeddings, strict=True)):
            assert self.spans[row] == other.spans[row]
            for one, two in ((mine, theirs), (self.states[row], other.states[row])):
                assert len(one) == len(two)
                if one:
                    torch.testing.assert_close(torch.stack(one), torch.stack(two), rtol=0, atol=atol)
