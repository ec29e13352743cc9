"""Generated clips: every second a coloured shape is on screen and one of several voices speaks a word, or none."""

import os
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from avfusion.aveb import espeak
from avfusion.media import load_media, write_video
from examples.tiny_avllm.data import COLOURS, SHAPES, paint

WORDS = ("dog", "cat", "sun", "tree", "fish", "book", "rain", "milk", "chair", "house")
VOICES = [(voice, speed) for voice in ("en-us", "gmw/en", "en-us+m4", "gmw/en-GB-scotland") for speed in (140, 180)]
SCENE = 1.0  # seconds that a shape and a word last
FEWEST_SCENES, MOST_SCENES = 4, 6  # of a clip
FILE_RATE, FRAME_RATE = 10.0, 2.0  # frames per second: in the files, and as the model takes them
PIXELS = 96
SAMPLE_RATE = 16_000

Speech = Mapping[tuple[int, str], Tensor]


class Scene(NamedTuple):
    """What is seen and heard for a second. ``word`` is empty if nothing is said."""

    colour: str
    shape: str
    word: str
    said: tuple[float, float]  # start and end of the word, in seconds of the clip


class Clip(NamedTuple):
    """A file and what is in it."""

    path: Path
    scenes: tuple[Scene, ...]
    voices: tuple[int, ...]
    seed: int


def speak_words(folder: Path) -> Speech:
    """``(sample,)`` of every word in every voice, kept as wav files."""
    folder.mkdir(parents=True, exist_ok=True)
    spoken = {}
    for number, (voice, speed) in enumerate(tqdm(VOICES, "speaking", unit="voice")):
        for word in WORDS:
            path = folder / f"{number}-{word}.wav"
            if not path.is_file():
                part = path.with_suffix(".part")
                espeak(word, part, voice=voice, speed=speed)
                part.rename(path)
            waveform = load_media(path, sample_rate=SAMPLE_RATE).waveform
            if waveform is not None:
                spoken[number, word] = waveform.samples[0]
    return spoken


def draw_clips(folder: Path, count: int, speech: Speech, *, seed: int, silence: float = 0.0) -> list[Clip]:
    """What the files will hold: words and colours that differ within a clip; no word in a share of scenes."""
    choose = random.Random(seed)
    clips = []
    for number in range(count):
        scenes, voices = [], []
        length = choose.randint(FEWEST_SCENES, MOST_SCENES)
        drawn = zip(choose.sample([*COLOURS], length), choose.sample(WORDS, length), strict=True)
        for place, (colour, word) in enumerate(drawn):
            voice = choose.randrange(len(VOICES))
            if silence and choose.random() < silence:
                scenes.append(Scene(colour, choose.choice(SHAPES), "", (place * SCENE, place * SCENE)))
                voices.append(voice)
                continue
            seconds = len(speech[voice, word]) / SAMPLE_RATE
            start = place * SCENE + choose.uniform(0.03, max(0.04, SCENE - seconds - 0.03))
            scenes.append(Scene(colour, choose.choice(SHAPES), word, (start, start + seconds)))
            voices.append(voice)
        clips.append(Clip(folder / f"{number:04}.mp4", tuple(scenes), tuple(voices), choose.getrandbits(32)))
    return clips


def write_clips(clips: Sequence[Clip], speech: Speech) -> None:
    """Writes the files that are not there yet."""
    missing = [clip for clip in clips if not clip.path.is_file()]
    for folder in {clip.path.parent for clip in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        written = pool.map(lambda clip: _write(clip, speech), missing)
        for _ in tqdm(written, "writing", len(missing), unit="clip"):
            pass


def _write(clip: Clip, speech: Speech) -> None:
    generator = torch.Generator().manual_seed(clip.seed)
    frames = paint(clip.scenes, generator, seconds=SCENE, pixels=PIXELS)
    part = clip.path.with_suffix(".part.mp4")
    write_video(part, frames, FILE_RATE, _sound(clip, speech, generator), SAMPLE_RATE)
    part.rename(clip.path)


def _sound(clip: Clip, speech: Speech, generator: torch.Generator) -> Tensor:
    samples = 0.004 * torch.randn(round(len(clip.scenes) * SCENE * SAMPLE_RATE), generator=generator)
    for scene, voice in zip(clip.scenes, clip.voices, strict=True):
        if not scene.word:
            continue
        word = speech[voice, scene.word] * (0.6 + 0.6 * torch.rand((), generator=generator))
        first = round(scene.said[0] * SAMPLE_RATE)
        room = samples[first : first + len(word)]
        room += word[: len(room)]
    return samples.clamp(-1, 1)
