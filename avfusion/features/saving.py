"""Encoding the clips of a data set, on one or several processes."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from avfusion.errors import InvalidValueError
from avfusion.features.settings import feature_settings
from avfusion.features.sources import Source, clip_files, clip_key, messages_of
from avfusion.features.stamps import FileStamp
from avfusion.features.writer import FeatureWriter
from avfusion.models import MediaBatch, split_features
from avfusion.types import Frames, TokenStream


class _Job(NamedTuple):
    key: str
    messages: list[Any]
    files: list[str | Path]


class _Batch(NamedTuple):
    jobs: list[_Job]
    stamps: list[list[FileStamp]]
    media: MediaBatch


def save_features(
    directory: str | Path,
    model: Any,
    processor: Any,
    clips: Sequence[Source],
    *,
    dtype: torch.dtype | None = torch.float16,
    batch_size: int = 1,
    num_workers: int = 0,
    shard_size: int = 256_000_000,
    rank: int | None = None,
    world_size: int | None = None,
    progress: bool = False,
) -> int:
    """Encodes the clips of a data set, and keeps the encoders' output in a directory.

    Each clip is encoded once, however many conversations are about it. What the directory already holds is not encoded
    again, unless a file changed; so a run that was killed is continued by the same call. Started on several processes,
    by ``torchrun`` or ``accelerate launch``, each encodes its share; the last to end writes the index over all. They do
    not wait for each other: use a barrier of your own before :func:`load_features` in the same program.

    Args:
        directory: directory of the features; created if it does not exist, shared by all processes.
        model: an :class:`~avfusion.models.AudioVisualLanguageModel`; its encoders run in evaluation mode.
        processor: its processor, which reads the files.
        clips: media files, conversations about media files, or rows ``{"messages": conversation}``, the same and in
            the same order in all processes. Conversations without media are skipped.
        dtype: dtype of the tokens in the files; ``None`` for the encoders'. Times are float64.
        batch_size: clips to encode at once; for more than one, all frames must have one size.
        num_workers: processes that read media.
        shard_size: bytes of features after which a file is written; a killed process loses at most this much.
        rank: number of this process; by default that of ``torch.distributed``, or of the environment variable
            ``RANK``.
        world_size: number of processes; by default that of ``torch.distributed``, or of ``WORLD_SIZE``.
        progress: shows a progress bar in the process of rank 0.

    Returns:
        The number of clips that this process encoded.

    Raises:
        CheckpointError: the directory holds features of other encoders, media options or another dtype.
        InvalidValueError: a model without encoders, or tokens that are too large for ``dtype``.
        MediaError: a file cannot be read; what was encoded before it is kept.

    Example:
        >>> import tempfile, torch
        >>> from avfusion import TokenStream
        >>> from avfusion.features import load_features, save_features
        >>> from avfusion.media import write_video
        >>> from avfusion.models import Clip
        >>> folder = tempfile.mkdtemp()
        >>> write_video(f"{folder}/a.mp4", torch.rand(4, 3, 32, 32), frame_rate=4.0, samples=torch.zeros(16000))
        >>> class Ear(torch.nn.Module):
        ...     def forward(self, waveform):
        ...         return TokenStream.from_rate(waveform.samples.unfold(1, 160, 160), rate=100.0)
        >>> class Listener:  # in your code a model and its processor
        ...     encoders = {"audio": Ear()}
        ...     media_options = {"sample_rate": 16000}
        ...     def encode(self, video, waveform):
        ...         return {"audio": self.encoders["audio"](waveform)}
        ...     def instruction(self, messages):
        ...         return None
        ...     def load_clip(self, messages):
        ...         from avfusion.media import load_media
        ...         return Clip(waveform=load_media(messages[0]["content"][0]["video"], sample_rate=16000).waveform)
        >>> save_features(f"{folder}/features", Listener(), Listener(), [f"{folder}/a.mp4"])
        1
        >>> clip = load_features(f"{folder}/features", Listener()).clip(f"{folder}/a.mp4")
        >>> clip.features["audio"].tokens.shape, clip.features["audio"].tokens.dtype
        (torch.Size([1, 100, 160]), torch.float16)
    """
    rank, world_size = process_place(rank, world_size)
    if batch_size < 1:
        raise InvalidValueError(f"batch_size: must be at least 1, found {batch_size}")
    if not model.encoders:
        raise InvalidValueError("model: must have encoders, found none")
    settings = feature_settings(model, processor)
    options: dict[str, Any] = {"dtype": dtype, "shard_size": shard_size, "rank": rank}
    encoded = 0
    with FeatureWriter(directory, settings, **options) as writer, _evaluating(list(model.encoders.values())):
        share = _jobs(clips, processor)[rank::world_size]
        jobs = [job for job in share if not writer.is_kept(job.key, job.files)]
        loader = DataLoader(
            _Clips(jobs, processor), batch_size=batch_size, collate_fn=_collate, num_workers=num_workers
        )
        for batch in _shown(loader, progress and rank == 0):
            for job, stamps, clip in zip(batch.jobs, batch.stamps, _encode(model, batch.media), strict=True):
                writer.add(job.key, clip, stamps)
                encoded += 1
    return encoded


def process_place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Number of this process, and of all; those that are not given as torchrun and accelerate say.

    Raises:
        InvalidValueError: a rank that is not one of them.
    """
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    if rank is None:
        rank = torch.distributed.get_rank() if together else int(os.environ.get("RANK", "0"))
    if world_size is None:
        world_size = torch.distributed.get_world_size() if together else int(os.environ.get("WORLD_SIZE", "1"))
    if not 0 <= rank < world_size:
        raise InvalidValueError(f"rank: must be from 0 to world_size - 1 = {world_size - 1}, found {rank}")
    return rank, world_size


