"""Words in a text, such as ``<video>``, that stand for the media of a conversation."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from avfusion import InvalidValueError

# What each tag may stand for. Video data of LLaVA's kind say <image> too, and a video has sound of its own.
TAGS = {
    "image": ("image", "video"),
    "video": ("video",),
    "audio": ("audio", "video"),
    "sound": ("audio", "video"),
    "speech": ("audio", "video"),
}
_PICTURES = ("image", "video")
_TAG = re.compile(rf"(\s*)<({'|'.join(TAGS)})>(?:</\2>)?(\s*)")
_CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)

Messages = list[dict[str, Any]]


def place_media(messages: Sequence[Mapping[str, Any]], media: Sequence[Mapping[str, Any]] = ()) -> Messages:
    """Takes the tags out of the users' texts, and puts the media before the text of the turn that has them.

    Without tags the media come with the first question. A tag in code, between backticks, is text, and so is any in an
    answer or a system message. Pictures and sound have a tag each at most, both in one turn: the model reads them
    together.

    Args:
        messages: ``{"role": ..., "content": ...}``; content is text or a list of parts.
        media: parts that stand in no message yet.

    Raises:
        InvalidValueError: a tag without such media, one that is there twice, or one in another turn than the media.
    """
    placed = [dict(message) for message in messages]
    found: list[tuple[int, str]] = []
    for number, message in enumerate(placed):
        if message["role"] == "user":
            message["content"], tags = _without_tags(message["content"])
            found += [(number, tag) for tag in tags]
    standing = [
        (number, part)
        for number, message in enumerate(placed)
        for part in message["content"]
        if isinstance(part, Mapping) and part["type"] != "text"
    ]
    _check(found, [str(part["type"]) for part in (*(part for _, part in standing), *media)])
    turns = sorted({number for number, _ in (*found, *standing)})
    if len(turns) > 1:
        raise InvalidValueError(
            f"messages: media and the tags that stand for them must be in one turn, found them in {len(turns)}"
        )
    if media:
        first = next((number for number, message in enumerate(placed) if message["role"] == "user"), None)
        place = turns[0] if turns else first
        if place is None:
            raise InvalidValueError("messages: must have a question for the media to stand in, found none")
        content = placed[place]["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        placed[place]["content"] = [*(dict(part) for part in media), *parts]
    return placed


def _check(found: Sequence[tuple[int, str]], kinds: Sequence[str]) -> None:
    pictures = [tag for _, tag in found if tag in _PICTURES]
    for tags in (pictures, [tag for _, tag in found if tag not in _PICTURES]):
        if len(tags) > 1:
            raise InvalidValueError(
                f"messages: must have one tag for the pictures and one for the sound, found <{'>, <'.join(tags)}>"
            )
    for _, tag in found:
        if not set(TAGS[tag]) & set(kinds):
            raise InvalidValueError(
                f"messages: <{tag}> must stand for {' or '.join(TAGS[tag])}, found "
                f"{', '.join(kinds) or 'no media'}; as text, write it `<{tag}>`"
            )


def _without_tags(content: Any) -> tuple[Any, list[str]]:
    """A text, or the texts among parts, without tags, and the tags."""
    if isinstance(content, str):
        tags: list[str] = []
        pieces = _CODE.split(content)  # every second one is code
        for place in range(0, len(pieces), 2):
            ends = not any(pieces[:place]), not any(pieces[place + 1 :])
            pieces[place] = _cut(pieces[place], ends, tags)
        return "".join(pieces), tags
    parts, tags = [], []
    for part in content:
        if part["type"] != "text":
            parts.append(part)
            continue
        text, found = _without_tags(part["text"])
        tags += found
        parts.append({**part, "text": text})
    return parts, tags


def _cut(text: str, ends: tuple[bool, bool], tags: list[str]) -> str:
    """``text`` without its tags. What remains keeps the widest space that was around each, and none at its ends."""
    kept, last = "", 0
    for match in _TAG.finditer(text):
        tags.append(match[2])
        before = text[last : match.start()]
        space = "\n" if "\n" in match[1] + match[3] else " " if match[1] or match[3] else ""
        kept += before
        begins, finishes = ends[0] and not kept.strip(), ends[1] and match.end() == len(text)
        kept = kept if begins or finishes else kept.rstrip() + space
        last = match.end()
    return kept + text[last:]
