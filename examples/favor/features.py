"""The towers' tokens of a data set, kept in files: frozen towers always give the same."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from avfusion import CheckpointError
from avfusion.files import write_whole
from avfusion.models import Clip, first_question, media_sources
from examples.favor.processing_favor import FavorProcessor
from examples.favor.streams import STREAMS
from examples.favor.tags import Messages

INDEX = "index.json"
FORMAT = 2  # of the index


class Track(NamedTuple):
    """The pictures or the sound of a conversation.

    Attributes:
        key: name of its tokens; equal names, equal tokens, while the file stays the same.
        stamp: size and time of change (ns) of its file; ``None`` if there is no such file: then what is kept stands for
            it.
    """

    key: str
    stamp: list[int] | None

    def is_kept(self, entries: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether these entries of an index hold the file's tokens, as it is now."""
        return self.key in entries and self.stamp in (None, entries[self.key]["file"])


def cache_settings(model: Any, processor: FavorProcessor) -> dict[str, Any]:
    """What the towers' tokens depend on, besides the media."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    name, config = str(base.name_or_path), base.config
    kinds = ("qformer_config", *(stream.config for stream in STREAMS.values()))
    towers = {kind: getattr(config, kind, None) for kind in kinds}
    text = json.dumps({kind: None if one is None else one.to_diff_dict() for kind, one in towers.items()}, default=str)
    return {
        "model": str(Path(name).resolve()) if Path(name).is_dir() else name,
        "towers": hashlib.sha256(text.encode()).hexdigest()[:16],
        "dtype": str(base.audio_encoder.dtype).removeprefix("torch."),
        "frame_rate": processor.frame_rate,
        "instructed": processor.qformer_tokenizer is not None,
        "format": FORMAT,
    }


def clip_tracks(messages: Messages, *, instructed: bool) -> dict[str, Track]:
    """The tracks that a conversation is about: ``"visual"``, ``"sound"``, or both."""
    sources, tracks = media_sources(messages), {}
    for kind in ("video", "image"):
        if kind in sources:
            asked = first_question(messages) if instructed else None
            tracks["visual"] = _track(sources[kind], kind, str(sources[kind]), asked)
    for kind in ("video", "audio"):  # a sound file takes the place of the video's own sound
        if kind in sources:
            tracks["sound"] = _track(sources[kind], "sound of " + kind, str(sources[kind]))
    return tracks


def _track(file: Any, *key: str | None) -> Track:
    try:
        found = Path(file).stat()
    except (FileNotFoundError, NotADirectoryError):
        return Track(json.dumps(key), None)
    return Track(json.dumps(key), [found.st_size, found.st_mtime_ns])


class FeatureCache:
    """Reads what ``python -m examples.favor cache`` wrote.

    Args:
        directory: of the cache.
        settings: of :func:`cache_settings`, of the model that shall be trained.

    Raises:
        CheckpointError: no cache, or one of other settings; the message names which.
    """

    def __init__(self, directory: str | Path, settings: Mapping[str, Any]) -> None:
        self.directory = Path(directory)
        index = read_index(self.directory)
        if index is None:
            raise CheckpointError(f"features: {self.directory} holds no {INDEX}; make it with the command cache")
        check_settings(self.directory, index["settings"], settings)
        self.instructed = bool(settings["instructed"])
        self.entries: dict[str, dict[str, Any]] = index["entries"]
        self._open: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a worker opens the files itself

    def clip(self, messages: Messages) -> Clip | None:
        """The tokens of a conversation's media; ``None`` if it has none.

        Raises:
            CheckpointError: media that are not in the cache, or that have changed since.
        """
        tracks = clip_tracks(messages, instructed=self.instructed)
        features: dict[str, Tensor] = {}
        for track in tracks.values():
            if not track.is_kept(self.entries):
                lack = "holds another state of" if track.key in self.entries else "lacks"
                raise CheckpointError(
                    f"features: {self.directory} {lack} {track.key}; run the command cache on this data"
                )
            shard = self.entries[track.key]["shard"]
            if shard is not None:
                features |= self._read(shard, track.key)
        return Clip(None, None, None, features) if tracks else None

    def _read(self, shard: int, key: str) -> dict[str, Tensor]:
        path = shard_path(self.directory, shard)
        try:
            if shard not in self._open:
                self._open[shard] = safe_open(path, "pt")
            file = self._open[shard]
            names = json.loads(file.metadata()["entries"])[digest(key)]
            return {name: file.get_tensor(f"{digest(key)}.{name}") for name in names}
        except (SafetensorError, KeyError, TypeError, FileNotFoundError) as error:
            raise CheckpointError(
                f"features: {path} is damaged ({error!r}); delete the cache, make it again"
            ) from error


class FeatureWriter:
    """Writes tokens to shards, which are whole or not there: a kill loses no more than one of them.

    Args:
        directory: of the cache; is made if it does not exist.
        settings: of :func:`cache_settings`.
        shard_size: bytes after which a shard is closed.

    Raises:
        CheckpointError: a cache of other settings is there already; the message names which.
    """

    def __init__(self, directory: str | Path, settings: Mapping[str, Any], *, shard_size: int) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        index = read_index(self.directory) or {"settings": dict(settings), "entries": {}}
        check_settings(self.directory, index["settings"], settings)
        self.index = index
        self.shard_size = shard_size
        self._pending: dict[str, dict[str, Tensor]] = {}
        self._stamps: dict[str, list[int] | None] = {}

    @property
    def entries(self) -> Mapping[str, Mapping[str, Any]]:
        """What is kept already: by key, the shard (``None`` of media without such a track) and the file's stamp."""
        entries: dict[str, dict[str, Any]] = self.index["entries"]
        return entries

    def add(self, track: Track, tensors: Mapping[str, Tensor]) -> None:
        """Keeps tokens; of media without such a track there are none, which is kept too."""
        self._pending[track.key] = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        self._stamps[track.key] = track.stamp
        if sum(tensor.nbytes for one in self._pending.values() for tensor in one.values()) >= self.shard_size:
            self.flush()

    def flush(self) -> None:
        """Closes the shard."""
        if not self._pending:
            return
        tensors = {
            f"{digest(key)}.{name}": tensor for key, one in self._pending.items() for name, tensor in one.items()
        }
        number = 1 + max((one["shard"] for one in self.entries.values() if one["shard"] is not None), default=-1)
        if tensors:
            names = json.dumps({digest(key): list(one) for key, one in self._pending.items()})
            path = shard_path(self.directory, number)
            write_whole(path, lambda part: save_file(tensors, part, metadata={"entries": names}))
        new = {key: {"shard": number if one else None, "file": self._stamps[key]} for key, one in self._pending.items()}
        index = {**self.index, "entries": {**self.entries, **new}}
        write_whole(self.directory / INDEX, json.dumps(index, indent=1) + "\n")
        self.index, self._pending = index, {}  # last: what could not be written is written by the next call


def read_index(directory: Path) -> dict[str, Any] | None:
    """The index of a cache, if there is one."""
    try:
        index = json.loads((directory / INDEX).read_text())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"features: {directory / INDEX} is not JSON ({error})") from error
    if not _is_index(index):
        raise CheckpointError(f"features: {directory / INDEX} is no index of features")
    return index


def _is_index(index: Any) -> bool:
    if not isinstance(index, dict) or not all(isinstance(index.get(name), dict) for name in ("settings", "entries")):
        return False
    entries = index["entries"].values()
    return all(
        isinstance(one, dict) and {"shard", "file"} <= set(one) and type(one["shard"]) in (int, type(None))
        for one in entries
    )


def check_settings(directory: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses a cache that was made otherwise."""
    for name in wanted:
        if found.get(name) != wanted[name]:
            raise CheckpointError(
                f"features: {directory} must be of {name} {wanted[name]!r}, found {name} {found.get(name)!r}"
            )


def shard_path(directory: Path, number: int) -> Path:
    """File of a shard."""
    return directory / f"features-{number:05d}.safetensors"


def digest(key: str) -> str:
    """A short name for a key."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]
