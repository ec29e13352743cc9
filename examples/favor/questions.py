"""Files of questions, one JSON record a line, and the file of their answers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from avfusion import InvalidValueError
from avfusion.models import conversation
from examples.favor.tags import Messages, place_media

_KINDS = ("video", "audio", "image")


class Question(NamedTuple):
    """A record, the conversation that it is, and where it stands, for messages about it."""

    record: dict[str, Any]
    messages: Messages
    place: str


def read_questions(file: Path, *, media_root: str | Path | None = None) -> list[Question]:
    """Reads conversations that end with a question.

    A record is ``{"prompt": ..., "video": ..., "audio": ..., "image": ...}``, of which only the prompt is needed, or
    ``{"messages": [...]}``, as :meth:`FavorProcessor.apply_chat_template` takes them. Tags such as ``<video>`` are read
    as :func:`~examples.favor.tags.place_media` tells.

    Args:
        file: JSON lines.
        media_root: what relative names of media start from; the file's own folder without it.

    Raises:
        InvalidValueError: a bad record, or one whose media are not there; the message names file and line.
    """
    root = file.parent if media_root is None else Path(media_root)
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"{file}: must be UTF-8 ({error.reason} at byte {error.start})") from None
    questions = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            record = json.loads(line)
            questions.append(Question(record, _messages(record, root), place))
        except json.JSONDecodeError as error:
            raise InvalidValueError(f"{place}: not JSON ({error.msg})") from None
        except InvalidValueError as error:
            raise InvalidValueError(f"{place}: {error}") from None
        except (ValueError, RecursionError) as error:  # numbers of too many digits; nested too deep
            raise InvalidValueError(f"{place}: not JSON that can be read ({error})") from None
    if not questions:
        raise InvalidValueError(f"data: must hold at least one record, found none in {file}")
    return questions


def _messages(record: Any, root: Path) -> Messages:
    if not isinstance(record, Mapping):
        raise InvalidValueError(f"a record must be an object, found {type(record).__name__}")
    if "messages" not in record:
        if not isinstance(record.get("prompt"), str):
            raise InvalidValueError(f'a record must have "prompt", a text, or "messages", found {sorted(record)}')
        media = {kind: _file(kind, record[kind], root) for kind in _KINDS if record.get(kind) is not None}
        return place_media(conversation(record["prompt"], **media))
    messages = record["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise InvalidValueError(f"messages: must be a list of objects, found {messages!r:.80}")
    roles = [message.get("role") for message in messages if message.get("role") != "system"]
    if len(roles) % 2 == 0 or roles != (["user", "assistant"] * len(roles))[: len(roles)]:
        raise InvalidValueError(
            f"messages: must be questions and answers in turn and end with a question, found {roles}"
        )
    return place_media(
        [{"role": message["role"], "content": _content(message.get("content"), root)} for message in messages]
    )


def _content(content: Any, root: Path) -> Any:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        raise InvalidValueError(f"content: must be a text or a list of parts, found {content!r:.80}")
    parts = []
    for part in content:
        kind = part.get("type")
        if kind == "text" and isinstance(part.get("text"), str):
            parts.append({"type": "text", "text": part["text"]})
        elif kind in _KINDS:
            name = next((part[key] for key in (kind, "path", "url") if part.get(key) is not None), None)
            parts.append({"type": kind, "path": _file(kind, name, root)})
        else:
            raise InvalidValueError(
                f'content: a part must be "text" with its text, "video", "audio" or "image", found {part!r:.80}'
            )
    return parts


def _file(kind: str, name: Any, root: Path) -> str:
    if not isinstance(name, str):
        raise InvalidValueError(f"{kind}: must name a file, found {name!r:.80}")
    path = root / name
    if not path.is_file():
        raise InvalidValueError(f"{kind}: no such file, {path}")
    return str(path)


def resume(out: Path, questions: list[Question]) -> int:
    """How many questions ``out`` answers already; a last line that was cut is taken off.

    Raises:
        InvalidValueError: a file that answers other questions; the message names file and line.
    """
    if not out.exists():
        return 0
    whole = out.read_bytes()
    kept = whole[: whole.rfind(b"\n") + 1]
    lines = kept.split(b"\n")[:-1]
    for number, line in enumerate(lines):
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        wanted = questions[number].record if number < len(questions) else None
        answered = isinstance(found, Mapping) and ("answer" in found or "error" in found)
        if not answered or wanted is None or _asked(found) != _asked(wanted):
            raise InvalidValueError(f"{out}:{number + 1}: must answer the record in the same place of the data")
    if len(kept) < len(whole):
        with out.open("r+b") as file:
            file.truncate(len(kept))
    return len(lines)


def _asked(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("answer", "error")}
