"""What the study compares, and what the papers say of it."""

from dataclasses import replace
from typing import NamedTuple

from examples.mini_aveb.model import Variant

FULL = Variant("full")

VARIANTS = {
    variant.name: variant
    for variant in (
        FULL,
        replace(FULL, name="no causal attention", causal=False),
        replace(FULL, name="no sliding windows", window_frames=32, queries=16),  # the longest clip has 30 pictures
        replace(FULL, name="no synchronisation", synchronised=False),
        replace(FULL, name="no diversity loss", diversity=0.0),
        replace(FULL, name="λ = 1", diversity=1.0),
        replace(FULL, name="windows of 1 s", window_frames=4, queries=2),
        replace(FULL, name="2 pictures a second", frame_rate=2.0, window_frames=4, queries=2),
        replace(FULL, name="8 pictures a second", frame_rate=8.0, window_frames=16, queries=8),
        replace(FULL, name="two resolutions", fine=True),
        replace(FULL, name="windows of 4 s", window_frames=16, queries=8),
        replace(FULL, name="λ = 0.1", diversity=0.1),
    )
}
"""By name. A window has a query for every two frames, so that seconds give as many embeddings whatever the windows; but
a clip's last window gives all of its own, however little of it is real."""


SWEEPS = {
    "Weight of the diversity loss": (
        "λ",
        {"no diversity loss": 0.0, "full": 0.01, "λ = 0.1": 0.1, "λ = 1": 1.0},
    ),
    "Length of a window": (
        "seconds",
        {"windows of 1 s": 1.0, "full": 2.0, "windows of 4 s": 4.0, "no sliding windows": 8.0},
    ),
    "Frame rate": (
        "pictures a second",
        {"2 pictures a second": 2.0, "full": 4.0, "8 pictures a second": 8.0},
    ),
}
"""Of each sweep its axis and the variants on it."""


class Finding(NamedTuple):
    """What a paper found, as a difference.

    Attributes:
        text: the finding.
        better: the variant that is said to be the better one.
        worse: the other.
        group: the tasks that it is about.
        here: what decides it in the miniature.
    """

    text: str
    better: str
    worse: str
    group: str
    here: str


FINDINGS = (
    Finding(
        "Causal attention helps the cross-modal tasks",
        "full",
        "no causal attention",
        "cross-modal",
        "without it a query alone can tell what in a picture's slots belongs together",
    ),
    Finding(
        "Causal attention helps video QA",
        "full",
        "no causal attention",
        "video QA",
        "the order of scenes, which queries can also read from the positions of pictures",
    ),
    Finding(
        "Sliding windows help the cross-modal tasks",
        "full",
        "no sliding windows",
        "cross-modal",
        "with one window, 16 queries share all pictures of a clip, instead of 4 those of each 2 s",
    ),
    Finding(
        "Synchronisation helps the cross-modal tasks",
        "full",
        "no synchronisation",
        "cross-modal",
        "what is heard and seen at one moment is joined before the queries look, or by the language model alone",
    ),
    Finding(
        "The diversity loss helps the cross-modal tasks",
        "full",
        "no diversity loss",
        "cross-modal",
        "queries that say the same thing waste the few embeddings of a window",
    ),
    Finding(
        "Too large a λ hurts speech recognition",
        "full",
        "λ = 1",
        "speech",
        "states of one window that may not be alike, though one word lasts for several of them",
    ),
    Finding(
        "Small windows help speech recognition",
        "windows of 1 s",
        "no sliding windows",
        "speech",
        "a word is within a second, and few queries have to share few words",
    ),
    Finding(
        "Small windows hurt video QA",
        "no sliding windows",
        "windows of 1 s",
        "video QA",
        "what comes next is in the next window more often",
    ),
    Finding(
        "More pictures a second help, for more tokens",
        "8 pictures a second",
        "2 pictures a second",
        "all",
        "pulses of a quarter of a second fall between pictures at 2 a second",
    ),
    Finding(
        "A second, fine resolution helps",
        "two resolutions",
        "full",
        "all",
        "a query that sees two pictures alone beside each that sees the window",
    ),
)
