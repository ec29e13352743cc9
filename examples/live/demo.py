"""A film of which everything is known, and a model that has learned to watch such films."""

from pathlib import Path
from typing import NamedTuple

import torch

from avfusion.media import write_video
from examples.tiny_avllm.data import COLOURS, FRAME_RATE, SAMPLE_RATE, SCENE, SHAPES, TONES, Scene, paint, sound
from examples.tiny_avllm.questions import ABOUT_A_SCENE

REMEMBERED = 2.0  # seconds of whole windows, beside the partial one: the model has learned on clips of 2 to 4 s


class Film(NamedTuple):
    """A file and what is in it, half a second each."""

    path: Path
    scenes: tuple[Scene, ...]

    def question(self, now: float, back: int) -> tuple[str, str]:
        """A question about the scene ``back`` scenes before ``now`` seconds, and the truth."""
        scene = self.scenes[max(0, round(now / SCENE) - 1 - back)]
        return ABOUT_A_SCENE[0].format(tone=scene.tone), scene.colour


def write_film(path: Path, *, seconds: float, seed: int = 0) -> Film:
    """Coloured shapes and tones; no tone comes again within four seconds."""
    generator = torch.Generator().manual_seed(seed)
    count = round(seconds / SCENE)
    tones = torch.randperm(len(TONES), generator=generator).tolist()
    colours = torch.randint(len(COLOURS), (count,), generator=generator).tolist()
    shapes = torch.randint(len(SHAPES), (count,), generator=generator).tolist()
    scenes = tuple(
        Scene([*COLOURS][colours[place]], SHAPES[shapes[place]], [*TONES][tones[place % len(tones)]])
        for place in range(count)
    )
    write_video(path, paint(scenes, generator), FRAME_RATE, sound(scenes, generator), SAMPLE_RATE)
    return Film(path, scenes)
