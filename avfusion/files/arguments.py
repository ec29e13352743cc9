"""Checks arguments from a file against the annotations of a constructor."""

import inspect
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

_WHOLE = 2**53  # floats are exact below


def misfits(made: type, arguments: Mapping[str, Any]) -> Iterator[str]:
    """Describes each argument that does not match its annotation, as ``"name: must be …, found …"``.

    Args:
        made: the class; arguments without an annotation match any value.
        arguments: values by name.
    """
    try:
        hints = get_type_hints(made.__init__)  # type: ignore[misc]
    except (NameError, TypeError):  # of somebody else's class, for names that are there for a type checker only
        return
    for name, value in arguments.items():
        if name in hints and not _fits(value, hints[name]):
            wanted = inspect.formatannotation(hints[name]).replace("typing.", "").replace("collections.abc.", "")
            yield f"{name}: must be {wanted}, found {_shown(value)}"


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.60}" if isinstance(value, str | int | float) else type(value).__name__


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if hint is Any or hint is None or hint is type(None):
        return hint is Any or value is None
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if hint is float:
        return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < _WHOLE)
    if hint in (int, bool, str):
        return type(value) is hint
    if isinstance(origin, type) and issubclass(origin, Mapping):
        key, item = inner if len(inner) == 2 else (Any, Any)
        return isinstance(value, Mapping) and all(_fits(k, key) and _fits(v, item) for k, v in value.items())
    if isinstance(origin, type) and issubclass(origin, Sequence):
        item = inner[0] if inner else Any
        return isinstance(value, list | tuple) and all(_fits(one, item) for one in value)
    if isinstance(hint, type) and issubclass(hint, nn.Module):
        return isinstance(value, nn.Module)
    return True
