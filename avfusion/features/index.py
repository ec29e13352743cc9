"""One index over all shards, made of what each shard says of itself, so that it cannot be lost."""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from avfusion.errors import CheckpointError
from avfusion.features.settings import check_settings
from avfusion.features.shards import FORMAT, Entry, Shard, as_shard, is_shard, list_shards, read_header
from avfusion.files import write_whole

INDEX = "index.json"


class Index(NamedTuple):
    """What a directory holds: its settings, and for each clip the newest shard with its features."""

    settings: dict[str, Any]
    shards: dict[str, Shard]

    def clips(self) -> dict[str, tuple[str, Entry]]:
        """Shard and entry of each clip, in the order of their keys."""
        found = {key: (name, entry) for name, shard in self.shards.items() for key, entry in shard.items()}
        return dict(sorted(found.items()))


def read_index(directory: Path) -> Index | None:
    """The index of all shards of a directory, whether or not its file lists them; ``None`` for no shards.

    Raises:
        CheckpointError: a damaged file, or shards of different settings.
    """
    names = list_shards(directory)
    stored = _read(directory / INDEX)
    if not names:
        return None
    known = {} if stored is None else stored.shards
    settings = None if stored is None else stored.settings
    shards = {}
    for name in names:
        if name in known:
            shards[name] = known[name]
            continue
        found, shards[name] = read_header(directory / name)
        settings = found if settings is None else settings
        check_settings(directory / name, found, settings)
    return Index(settings or {}, shards)


def merge_index(directory: Path) -> None:
    """Writes the index of all shards. Any number of processes may do so at once: the last one lists all."""
    while True:
        index = read_index(directory)
        if index is None or _lists(_read(directory / INDEX), list(index.shards)):
            return
        content = {"format": FORMAT, "settings": index.settings, "shards": index.shards}
        # The name is this process's own, since two may not write one file; then it takes the place of the index.
        own = directory / f".{INDEX}.{uuid.uuid4().hex[:8]}"
        write_whole(own, json.dumps(content) + "\n")
        os.replace(own, directory / INDEX)  # noqa: PTH105


def _lists(stored: Index | None, names: list[str]) -> bool:
    return stored is not None and list(stored.shards) == names


def _read(path: Path) -> Index | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"features: {path} is not JSON ({error}); delete this file alone") from error
    try:
        return _as_index(content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"features: {path} is no index of features ({error}); delete this file alone") from error


def _as_index(content: Mapping[str, Any]) -> Index:
    if content["format"] != FORMAT:
        raise ValueError(f"format: must be {FORMAT}, found {content['format']!r:.20}")
    outside = [name for name in content["shards"] if not is_shard(name)]
    if outside:
        raise ValueError(f"shards: must be names of files in this directory, found {outside[0]!r:.80}")
    if not isinstance(content["settings"], dict):
        raise TypeError("settings: must be an object")
    return Index(content["settings"], {name: as_shard(entries) for name, entries in content["shards"].items()})
