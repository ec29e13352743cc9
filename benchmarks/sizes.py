"""Sizes of the connector: the published ones, and tiny ones to see that everything runs."""

from typing import NamedTuple


class Sizes(NamedTuple):
    """Of the connector and of what it is given. ``stream`` is the width of either modality in a fused token."""

    stream: int = 768
    audio: int = 1280
    audio_per_frame: int = 25
    hidden: int = 768
    layers: int = 2
    heads: int = 12
    queries: int = 32
    window_frames: int = 10
    slots: int = 32
    llm_dim: int = 4096

    @property
    def width(self) -> int:
        return 2 * self.stream

    def of_connector(self) -> dict[str, int]:
        """Arguments of :class:`benchmarks.peers.released.ReleasedConnector`."""
        return {
            "width": self.width,
            "hidden": self.hidden,
            "layers": self.layers,
            "heads": self.heads,
            "queries": self.queries,
            "window_frames": self.window_frames,
            "slots": self.slots,
            "llm_dim": self.llm_dim,
        }


FULL = Sizes()
SMOKE = Sizes(stream=16, audio=24, audio_per_frame=3, hidden=16, heads=2, queries=4, slots=4, llm_dim=24)
FRAME_RATE = 2.0


def of(smoke: bool) -> Sizes:
    return SMOKE if smoke else FULL
