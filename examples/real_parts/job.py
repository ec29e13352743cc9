"""The whole job, from parts to results. A stage that is done is not repeated."""

import json
import os
import platform
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

import avfusion
from avfusion import InvalidValueError
from avfusion.features import load_features, save_features
from avfusion.files import write_whole
from avfusion.models import AudioVisualLanguageModel, AudioVisualProcessor, Clip
from examples.real_parts import clips as files
from examples.real_parts import free_questions, questions
from examples.real_parts.arms import ARMS
from examples.real_parts.audio_encoder import pretrain_audio_encoder
from examples.real_parts.examine import CONDITIONS, accuracy, examine, text_ability, watch
from examples.real_parts.model import add_lora, build, load_audio_encoder
from examples.real_parts.parts import Parts, packaged
from examples.real_parts.stages import align, train

FORMS: dict[str, Any] = {"instant": questions, "free": free_questions}
SILENCE = 0.2  # share of scenes without a word, with free questions
EXAMINED_WHOLLY = ("synchronised", "modality-dropout")  # in all conditions
SHOWN = 27  # answers in the results


class Settings(NamedTuple):
    """What is run; the fields are the options of the command."""

    out: Path
    seed: int
    language_model: str | None
    visual_encoder: str | None
    clips: int
    held_out: int
    encoder_steps: int
    align_steps: int
    steps: int
    live: int
    questions: str
    arms: list[str]
    device: str

    @property
    def folder(self) -> Path:
        return self.out / f"seed-{self.seed}"


class Material(NamedTuple):
    """What both models learn from and are asked about."""

    parts: Parts
    whisper: Path
    clips: list[files.Clip]
    held_out: list[files.Clip]


