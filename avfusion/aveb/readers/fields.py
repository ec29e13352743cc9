"""Values out of raw records, checked."""

import math
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from avfusion.errors import InvalidValueError

_SHORT = reprlib.Repr()  # of any depth: repr itself gives up on deeply nested lists
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlist = 12


def as_object(value: Any) -> Mapping[str, Any]:
    """The value, which must be a JSON object or a row of a table."""
    if not isinstance(value, Mapping):
        raise InvalidValueError(f"a record must be an object, found {shown(value)}")
    return value


def find(record: Mapping[str, Any], *names: str) -> Any:
    """What the record has under the first of the names that it has."""
    for name in names:
        if record.get(name) is not None:
            return record[name]
    named = sorted(str(name) for name, value in record.items() if value is not None)
    wanted = " or ".join(f'"{name}"' for name in names)
    raise InvalidValueError(f"a record must have {wanted}, found {shown(named)}")


def as_text(value: Any, name: str, *, blank: bool = False) -> str:
    """Text without space around it; numbers, which some files do not quote, become text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidValueError(f"{name}: must be text or a number, found {shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidValueError(f"{name}: must be finite, found {value!r}")
    text = str(value).strip()
    if not text and not blank:
        raise InvalidValueError(f"{name}: must not be blank, found {value!r}")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InvalidValueError(f"{name}: must be Unicode text, found half of a surrogate pair in {shown(text)}")
    return text


def texts(value: Any, name: str, *, blank: bool = False) -> tuple[str, ...]:
    """One text or a list of them."""
    values = as_list(value, name) if isinstance(value, list) else [value]
    return tuple(as_text(each, name, blank=blank) for each in values)


def as_list(value: Any, name: str) -> list[Any]:
    """The value, which must be a list that is not empty."""
    if not isinstance(value, list) or not value:
        raise InvalidValueError(f"{name}: must be a list that is not empty, found {shown(value)}")
    return value


def as_seconds(values: Iterable[Any], name: str) -> tuple[float, float]:
    """Start and end of a clip: two numbers, whole or not, in order."""
    found = list(values) if isinstance(values, list | tuple) else values
    if not isinstance(found, list) or len(found) != 2:
        raise InvalidValueError(f"{name}: must be two numbers of seconds, found {shown(values)}")
    for value in found:
        if type(value) not in (int, float) or not 0 <= value < 1e9:
            raise InvalidValueError(f"{name}: must be two numbers of seconds, found {shown(values)}")
    if not found[0] < found[1]:
        raise InvalidValueError(f"{name}: must start before it ends, found {shown(values)}")
    return float(found[0]), float(found[1])


def number_in(value: Any, name: str) -> float:
    """The number that a cell of a table holds."""
    try:
        number = float(as_text(value, name))
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or abs(number) >= 1e9:
        raise InvalidValueError(f"{name}: must be a number, found {shown(value)}")
    return number


def shown(value: Any) -> str:
    """The value as a message shows it: not longer than a line."""
    text = _SHORT.repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
