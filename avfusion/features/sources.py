"""Which files a clip is made of, and the key under which its features are kept."""

import json
import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avfusion.errors import InvalidTypeError
from avfusion.models import Clip, conversation, media_sources

Source = str | Path | Mapping[str, Any] | Sequence[Mapping[str, Any]]


def messages_of(source: Source) -> list[Mapping[str, Any]]:
    """The conversation of a source: a conversation, a row with ``"messages"``, or a media file.

    Raises:
        InvalidTypeError: anything else.
    """
    if isinstance(source, str | Path):
        kind = (mimetypes.guess_type(str(source))[0] or "video").partition("/")[0]
        return list(conversation("", **{kind if kind in ("audio", "image") else "video": source}))
    messages = source["messages"] if isinstance(source, Mapping) else source
    if not isinstance(messages, Sequence) or not all(isinstance(one, Mapping) for one in messages):
        raise InvalidTypeError(f"clips: each must be a file or a conversation, found {type(source).__name__}")
    return list(messages)


def clip_key(source: Source, instruction: str | None = None) -> str | None:
    """The key under which :func:`~avfusion.features.save_features` keeps the features of a clip.

    Args:
        source: a media file, or a conversation about media files, as :class:`~avfusion.models.AudioVisualProcessor`
            takes it. A file is a video unless the end of its name says that it is audio or an image.
        instruction: what the processor tells the encoders, if it tells them anything.

    Returns:
        The kinds and names of the files as JSON; ``None`` for a conversation without media.

    Raises:
        InvalidTypeError: media that are not files.

    Example:
        >>> from avfusion.features import clip_key
        >>> from avfusion.models import conversation
        >>> clip_key("a.mp4")
        '{"video": "a.mp4"}'
        >>> clip_key(conversation("What is said?", image="a.png", audio="a.wav"))
        '{"audio": "a.wav", "image": "a.png"}'
    """
    files = clip_files(source)
    if not files:
        return None
    told = {} if instruction is None else {"instruction": instruction}
    return json.dumps({**{kind: str(file) for kind, file in files.items()}, **told}, sort_keys=True)


def clip_files(source: Source) -> dict[str, str | Path]:
    """The media files of a clip by kind, in a fixed order.

    Raises:
        InvalidTypeError: media that are not files.
    """
    found = media_sources(messages_of(source))
    for kind, value in found.items():
        if not isinstance(value, str | Path):
            raise InvalidTypeError(f"{kind}: must be a file for its features to be kept, found {type(value).__name__}")
    return dict(sorted(found.items()))


def with_clip(messages: Sequence[Mapping[str, Any]], clip: Clip) -> list[dict[str, Any]]:
    """The conversation with a clip in the place of its first media file; the other one is left out."""
    replaced, left = [], [{"type": "video", "video": clip}]
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            parts = []
            for part in content:
                parts += [part] if part["type"] == "text" else [left.pop()] if left else []
            content = parts
        replaced.append({**message, "content": content})
    return replaced