def run(settings: Settings) -> dict[str, Any]:
    """Does what is not done yet, and returns what it writes to ``results.json``.

    Raises:
        InvalidValueError: the folder holds a run of other settings.
    """
    if settings.questions != "free" and any(ARMS[name].dropped for name in settings.arms):
        raise InvalidValueError("arms: modality-dropout needs questions that one stream can answer (questions: free)")
    _check_settings(settings)
    material = prepare(settings)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:  # one core for each
        waiting = {name: pool.submit(learn, settings, material, name) for name in settings.arms}
        arms = {name: one.result() for name, one in waiting.items()}
    seconds = {path.stem: json.loads(path.read_text()) for path in sorted(settings.folder.glob("seconds/*.json"))}
    results = {
        "seed": settings.seed,
        "parts": material.parts._asdict() if settings.language_model else {"packaged": True},
        "arms": arms,
        "seconds": seconds,
        "settings": {**settings._asdict(), "out": settings.out.name},
        "ran_on": _ran_on(settings.device),
    }
    (settings.folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


def prepare(settings: Settings) -> Material:
    """Parts, clips, the audio encoder and the features."""
    folder = settings.folder
    if settings.language_model and settings.visual_encoder:
        parts = Parts(settings.language_model, settings.visual_encoder)
    else:
        parts = packaged(settings.out / "parts")
    speech = files.speak_words(settings.out / "speech")
    silence = SILENCE if settings.questions == "free" else 0.0
    train_clips, held_out = (
        files.draw_clips(folder / name, count, speech, seed=2 * settings.seed + number, silence=silence)
        for number, (name, count) in enumerate((("train", settings.clips), ("held_out", settings.held_out)))
    )
    _once(folder, "clips", lambda: files.write_clips([*train_clips, *held_out], speech))
    whisper = folder / "whisper"

    def train_encoder() -> float:
        return pretrain_audio_encoder(whisper, speech, steps=settings.encoder_steps, seed=settings.seed)

    _once(folder, "audio_encoder", train_encoder)
    material = Material(parts, whisper, train_clips, held_out)

    def encode() -> int:
        model = build(parts, whisper).to(settings.device)
        processor = AudioVisualProcessor.from_model(model)
        paths = [str(clip.path) for clip in (*train_clips, *held_out)]
        return save_features(folder / "features", model, processor, paths, batch_size=16, progress=True)

    _once(folder, "features", encode)
    return material


def learn(settings: Settings, material: Material, name: str) -> dict[str, Any]:
    """Trains one of ``ARMS``, and examines it."""
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    folder, target, arm, form = settings.folder, settings.folder / name, ARMS[name], FORMS[settings.questions]
    model = build(material.parts, material.whisper, arm).to(settings.device)
    processor = AudioVisualProcessor.from_model(model)
    store = load_features(folder / "features", model, processor)

    def kept(clips: Sequence[files.Clip]) -> list[Clip]:
        return [clip for clip in (store.clip(one.path) for one in clips) if clip is not None]

    if not (target / "trained").is_dir():
        features, aligned = kept(material.clips), target / "aligned.safetensors"

        def train_connector() -> None:
            align(model, processor, material.clips, features, steps=settings.align_steps, seed=settings.seed)
            target.mkdir(parents=True, exist_ok=True)
            write_whole(aligned, lambda part: save_file(model.connector.state_dict(), part))

        if arm.aligned:
            _once(folder, f"{name}_alignment", train_connector)
            model.connector.load_state_dict(load_file(aligned))
        if arm.adapted:
            add_lora(model)

        def train_both() -> None:
            options = {"dialogue": form.dialogue, "arm": arm, "steps": settings.steps, "seed": settings.seed}
            train(model, processor, material.clips, features, **options)

        _timed(folder, f"{name}_training", train_both)
        model.save_pretrained(target / "part")
        (target / "part").rename(target / "trained")
    model = AudioVisualLanguageModel.from_pretrained(
        target / "trained",
        audio_encoders={"audio": load_audio_encoder(material.whisper)},
        **({"connector": model.connector} if arm.separate else {}),
    )
    model = model.to(settings.device).eval()
    processor = AudioVisualProcessor.from_model(model)
    results: dict[str, Any] = {"parameters": {part: _count(module) for part, module in model.named_children()}}
    unseen, asked = kept(material.held_out), form.examination(material.held_out)
    results["questions"] = len(asked)
    conditions = list(CONDITIONS) if name in EXAMINED_WHOLLY else ["both"]
    answered = {condition: examine(model, processor, unseen, asked, condition) for condition in conditions}
    results["accuracy"] = {condition: accuracy(some) for condition, some in answered.items()}
    results["examples"] = [
        {"clip": one.clip, "question": one.question.text, "expected": one.question.answer, "given": one.given}
        for one in answered["both"][:SHOWN]
    ]
    if arm.adapted:
        results["text"] = text_ability(model, processor)
    if name == "synchronised":
        choose = random.Random(settings.seed)
        shown = list(zip(material.held_out, unseen, strict=True))[: settings.live]
        results["live"] = [watch(model, processor, clip, features, choose) for clip, features in shown]
    return results


def _check_settings(settings: Settings) -> None:
    """Stages that are done are taken over, so all must be of the same settings."""
    file = settings.folder / "settings.json"
    told = {**settings._asdict(), "out": settings.out.name}
    free = ("live", "arms", "device")  # what is examined may change
    if file.is_file():
        before = json.loads(file.read_text())
        changed = [name for name in told if name not in free and told[name] != before.get(name)]
        if changed:
            name = changed[0]
            raise InvalidValueError(
                f"{name}: must be {before.get(name)!r} as in the run in {settings.folder}, found {told[name]!r}; "
                "choose another folder"
            )
    settings.folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(told, indent=2) + "\n")


def _once(folder: Path, stage: str, work: Callable[[], object]) -> None:
    """Does a stage that has not ended before."""
    if not (folder / "seconds" / f"{stage}.json").is_file():
        _timed(folder, stage, work)


def _timed(folder: Path, stage: str, work: Callable[[], object]) -> None:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    seconds = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
    (folder / "seconds").mkdir(parents=True, exist_ok=True)
    rounded = {name: round(value, 1) for name, value in seconds.items()}
    (folder / "seconds" / f"{stage}.json").write_text(json.dumps(rounded))


def _count(module: torch.nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


def _ran_on(device: str) -> dict[str, object]:
    packages = ("torch", "transformers", "peft", "timm", "av")
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads_of_an_arm": 1,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "python": platform.python_version(),
        "avfusion": avfusion.__version__,
        **{name: version(name) for name in packages},
    }
