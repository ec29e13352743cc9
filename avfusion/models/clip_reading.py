"""Reading the media of conversations, at the rates and size that a model's encoders want."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avfusion.errors import InvalidValueError
from avfusion.models.clips import Clip, ClipReader
from avfusion.models.conversations import Message, identity, media_sources

if TYPE_CHECKING:  # needs PyAV
    from avfusion.media import Media


class ClipReading:
    """What of a processor reads files; :attr:`media_options` says how."""

    frame_rate: float
    sample_rate: int
    size: list[int] | int | None

    def read(self, path: str | Path, *, longest: float | None = None, **options: Any) -> "Media":
        """A file, or with ``start`` and ``end`` some seconds of it, at the rates and size that the encoders want.

        Args:
            path: a local file.
            longest: seconds that it may last; nothing much beyond them is read, and a longer file is refused.
            **options: of :func:`avfusion.media.load_media`.

        Raises:
            MediaError: a file that cannot be read.
            InvalidValueError: a file that lasts too long.
        """
        from avfusion.media import load_media  # needs PyAV

        if longest is not None:
            options = {"end": options.get("start", 0.0) + longest + 1, **options}
        media = load_media(path, **{**self.media_options, **options})
        if longest is not None and media.duration > longest:
            raise InvalidValueError(f"{path}: must last at most {longest:g} s, found more")
        return media

    @property
    def media_options(self) -> dict[str, Any]:
        """Rates and size at which media are read, as options of :func:`~avfusion.media.load_media`."""
        size = tuple(self.size) if isinstance(self.size, list) else self.size
        return {"frame_rate": self.frame_rate, "sample_rate": self.sample_rate, "size": size}

    def load_clip(
        self, messages: Sequence[Message], *, use_audio_in_video: bool = True, **media_options: Any
    ) -> Clip | None:
        """Reads the media of a conversation, for them to stand in it instead of the files; ``None`` if it has none.

        Args:
            messages: as :meth:`apply_chat_template` takes them.
            use_audio_in_video: as there.
            **media_options: of :meth:`read`.
        """
        clips, _ = self.read_clips([messages], use_audio_in_video=use_audio_in_video, **media_options)
        return clips[0] if clips else None

    def read_clips(
        self, conversations: Sequence[Sequence[Message]], *, use_audio_in_video: bool = True, **media_options: Any
    ) -> tuple[list[Clip], list[int]]:
        """The distinct clips of conversations, and which of them each is about, -1 for none."""
        reader = ClipReader(
            lambda path, **tracks: self.read(path, **tracks, **media_options), use_audio_in_video=use_audio_in_video
        )
        clips: dict[Any, Clip] = {}
        keys: list[Any] = []
        for messages in conversations:
            sources, question = media_sources(messages), self.instruction(messages)
            keys.append((identity(sources), question) if sources else None)
            if sources and keys[-1] not in clips:
                clips[keys[-1]] = reader.clip(sources, question)
        places = {key: place for place, key in enumerate(clips)}
        return list(clips.values()), [-1 if key is None else places[key] for key in keys]

    def instruction(self, messages: Sequence[Message]) -> str | None:
        """What the encoders are told of a conversation, nothing here; where it differs, equal media are two clips."""
        return None


def fixed_size(image_processor: Any) -> tuple[int, int] | None:
    """``(height, width)`` to which an image processor resizes the whole of every frame, if it does."""
    size: Mapping[str, int] = dict(getattr(image_processor, "size", None) or {})
    whole = not getattr(image_processor, "do_center_crop", False) and {"height", "width"} <= size.keys()
    return (size["height"], size["width"]) if whole else None
