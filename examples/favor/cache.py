"""``python -m examples.favor cache``: the frozen towers' tokens of a data set, once and for all."""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from avfusion import InvalidValueError
from avfusion.features import FeatureStore, FeatureWriter, FileStamp
from avfusion.models import Clip
from examples.favor.features import Track, as_streams, cache_settings, clip_tracks
from examples.favor.loading import load
from examples.favor.processing_favor import FavorProcessor
from examples.favor.records import Example, read_examples
from examples.favor.streams import VISUAL, unpad_features
from examples.favor.workers import WORKERS

OPTION_HELP = "an option of FavorConfig, over the model's: window_frames=20, fusion=separate, …; may be repeated"


class Job(NamedTuple):
    """What is to be encoded of an example: its frames and its audio, where they are not kept yet.

    Attributes:
        example: the example.
        visual: the track of its frames.
        sound: the track of its audio.
        stamps: the state of the tracks' files, by key, when they were read.
    """

    example: Example
    visual: Track | None
    sound: Track | None
    stamps: Mapping[str, list[FileStamp]] = {}

    @property
    def tracks(self) -> list[Track]:
        """What is to be encoded."""
        return [track for track in (self.visual, self.sound) if track is not None]


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
    parser.add_argument("--batch-size", type=int, default=4, metavar="N", help="clips that are encoded at once (4)")
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"processes that read media ({WORKERS})")
    parser.add_argument("--shard-size", type=int, default=256, metavar="MB", help="size of a file (256)")


def run(options: argparse.Namespace) -> int:
    if options.batch_size < 1:
        raise InvalidValueError(f"batch-size: must be at least 1, found {options.batch_size}")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the workers are forked
    model, processor = load(
        options.model,
        device=options.device,
        dtype=choose_dtype(options.dtype, options.device),
        options=parse_options(options.option),
    )
    examples = read_examples(options.data, media_root=options.media_root)
    place = {"rank": int(os.environ.get("RANK", "0")), "world_size": int(os.environ.get("WORLD_SIZE", "1"))}
    settings, shard_size = cache_settings(model, processor), options.shard_size * 1_000_000
    with FeatureWriter(options.out, settings, dtype=None, shard_size=shard_size, rank=place["rank"]) as writer:
        try:
            encode_examples(
                model,
                processor,
                examples,
                writer,
                batch_size=options.batch_size,
                workers=options.workers,
                progress=place["rank"] == 0,
                **place,
            )
        except InvalidValueError as error:  # of a worker: its message ends with the one that was raised there
            raise InvalidValueError(str(error).strip().splitlines()[-1]) from error
    print(f"{len(FeatureStore(options.out))} tracks in {options.out}")
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
    batch_size: int = 1,
    workers: int = 0,
    progress: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Encodes this process's share of the distinct tracks that the cache lacks, or whose file changed since."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    jobs = plan(examples, writer, rank=rank, world_size=world_size)
    device, dtype = base.device, base.audio_encoder.dtype
    loader = DataLoader(
        _Clips(jobs, processor),
        batch_size=batch_size,
        collate_fn=partial(_inputs, processor),
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    # As training will run the towers; not around the loader, whose processes on a CPU would compute in half precision.
    half = torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
    with torch.inference_mode(), tqdm(total=len(jobs), desc="encode", unit="clip", disable=not progress) as bar:
        for read, inputs in loader:
            with half:
                tokens = base.encode(**{name: value.to(device, non_blocking=True) for name, value in inputs.items()})
            for row, job in enumerate(read):
                _keep(writer, job, unpad_features(tokens, row))
                bar.update()
    writer.flush()


def plan(examples: Sequence[Example], writer: FeatureWriter, *, rank: int = 0, world_size: int = 1) -> list[Job]:
    """One job for every example that has a track which is neither kept nor planned.

    Processes share the list of all tracks, whatever is kept, so that it is the same in each.
    """
    planned: set[str] = set()
    jobs = []
    for example in examples:
        tracks = clip_tracks(example.messages, instructed=bool(writer.settings["instructed"]))
        new = {name: track for name, track in tracks.items() if track.key not in planned}
        planned |= {track.key for track in new.values()}
        if new:
            jobs.append(Job(example, new.get("visual"), new.get("sound")))
    share = [
        job._replace(visual=_unless_kept(job.visual, writer), sound=_unless_kept(job.sound, writer))
        for job in jobs[rank::world_size]
    ]
    return [job for job in share if job.tracks]


def _unless_kept(track: Track | None, writer: FeatureWriter) -> Track | None:
    return None if track is None or writer.is_kept(track.key, [track.file]) else track


def _keep(writer: FeatureWriter, job: Job, tokens: Mapping[str, torch.Tensor]) -> None:
    streams = as_streams(tokens)
    if job.visual is not None:
        seen = {name: value for name, value in streams.items() if name == VISUAL}
        writer.add(job.visual.key, seen, job.stamps.get(job.visual.key, ()))
    if job.sound is not None:
        heard = {name: value for name, value in streams.items() if name != VISUAL}
        writer.add(job.sound.key, heard, job.stamps.get(job.sound.key, ()))


class _Clips(Dataset[tuple[Job, Clip]]):
    """What each job's files hold of what is to be encoded."""

    def __init__(self, jobs: Sequence[Job], processor: FavorProcessor) -> None:
        self.jobs = jobs
        self.processor = processor

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> tuple[Job, Clip]:
        job = self.jobs[index]
        stamps = {track.key: [FileStamp.of(track.file)] for track in job.tracks if Path(track.file).is_file()}
        try:
            clip = self.processor.load_clip(job.example.messages)
        except InvalidValueError as error:
            raise type(error)(f"{job.example.place}: {error}") from None
        if clip is None:  # a job has media
            raise RuntimeError(job.example.place)
        return job._replace(stamps=stamps), clip._replace(
            video=None if job.visual is None else clip.video, waveform=None if job.sound is None else clip.waveform
        )


def _inputs(processor: FavorProcessor, rows: list[tuple[Job, Clip]]) -> tuple[list[Job], dict[str, torch.Tensor]]:
    """The jobs, and the towers' inputs of all clips; of a silent video whose frames are kept there are none."""
    jobs, clips = [job for job, _ in rows], [clip for _, clip in rows]
    if all(clip.video is None and clip.waveform is None for clip in clips):
        return jobs, {}
    return jobs, processor.encode_media(clips)[0]
