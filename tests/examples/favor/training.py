"""What the tests of training share: clips that differ, data files, and a tiny base that can learn."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from avfusion.media import write_video
from examples.favor.tags import Messages
from examples.favor.tiny import tiny

COLOURS = {"red": (1.0, 0.0, 0.0), "blue": (0.0, 0.0, 1.0)}


def write_clips(folder: Path) -> dict[str, Path]:
    """Every colour with every sound, 1 s each, named after what is seen and heard."""
    noise = torch.Generator().manual_seed(0)
    sounds = {
        "hum": torch.sin(2 * torch.pi * 300 * torch.arange(16_000) / 16_000) * 0.5,
        "hiss": torch.randn(16_000, generator=noise) * 0.2,
    }
    files = {}
    for colour, rgb in COLOURS.items():
        for sound, samples in sounds.items():
            path = folder / f"{colour}_{sound}.mp4"
            pictures = torch.tensor(rgb)[None, :, None, None].expand(4, 3, 32, 32)
            write_video(path, pictures, frame_rate=4.0, samples=samples)
            files[f"{colour} {sound}"] = path
    return files


def asking(path: Path, answer: str, question: str = "what?", kind: str = "video") -> Messages:
    return [
        {"role": "user", "content": [{"type": kind, "path": str(path)}, {"type": "text", "text": question}]},
        {"role": "assistant", "content": answer},
    ]


def write_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_data(folder: Path) -> Path:
    """A data file about :func:`write_clips`."""
    files = write_clips(folder)
    return write_lines(folder / "train.jsonl", [{"messages": asking(file, name)} for name, file in files.items()])


def save_base(folder: Path) -> Path:
    """The tiny twin of the modern preset, with weights so large that what it sees and hears reaches its answers."""
    model, processor = tiny("modern")
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and not name.startswith("connector"):
            parameter.data.mul_(16)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    """Trainer's arguments of a quiet run on the CPU."""
    quiet: dict[str, Any] = {
        "output_dir": str(folder),
        "report_to": "none",
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "logging_steps": 1,
    }
    return TrainingArguments(**{**quiet, **options})


def command_line(data: Path, out: Path, *options: str) -> list[str]:
    """Arguments of ``train`` for a short run: eight micro-batches an epoch, four steps."""
    given = ["--data", str(data), "--out", str(out), "--batch-size", "1", "--accumulate", "2", "--workers", "0"]
    sets = ["--set", "logging_steps=1", "--set", "use_cpu=true", "--set", "disable_tqdm=true"]
    return ["train", *given, *sets, "--set", "report_to=none", *options]


def curve(out: Path) -> list[tuple[int, float, float]]:
    """Step, loss and gradient norm of every step of a run."""
    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    return [(entry["step"], entry["loss"], entry["grad_norm"]) for entry in history if "loss" in entry]