def _jobs(clips: Sequence[Source], processor: Any) -> list[_Job]:
    """The distinct clips, in the same order whatever is already kept: every process takes its share of this list."""
    jobs: dict[str, _Job] = {}
    for source in clips:
        messages = messages_of(source)
        key = clip_key(messages, processor.instruction(messages))
        if key is not None and key not in jobs:
            jobs[key] = _Job(key, messages, list(clip_files(messages).values()))
    return list(jobs.values())


class _Clips(Dataset[Any]):
    """What the files of each job hold, and their state before they were read."""

    def __init__(self, jobs: Sequence[_Job], processor: Any) -> None:
        self.jobs = jobs
        self.processor = processor

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> Any:
        job = self.jobs[index]
        stamps = [FileStamp.of(file) for file in job.files if Path(file).is_file()]
        return job, stamps, self.processor.load_clip(job.messages)


def _collate(rows: Sequence[Any]) -> _Batch:
    from avfusion.media import Media, collate_media  # needs PyAV

    jobs, stamps, clips = zip(*rows, strict=True)
    media = MediaBatch(*collate_media([Media(clip.video, clip.waveform, 0.0) for clip in clips]))
    return _Batch(list(jobs), list(stamps), media)


@torch.no_grad()
def _encode(model: Any, media: MediaBatch) -> list[dict[str, Frames | TokenStream]]:
    """The features of each clip: the streams of which it has something, or else one of no tokens."""
    like = next((value for encoder in model.encoders.values() for value in encoder.parameters()), torch.empty(0))
    media = media.to(like.device)
    found = []
    for clip in split_features(model.encode(media.video, media.waveform)):
        real = {name: value for name, value in clip.items() if value.mask.any()}
        found.append(real or dict(list(clip.items())[:1]))
    return found


@contextmanager
def _evaluating(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    modes = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)


def _shown(loader: DataLoader[Any], shown: bool) -> Any:
    if not shown:
        return loader
    from tqdm.auto import tqdm

    return tqdm(loader, desc="encode", unit="batch")
