"""Files of instruction data to conversations."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from avfusion import InvalidValueError
from examples.favor.tags import Messages, place_media

_KINDS = ("video", "audio", "image")
_MEDIA_NAMES = ("image_name", *_KINDS, "videos", "audios", "images")
_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
_SOUNDS = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac"}
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


class Example(NamedTuple):
    """A conversation, and where it stands, for messages about it."""

    messages: Messages
    place: str


def read_examples(
    files: Sequence[str | Path], *, media_root: str | Path | None = None, check_files: bool = True
) -> list[Example]:
    """Reads conversations that end with an answer.

    A file holds one JSON record a line, or a JSON array of them. A record is either

    * ``{"messages": [...]}``, as :meth:`FavorProcessor.apply_chat_template` takes them, or
    * the published format: either ``"conversation"`` or ``"conversations"`` (``{"from": "human", "value": ...}`` and
      ``"gpt"`` in turn, or pairs of question and answer) or ``"question"`` and ``"answer"``. Of several answers each
      distinct one makes a conversation of its own.

    Media stand in the messages, or beside them under ``"image_name"``, ``"image"``, ``"video"`` or ``"audio"``, or the
    last three with an s: a file, or pictures and sound as a list of two. In a question, ``<image>``, ``<video>``,
    ``<audio>``, ``<sound>`` and ``<speech>`` are the place of the media, see
    :func:`~examples.favor.tags.place_media`; between backticks they are text.

    Args:
        files: the files.
        media_root: what relative names of media start from; each file's own folder without it.
        check_files: refuse records whose media are not there.

    Raises:
        InvalidValueError: a bad record; the message names file and line, or file and index.
    """
    examples = []
    for file in map(Path, files):
        root = file.parent if media_root is None else Path(media_root)
        for place, record in _records(file):
            try:
                found = [_checked(*conversation, root, check_files) for conversation in _conversations(record)]
            except InvalidValueError as error:
                raise InvalidValueError(f"{place}: {error}") from None
            examples += [Example(messages, place) for messages in found]
    if not examples:
        raise InvalidValueError(f"data: must hold at least one record, found none in {', '.join(map(str, files))}")
    return examples


def _records(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"{file}: must be UTF-8 ({error.reason} at byte {error.start})") from None
    if text.lstrip().startswith("["):
        try:
            records = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidValueError(f"{file}:{error.lineno}: not JSON ({error.msg})") from None
        except (ValueError, RecursionError) as error:  # numbers of too many digits; nested too deep
            raise InvalidValueError(f"{file}: not JSON that can be read ({error})") from None
        yield from ((f"{file}[{index}]", record) for index, record in enumerate(records))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield f"{file}:{number}", json.loads(line)
        except json.JSONDecodeError as error:
            raise InvalidValueError(f"{file}:{number}: not JSON ({error.msg})") from None
        except (ValueError, RecursionError) as error:
            raise InvalidValueError(f"{file}:{number}: not JSON that can be read ({error})") from None


def _conversations(record: Any) -> list[tuple[Messages, list[dict[str, Any]]]]:
    """The messages of a record in any of the formats, and the media beside them."""
    if not isinstance(record, Mapping):
        raise InvalidValueError(f"a record must be an object, found {type(record).__name__}")
    dialogues = [_list(record["messages"], "messages")] if "messages" in record else _dialogues(record)
    media = _media_parts(record)
    return [(messages, media) for messages in dialogues]


def _dialogues(record: Mapping[str, Any]) -> list[Messages]:
    if "question" in record and "answer" in record:
        answers = record["answer"] if isinstance(record["answer"], list) else [record["answer"]]
        return [
            [{"role": "user", "content": record["question"]}, {"role": "assistant", "content": answer}]
            for answer in dict.fromkeys(map(_string, answers))
        ]
    name = next((name for name in ("conversation", "conversations") if name in record), None)
    if name is None:
        raise InvalidValueError(
            f'a record must have "messages", "conversation", or "question" and "answer", found {sorted(record)}'
        )
    turns: Messages = []
    for turn in _list(record[name], name):
        if isinstance(turn, Mapping) and {"from", "value"} <= set(turn):
            if turn["from"] not in _ROLES:
                raise InvalidValueError(f"from: must be one of {sorted(_ROLES)}, found {turn['from']!r}")
            turns.append({"role": _ROLES[turn["from"]], "content": turn["value"]})
        elif isinstance(turn, list) and len(turn) == 2:
            roles = ("user", "assistant")
            turns += [{"role": role, "content": text} for role, text in zip(roles, turn, strict=True)]
        else:
            raise InvalidValueError(
                f'{name}: a turn must have "from" and "value", or be a pair of question and answer, found {turn!r:.80}'
            )
    return [turns]


def _media_parts(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The files of a published record as parts of a message."""
    parts: dict[str, dict[str, Any]] = {}
    for name in _MEDIA_NAMES:
        value = record.get(name)
        files = value if isinstance(value, list) else [value] if value is not None else []
        for file in map(_string, files):
            ending = Path(file).suffix.lower()
            kind = "audio" if ending in _SOUNDS else "image" if ending in _IMAGES else "video"
            if name == "audio":
                kind = "audio"
            if kind in parts:
                raise InvalidValueError(f"{name}: must have one video track and one audio track, found {files}")
            parts[kind] = {"type": kind, "path": file}
    return list(parts.values())


def _checked(messages: Messages, beside: Messages, root: Path, check_files: bool) -> Messages:
    """The messages with the media in their places, whose names are in full."""
    checked: Messages = []
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in ("system", "user", "assistant"):
            raise InvalidValueError(
                f'messages: each must have the role "system", "user" or "assistant", found {message!r:.80}'
            )
        content = message.get("content")
        if not isinstance(content, str):
            content = [_part(part, root, check_files) for part in _list(content, "content")]
            if message["role"] != "user" and any(part["type"] != "text" for part in content):
                raise InvalidValueError(f"content: media must stand in a user's message, found {message['role']!r}")
        checked.append({"role": message["role"], "content": content})
    checked = place_media(checked, [_part(part, root, check_files) for part in beside])
    kinds = [
        part["type"]
        for message in checked
        if not isinstance(message["content"], str)
        for part in message["content"]
        if part["type"] != "text"
    ]
    if set(kinds) >= {"video", "image"} or len(set(kinds)) < len(kinds):
        raise InvalidValueError(f"messages: must have one video track and one audio track, found {kinds}")
    roles = [message["role"] for message in checked if message["role"] != "system"]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise InvalidValueError(f"messages: must be questions and answers in turn, found the roles {roles}")
    return checked


def _part(part: Any, root: Path, check_files: bool) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        return {"type": "text", "text": _string(part.get("text"))}
    if kind not in _KINDS:
        raise InvalidValueError(f'content: a part must be "text", "video", "audio" or "image", found {part!r:.80}')
    name = _string(next((part[key] for key in (kind, "path", "url") if part.get(key) is not None), None))
    path = (root / name).absolute()
    if check_files and not path.is_file():
        raise InvalidValueError(f"{kind}: no such file, {path}")
    return {"type": kind, "path": str(path)}


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidValueError(f"a file's name and a text must be strings, found {value!r:.80}")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InvalidValueError(f"{name}: must be a list that is not empty, found {value!r:.80}")
    return value
