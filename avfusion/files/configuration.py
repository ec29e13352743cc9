"""Configurations of components in JSON files, which may be untrusted."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avfusion.errors import CheckpointError

_DEPTH = 32  # levels


def read_config(path: Path, key: str, wanted: str) -> dict[str, Any]:
    """Reads a configuration from a JSON file, without the entry ``key``, which names its class.

    Raises:
        CheckpointError: not a JSON object, a class other than ``wanted``, or too many levels.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a component's configuration ({error})") from error
    found = config.pop(key, None) if isinstance(config, dict) else None
    if found != wanted:
        raise CheckpointError(f"{path}: must describe a {wanted}, found {found!r:.80}")
    level: list[Any] = [config]
    for _ in range(_DEPTH):
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
        level = [value for value in level if isinstance(value, dict | list)]
    if level:
        raise CheckpointError(f"{path}: must be at most {_DEPTH} levels deep, found more")
    return config


def check_layers(config: Mapping[str, Any], most: int, source: str) -> None:
    """Raises an error if there are many more layers than tensors, which would all be built before the comparison."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            check_layers(value, most, source)
        elif name == "num_layers" and isinstance(value, int) and value > most:
            raise CheckpointError(f"{source}: num_layers: must be at most {most} for these weights, found {value}")
