"""The whole job: files, training, held-out answers, the twin, the picture and the saved model."""

import json
import os
import platform
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import avfusion
from avfusion.models import AudioVisualLanguageModel
from examples.tiny_avllm.ask import save
from examples.tiny_avllm.data import read_clips, write_clips
from examples.tiny_avllm.model import SeparateConnector, Towers, build_connector, build_model
from examples.tiny_avllm.picture import draw
from examples.tiny_avllm.questions import build_tokenizer
from examples.tiny_avllm.train import (
    Answered,
    EncodedClips,
    accuracy,
    encode,
    examine,
    pretrain_connector,
    pretrain_encoders,
    train,
)


class Settings(NamedTuple):
    out: Path
    seed: int
    clips: int
    held_out: int
    encoder_steps: int
    connector_steps: int
    steps: int
    twin: bool


class Stages:
    """Wall and processor seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self.seconds[name] = {
            "wall": round(time.perf_counter() - wall, 1),
            "processor": round(time.process_time() - processor, 1),
        }


def run(settings: Settings) -> dict[str, Any]:
    """Does everything, and returns what it writes to ``results.json``."""
    out, seed, stage = settings.out, settings.seed, Stages()
    torch.manual_seed(seed)
    with stage("files"):
        clips = write_clips(out / "train", settings.clips, seed=2 * seed)
        held_out = write_clips(out / "held_out", settings.held_out, seed=2 * seed + 1)
        media, held_out_media = read_clips(clips), read_clips(held_out)

    towers, tokenizer = Towers(), build_tokenizer()
    with stage("encoders"):
        pretrain_encoders(towers, media, clips, steps=settings.encoder_steps)
    model = build_model(towers, build_connector(), tokenizer)
    with stage("features"):
        data, unseen = encode(model, media, clips), encode(model, held_out_media, held_out)

    # The twin learns beside it, on a core of its own.
    with stage("training"), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        waiting = pool.submit(train_twin, settings, data, unseen) if settings.twin else None
        pretrain_connector(model.connector, data, steps=settings.connector_steps)
        train("training", model, tokenizer, data, steps=settings.steps, seed=seed)
        twin = waiting.result() if waiting else {}
    save(model, tokenizer, out / "model")
    with stage("answers"):
        answered = examine(model, tokenizer, unseen, seed=seed)
    results: dict[str, Any] = {
        "seed": seed,
        "held_out_questions": len(answered),
        "accuracy": accuracy(answered),
        "parameters": _parameters(model),
        **twin,
    }
    with stage("picture"):
        longest = max(held_out, key=lambda clip: len(clip.scenes))
        lines = [f"{one.question.text}  {one.given}" for one in answered if one.clip == longest]
        draw(model, longest.path, out / "tiny_avllm.png", lines[:3])
    results |= {"seconds": stage.seconds, "settings": {**settings._asdict(), "out": str(out)}, "ran_on": _ran_on()}
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    _report(answered, results, out)
    return results


def train_twin(settings: Settings, data: EncodedClips, unseen: EncodedClips) -> dict[str, Any]:
    """The same training of the model that does not synchronise, and what it comes to."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    twin = build_model(Towers(), SeparateConnector(), tokenizer)
    pretrain_connector(twin.connector, data, steps=settings.connector_steps, bar=1)
    train("the twin", twin, tokenizer, data, steps=settings.steps, seed=settings.seed, bar=1)
    answered = examine(twin, tokenizer, unseen, seed=settings.seed)
    return {"twin_accuracy": accuracy(answered), "twin_parameters": _parameters(twin)}


def _parameters(model: AudioVisualLanguageModel) -> dict[str, int]:
    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    encoders = sum(count(encoder) for encoder in model.encoders.values())
    return {"encoders": encoders, "connector": count(model.connector), "language_model": count(model.language_model)}


def _ran_on() -> dict[str, object]:
    packages = ("torch", "transformers", "timm", "av")
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "avfusion": avfusion.__version__,
        **{name: version(name) for name in packages},
    }


def _report(answered: list[Answered], results: dict[str, Any], out: Path) -> None:
    print("\nHeld-out files, which the model has never seen:")
    for one in answered[:: max(1, len(answered) // 8)][:8]:
        mark = "✓" if one.right else "✗"
        print(f"  {mark} {one.clip.path.name}  {one.question.text}\n      {one.given}   (truth: {one.question.answer})")
    print(f"\n{'with synchronisation':<28}{results['accuracy']:7.1%} of {len(answered)} held-out questions")
    if "twin_accuracy" in results:
        print(f"{'without (the twin)':<28}{results['twin_accuracy']:7.1%}")
    print(f"\npicture {out / 'tiny_avllm.png'}, model {out / 'model'}, figures {out / 'results.json'}")
    example = answered[0]
    print(f'ask it: python -m examples.tiny_avllm ask {example.clip.path} "{example.question.text}"')
