"""Conversations: which media they are about, what is asked, and what is answered."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avfusion.errors import InvalidValueError

Message = Mapping[str, Any]


def conversation(question: str, *, video: Any = None, audio: Any = None, image: Any = None) -> list[dict[str, Any]]:
    """A conversation with one question about media, for :class:`AudioVisualProcessor`.

    Args:
        question: the question.
        video: a file, or loaded media.
        audio: a file, or loaded media; replaces the audio of the video.
        image: a file, or loaded media, instead of a video.

    Example:
        >>> from avfusion.models import conversation
        >>> conversation("What?", video="clip.mp4")
        [{'role': 'user', 'content': [{'type': 'video', 'video': 'clip.mp4'}, {'type': 'text', 'text': 'What?'}]}]
    """
    media = {"video": video, "audio": audio, "image": image}
    parts = [{"type": kind, kind: value} for kind, value in media.items() if value is not None]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def media_sources(messages: Sequence[Message]) -> dict[str, Any]:
    """The media of a conversation, by kind.

    Raises:
        InvalidValueError: a part of an unknown kind, without a value, or two parts of one kind.

    Example:
        >>> from avfusion.models import conversation, media_sources
        >>> media_sources(conversation("What is said?", video="clip.mp4", audio="clip.wav"))
        {'video': 'clip.mp4', 'audio': 'clip.wav'}
    """
    sources: dict[str, Any] = {}
    for part in (
        part for message in messages if not isinstance(message["content"], str) for part in message["content"]
    ):
        kind = part["type"]
        if kind == "text":
            continue
        if kind not in ("video", "audio", "image"):
            raise InvalidValueError(f'conversation: a part must be "text", "video", "audio" or "image", found {kind!r}')
        value = next((part[name] for name in (kind, "path", "url") if part.get(name) is not None), None)
        if value is None:
            raise InvalidValueError(
                f"conversation: a part of type {kind!r} must name its file under {kind!r} or 'path'"
            )
        if kind in sources or {kind, *sources} >= {"video", "image"}:
            raise InvalidValueError(
                f"conversation: must have at most one video track and one audio track, found another {kind}"
            )
        sources[kind] = value
    return sources


def identity(sources: Mapping[str, Any]) -> Any:
    """What tells media apart: the names of files, and of all else the very object."""
    return tuple(
        (kind, str(value) if isinstance(value, str | Path) else id(value)) for kind, value in sorted(sources.items())
    )


def message_text(message: Message) -> str:
    """The text of a message."""
    content = message["content"]
    return content if isinstance(content, str) else " ".join(part["text"] for part in content if part["type"] == "text")


def first_question(messages: Sequence[Message]) -> str:
    """The text of the first user message.

    Example:
        >>> from avfusion.models import conversation, first_question
        >>> first_question(conversation("What is said?", video="clip.mp4"))
        'What is said?'
    """
    return next((message_text(message) for message in messages if message["role"] == "user"), "")


def given_answers(messages: Sequence[Message]) -> list[str]:
    """What the assistant has answered, in order."""
    return [message_text(message) for message in messages if message["role"] == "assistant"]
