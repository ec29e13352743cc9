"""``python -m examples.favor cache``: the frozen towers' tokens of a data set, once and for all."""

import argparse
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from avfusion import InvalidValueError
from examples.favor.features import FeatureWriter, cache_settings, clip_keys, unpadded
from examples.favor.loading import load
from examples.favor.modeling_favor import MEDIA_INPUTS
from examples.favor.parts import STREAMS
from examples.favor.processing_favor import FavorProcessor
from examples.favor.records import Example, read_examples

OPTION_HELP = "an option of FavorConfig, over the model's: window_frames=20, fusion=separate, …; may be repeated"


class Job(NamedTuple):
    """What is to be encoded of an example: the names of its pictures and its sound, where they are not kept yet."""

    example: Example
    visual: str | None
    sound: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="a preset, tiny, or a directory")
    parser.add_argument("--data", required=True, nargs="+", metavar="FILE", help="JSON lines or JSON arrays")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder of the cache; one that is there is continued"
    )
    parser.add_argument("--media-root", metavar="DIR", help="what relative media names start from (each file's folder)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="must be training's; its default here too")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help=OPTION_HELP)
    parser.add_argument("--workers", type=int, default=4, help="processes that read media (4)")
    parser.add_argument("--shard-size", type=int, default=256, metavar="MB", help="size of a file (256)")


def run(options: argparse.Namespace) -> int:
    model, processor = load(
        options.model,
        device=options.device,
        dtype=choose_dtype(options.dtype, options.device),
        options=parse_options(options.option),
    )
    examples = read_examples(options.data, media_root=options.media_root)
    shard_size = options.shard_size * 1_000_000
    writer = FeatureWriter(options.out, cache_settings(model, processor), shard_size=shard_size)
    encode_examples(model, processor, examples, writer, workers=options.workers, progress=True)
    print(f"{len(writer.entries)} tracks in {options.out}")
    return 0


def choose_dtype(name: str | None, device: str | torch.device) -> torch.dtype:
    """The dtype of that name; without one, bfloat16 on a GPU that has it."""
    if name is not None:
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    half = torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if half else torch.float32


def parse_options(given: Sequence[str]) -> dict[str, Any]:
    """``name=value`` with a JSON value, or text."""
    options = {}
    for option in given:
        name, equals, value = option.partition("=")
        if not equals:
            raise InvalidValueError(f"option: must be NAME=VALUE, found {option!r}")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def encode_examples(
    model: Any,
    processor: FavorProcessor,
    examples: Sequence[Example],
    writer: FeatureWriter,
    *,
    workers: int = 0,
    progress: bool = False,
) -> None:
    """Encodes every distinct track that the cache lacks."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    jobs = plan(examples, writer)
    loader = DataLoader(_Inputs(jobs, processor), batch_size=None, num_workers=workers)
    device, dtype = base.device, base.audio_tower.conv1.weight.dtype
    # As training will run the towers.
    half = torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
    with torch.inference_mode(), half:
        for number, inputs in enumerate(tqdm(loader, desc="encode", unit="clip", disable=not progress)):
            tokens = base.encode(**{name: value.to(device) for name, value in inputs.items()})
            job, single = jobs[number], unpadded(tokens, STREAMS)
            if job.visual is not None:
                writer.add(job.visual, {name: single[name] for name in STREAMS["visual"] if name in single})
            if job.sound is not None:
                heard = {*STREAMS["audio"], *STREAMS["events"]}
                writer.add(job.sound, {name: value for name, value in single.items() if name in heard})
    writer.flush()


def plan(examples: Sequence[Example], writer: FeatureWriter) -> list[Job]:
    """One job for every example that has a track which is neither kept nor planned."""
    known, jobs = set(writer.entries), []
    for example in examples:
        keys = clip_keys(example.messages, instructed=bool(writer.index["settings"]["instructed"]))
        new = {name: key for name, key in keys.items() if key not in known}
        known |= set(new.values())
        if new:
            jobs.append(Job(example, new.get("visual"), new.get("sound")))
    return jobs


class _Inputs(Dataset[dict[str, torch.Tensor]]):
    """The towers' inputs of each job."""

    def __init__(self, jobs: Sequence[Job], processor: FavorProcessor) -> None:
        self.jobs = jobs
        self.processor = processor

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        job = self.jobs[index]
        try:
            clip = self.processor.load_clip(job.example.messages)
            if clip is None:  # a job has media
                raise RuntimeError(job.example.place)
            clip = clip._replace(
                video=None if job.visual is None else clip.video, waveform=None if job.sound is None else clip.waveform
            )
            if clip.video is None and clip.waveform is None:  # a silent video, whose pictures are kept
                return {}
            inputs = self.processor([self.processor.media_token], [clip])
        except InvalidValueError as error:
            raise type(error)(f"{job.example.place}: {error}") from None
        return {name: value for name, value in inputs.items() if name in MEDIA_INPUTS}
