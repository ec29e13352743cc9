"""Shards: safetensors files that hold the features of some clips, and say in their header which."""

import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from avfusion.errors import CheckpointError, InvalidTypeError, InvalidValueError
from avfusion.features.stamps import FileStamp
from avfusion.files import write_whole
from avfusion.types import Frames, TokenStream

FORMAT = 1
_NAME = re.compile(r"features-([0-9]{5,9})-[0-9]{4,9}-[0-9a-f]{8}\.safetensors")
_KINDS: dict[str, type[Frames | TokenStream]] = {"frames": Frames, "tokens": TokenStream}

Features = Mapping[str, Frames | TokenStream]


class Entry(NamedTuple):
    """What an index says of a clip: the state of its files, and the kind of each stream."""

    files: list[FileStamp]
    streams: dict[str, str]


Shard = dict[str, Entry]


def new_name(directory: Path, rank: int) -> str:
    """A name that no other process takes, with a higher number than all that are there."""
    number = 1 + max((shard_number(name) for name in list_shards(directory)), default=-1)
    return f"features-{number:05d}-{rank:04d}-{uuid.uuid4().hex[:8]}.safetensors"


def list_shards(directory: Path) -> list[str]:
    """Names of the shards of a directory, oldest first."""
    names = [path.name for path in directory.iterdir() if _NAME.fullmatch(path.name)] if directory.is_dir() else []
    return sorted(names, key=lambda name: (shard_number(name), name))


def is_shard(name: str) -> bool:
    """Whether this is a shard's name, and so no path to another place."""
    return _NAME.fullmatch(name) is not None


def shard_number(name: str) -> int:
    """Which shard this is; what a later one holds is newer."""
    match = _NAME.fullmatch(name)
    return -1 if match is None else int(match[1])


def write_shard(
    path: Path, settings: Mapping[str, Any], clips: Mapping[str, tuple[Features, Sequence[FileStamp]]]
) -> Shard:
    """Writes the features of clips, by key, in one step."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    entries: Shard = {}
    for key, (features, files) in clips.items():
        for stream, value in features.items():
            tensors |= dict(zip(_tensor_names(key, stream), value, strict=True))
        kinds = {stream: "frames" if isinstance(value, Frames) else "tokens" for stream, value in features.items()}
        entries[key] = Entry(list(files), kinds)
    header = {"format": FORMAT, "settings": dict(settings), "entries": entries}
    metadata = {"avfusion": json.dumps(header)}
    write_whole(path, lambda part: save_file(tensors, part, metadata=metadata))
    return entries


def open_shard(path: Path) -> Any:
    """A shard, mapped into memory.

    Raises:
        CheckpointError: no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, error) from error


def read_header(path: Path) -> tuple[dict[str, Any], Shard]:
    """Settings and entries of a shard.

    Raises:
        CheckpointError: no shard.
    """
    with open_shard(path) as file:
        text = (file.metadata() or {}).get("avfusion")
    try:
        header = json.loads(text or "")
        if header["format"] != FORMAT or not isinstance(header["settings"], dict):
            raise ValueError(f"format: must be {FORMAT}")
        return header["settings"], as_shard(header["entries"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged(path, error) from error


def as_shard(entries: Any) -> Shard:
    """Entries from JSON.

    Raises:
        ValueError: anything else.
    """
    return {key: _as_entry(value) for key, value in entries.items()}


def _as_entry(value: Any) -> Entry:
    files, streams = value
    stamps = [FileStamp(*one) for one in files]
    types = {(type(one.size), type(one.time), type(one.digest)) for one in stamps}
    if types - {(int, int, str)} or not isinstance(streams, dict) or set(map(str, streams.values())) - set(_KINDS):
        raise ValueError("entries: must be stamps of files, and kinds of streams")
    return Entry(stamps, streams)


def read_clip(file: Any, path: Path, key: str, entry: Entry) -> dict[str, Frames | TokenStream]:
    """The features of a clip, of an open shard.

    Raises:
        CheckpointError: the shard lacks them, or holds others than its entry says.
    """
    from safetensors import SafetensorError

    try:
        return {
            stream: _KINDS[kind](*(file.get_tensor(name) for name in _tensor_names(key, stream)))
            for stream, kind in entry.streams.items()
        }
    except (SafetensorError, OSError, InvalidValueError, InvalidTypeError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> CheckpointError:
    """The error for a file that cannot be read."""
    return CheckpointError(f"features: {path} is damaged ({error}); delete this file, and encode again what it held")


def _tensor_names(key: str, stream: str) -> list[str]:
    mark = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return [f"{mark}.{stream}.{part}" for part in ("tokens", "mask", "times")]
