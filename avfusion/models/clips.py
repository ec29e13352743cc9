"""The clip of a conversation, read from files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.types import Video, Waveform

if TYPE_CHECKING:  # needs PyAV
    from avfusion.media import Media


class Clip(NamedTuple):
    """The media of a conversation.

    Attributes:
        video: the video, a batch of one, or ``None``.
        waveform: the audio, a batch of one, or ``None``.
        instruction: the first question, for visual encoders with conditioning.
        features: the encoders' output, instead of the other fields.

    Example:
        >>> import torch
        >>> from avfusion import Waveform
        >>> from avfusion.models import Clip
        >>> Clip(waveform=Waveform.from_samples([torch.zeros(8000)], 16000)).video is None
        True
    """

    video: Video | None = None
    waveform: Waveform | None = None
    instruction: str | None = None
    features: Mapping[str, Any] | None = None


def kept_features(clips: Sequence[Clip]) -> list[Mapping[str, Any]]:
    """The features of all clips; none where the clips have media.

    Raises:
        InvalidValueError: features for some clips, and media for others.
    """
    features = [clip.features for clip in clips if clip.features is not None]
    if features and len(features) < len(clips):
        raise InvalidValueError(
            f"media: must have features for all clips or for none, found {len(features)} of {len(clips)} with"
        )
    return features


class ClipReader:
    """Reads media, each file once, whoever asks for it.

    Args:
        read: reads a file; takes ``video=``, ``audio=`` and ``require=`` of :func:`~avfusion.media.load_media`.
        use_audio_in_video: a video brings its audio, unless audio is given.
    """

    def __init__(self, read: "Callable[..., Media]", *, use_audio_in_video: bool = True) -> None:
        self._read = read
        self._use_audio = use_audio_in_video
        self._loaded: "dict[Any, Media]" = {}

    def clip(self, sources: Mapping[str, Any], instruction: str | None = None) -> Clip:
        """What sources by kind hold.

        Raises:
            InvalidTypeError: a source that is no file and no media.
            MediaError: a file that cannot be read.
        """
        kind = "image" if "image" in sources else "video"
        pictures = sources.get(kind)
        whole = next((value for value in sources.values() if isinstance(value, Clip)), None)
        if whole is not None:
            return whole
        video, own = self._tracks(pictures, kind, self._use_audio)
        sound = self._tracks(sources["audio"], "audio", True)[1] if "audio" in sources else own
        return Clip(video, sound, instruction)

    def _tracks(self, value: Any, kind: str, audio: bool) -> tuple[Video | None, Waveform | None]:
        if value is None:
            return None, None
        if isinstance(value, Video | Waveform):
            return (value, None) if isinstance(value, Video) else (None, value)
        if isinstance(value, tuple) and hasattr(value, "video") and hasattr(value, "waveform"):
            return (None if kind == "audio" else value.video), (value.waveform if audio else None)
        if not isinstance(value, str | Path):
            raise InvalidTypeError(f"{kind}: must be a file, Media, Video or Waveform, found {type(value).__name__}")
        key = (str(value), kind, audio)
        if key not in self._loaded:
            tracks = {"video": kind != "audio", "audio": kind != "image" and audio}
            self._loaded[key] = self._read(value, **tracks, require=["audio" if kind == "audio" else "video"])
        return self._loaded[key].video, self._loaded[key].waveform
