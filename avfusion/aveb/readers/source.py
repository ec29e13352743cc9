"""A file or folder as numbered raw records, before anyone knows what they mean."""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from avfusion.aveb.readers.fields import shown
from avfusion.errors import InvalidTypeError, InvalidValueError

Form = Literal["folder", "array", "object", "lines", "table"]

_SPACE = re.compile(r"[ \t\r\n]*")
_SAMPLE = 50  # records that tell a layout, so that a bad first one does not hide it


@dataclass(frozen=True)
class Broken:
    """Stands where a record should and says why none could be read."""

    reason: str


@dataclass(frozen=True)
class Unit:
    """A raw record and where it stands."""

    index: int
    value: Any
    file: Path | None = None


class Source:
    """What is at a path: a folder, JSON (an array, an object, or an object a line) or comma-separated values.

    Args:
        path: a file or folder.

    Raises:
        InvalidValueError: nothing is there, or it is not text.
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | Path):
            raise InvalidTypeError(f"path: must be a file or folder, found {path!r:.80}")
        self.path = Path(path)
        try:
            self.is_folder = self.path.is_dir()
            if not self.is_folder:
                self._text = self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidValueError(f"{path}: must be UTF-8 ({error.reason} at byte {error.start})") from None
        except (OSError, ValueError) as error:
            raise InvalidValueError(f"path: cannot read {path} ({error})") from None

    @cached_property
    def form(self) -> Form:
        """What kind of file it is, told from its first character."""
        if self.is_folder:
            return "folder"
        start = self._text.lstrip()[:1]
        if not start:
            raise InvalidValueError(f"{self.path}: must hold records, found nothing")
        if start == "[":
            return "array"
        if start != "{":
            return "table"
        try:
            return "object" if self.value is not None else "lines"
        except InvalidValueError:
            # What is inside an object that breaks off is indented, or stands in its first line.
            lines = islice(self._text.split("\n"), _SAMPLE)
            return "lines" if any(line[:1] == "{" and isinstance(_parsed(line), dict) for line in lines) else "object"

    @cached_property
    def value(self) -> Any:
        """The whole of an object."""
        try:
            return json.loads(self._text)
        except json.JSONDecodeError as error:
            raise InvalidValueError(f"{self.path}: not JSON (line {error.lineno}: {error.msg})") from None
        except (ValueError, RecursionError) as error:
            raise InvalidValueError(f"{self.path}: not JSON ({error})") from None

    @cached_property
    def sample(self) -> list[Any]:
        """The first records of an array, of lines or of a table, as far as they can be read; an object by itself."""
        units = islice(self.units(), _SAMPLE)
        return [unit.value for unit in units if not isinstance(unit.value, Broken)]

    def units(self) -> Iterator[Unit]:
        """Every raw record. A file that breaks off ends with one that says so."""
        if self.form == "array":
            yield from self._array()
        elif self.form == "lines":
            lines = (line for line in self._text.split("\n") if line.strip())
            yield from (Unit(index, _parsed(line)) for index, line in enumerate(lines))
        elif self.form == "table":
            yield from self._rows()
        elif self.form == "object":
            yield Unit(0, self.value)

    def _array(self) -> Iterator[Unit]:
        decoder = json.JSONDecoder()
        text = self._text
        place, index = _skip(text, text.index("[") + 1), 0
        if text[place : place + 1] == "]":
            yield from self._after(place + 1, index)
            return
        while True:
            try:
                value, place = decoder.raw_decode(text, place)
            except (ValueError, RecursionError) as error:
                yield Unit(index, Broken(_not_json(error)))
                return
            yield Unit(index, value)
            place, index = _skip(text, place), index + 1
            mark = text[place : place + 1]
            if mark == "]":
                yield from self._after(place + 1, index)
                return
            if mark != ",":
                yield Unit(
                    index, Broken(f'not JSON (must go on with "," or "]", found {shown(text[place : place + 20])})')
                )
                return
            place = _skip(text, place + 1)

    def _after(self, place: int, index: int) -> Iterator[Unit]:
        rest = self._text[_skip(self._text, place) :]
        if rest:
            yield Unit(index, Broken(f"not JSON (must end with the array, found {shown(rest[:20])})"))

    @cached_property
    def rows(self) -> list[list[str] | Broken]:
        """The rows of a table, its first line included; rows without anything in them are left out."""
        rows: list[list[str] | Broken] = []
        reader = csv.reader(io.StringIO(self._text, newline=""))
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return rows
            except csv.Error as error:
                rows.append(Broken(f"not comma-separated values (line {reader.line_num}: {error})"))
                return rows
            if row:
                rows.append(row)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The first line of a table, which in most names the columns."""
        first = self.rows[0] if self.form == "table" and self.rows else Broken("")
        return () if isinstance(first, Broken) else tuple(name.strip() for name in first)

    def _rows(self) -> Iterator[Unit]:
        for index, row in enumerate(self.rows[1:]):
            if isinstance(row, Broken):
                yield Unit(index, row)
            elif len(row) != len(self.columns):
                yield Unit(index, Broken(f"a row must have {len(self.columns)} cells, found {len(row)}: {shown(row)}"))
            else:
                yield Unit(index, dict(zip(self.columns, row, strict=True)))

    def has_keys(self, *names: str) -> bool:
        """Whether a record of the sample has all of the names."""
        return any(isinstance(value, dict) and set(names) <= set(value) for value in self.sample)


def _skip(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return Broken(_not_json(error))


def _not_json(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON (line {error.lineno}: {error.msg})"
    return f"not JSON ({error})"
