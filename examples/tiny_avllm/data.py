"""Generated clips: a moving coloured shape and a tone, both of which change every half second."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from avfusion.media import Media, load_media, write_video

COLOURS = {
    "red": (230, 30, 30),
    "green": (30, 200, 30),
    "blue": (40, 60, 240),
    "yellow": (230, 220, 20),
    "purple": (200, 40, 220),
    "white": (245, 245, 245),
    "orange": (240, 125, 10),
    "cyan": (20, 210, 220),
}
SHAPES = ("circle", "square", "triangle")
TONES = {  # Hz: half an octave from one to the next
    "lowest": 220.0,
    "deep": 311.1,
    "low": 440.0,
    "middle": 622.3,
    "bright": 880.0,
    "high": 1244.5,
    "shrill": 1760.0,
    "highest": 2489.0,
}
SCENE = 0.5  # seconds that a shape and a tone last
FEWEST_SCENES, MOST_SCENES = 4, 8  # of a clip
FRAME_RATE = 10.0  # pictures a second in the files
PIXELS = 64
SAMPLE_RATE = 16000


class Scene(NamedTuple):
    """What is seen and heard for half a second."""

    colour: str
    shape: str
    tone: str


class Clip(NamedTuple):
    """A file and what is in it."""

    path: Path
    scenes: tuple[Scene, ...]


class Painted(Protocol):
    """What :func:`paint` draws."""

    @property
    def colour(self) -> str: ...

    @property
    def shape(self) -> str: ...


def draw_scenes(generator: torch.Generator) -> tuple[Scene, ...]:
    """Scenes of different tones; a colour comes twice at most."""
    count = int(torch.randint(FEWEST_SCENES, MOST_SCENES + 1, (), generator=generator))
    tones = torch.randperm(len(TONES), generator=generator)[:count].tolist()
    colours = (torch.randperm(2 * len(COLOURS), generator=generator)[:count] // 2).tolist()
    shapes = torch.randint(len(SHAPES), (count,), generator=generator).tolist()
    return tuple(Scene([*COLOURS][c], SHAPES[s], [*TONES][t]) for c, s, t in zip(colours, shapes, tones, strict=True))


def _inside(shape: str, x: Tensor, y: Tensor, radius: float) -> Tensor:
    if shape == "circle":
        return x.square() + y.square() < radius**2
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) < 0.85 * radius
    return (y < 0.8 * radius) & (y > 2 * x.abs() - radius)


def paint(
    scenes: Sequence[Painted], generator: torch.Generator, *, seconds: float = SCENE, pixels: int = PIXELS
) -> Tensor:
    """``(frame, 3, height, width)`` uint8: each shape drifts over a dull background."""
    steps = round(seconds * FRAME_RATE)
    rows, columns = torch.meshgrid(torch.arange(pixels), torch.arange(pixels), indexing="ij")
    background = torch.rand(3, generator=generator) * 40 + 20
    pictures = []
    for scene in scenes:
        radius = pixels * (0.2 + 0.1 * torch.rand(1, generator=generator).item())
        free = pixels - 2 * radius
        (x, y), (to_x, to_y) = (radius + free * torch.rand(2, 2, generator=generator)).tolist()
        for step in range(steps):
            way = step / steps
            at_x, at_y = x + way * (to_x - x), y + way * (to_y - y)
            mask = _inside(scene.shape, columns - at_x, rows - at_y, radius)
            ink = torch.tensor(COLOURS[scene.colour], dtype=torch.float32)
            pictures.append(torch.where(mask, ink[:, None, None], background[:, None, None]))
    return torch.stack(pictures).round().to(torch.uint8)


def sound(scenes: Sequence[Scene], generator: torch.Generator) -> Tensor:
    """``(sample,)``: one tone after the other, each faded in and out, with a little noise."""
    count = round(SCENE * SAMPLE_RATE)
    time = torch.arange(count) / SAMPLE_RATE
    fade = (torch.minimum(time, SCENE - time) / 0.02).clamp(max=1)
    tones = []
    for scene in scenes:
        loudness, phase, second = torch.rand(3, generator=generator).tolist()
        angle = 2 * math.pi * (TONES[scene.tone] * time + phase)
        tones.append((0.2 + 0.3 * loudness) * fade * (angle.sin() + 0.3 * second * (2 * angle).sin()))
    noise = torch.randn(count * len(tones), generator=generator)
    return torch.cat(tones) + 0.005 * noise


def _write(clip: Clip, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    write_video(clip.path, paint(clip.scenes, generator), FRAME_RATE, sound(clip.scenes, generator), SAMPLE_RATE)


def write_clips(folder: Path, count: int, *, seed: int) -> list[Clip]:
    """Writes ``count`` mp4 files and tells what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    clips = [Clip(folder / f"{i:04}.mp4", draw_scenes(generator)) for i in range(count)]
    seeds = torch.randint(2**62, (count,), generator=generator).tolist()
    with ThreadPoolExecutor(2) as pool:
        list(tqdm(pool.map(_write, clips, seeds), f"writing {folder.name}", count, unit="clip"))
    return clips


def read(path: Path | str) -> Media:
    """Any media file, as the model takes it: two pictures a second of 32 × 32, sound of 16 kHz."""
    return load_media(path, frame_rate=1 / SCENE, size=32, sample_rate=SAMPLE_RATE)


def read_clips(clips: Sequence[Clip]) -> list[Media]:
    """The clips, back from their files."""
    with ThreadPoolExecutor(2) as pool:
        media = pool.map(read, [clip.path for clip in clips])
        return list(tqdm(media, "reading", len(clips), unit="clip"))
