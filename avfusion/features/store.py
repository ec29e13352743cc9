"""Reading features that were kept."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from avfusion.errors import CheckpointError
from avfusion.features.index import read_index
from avfusion.features.settings import check_settings, feature_settings, media_settings
from avfusion.features.shards import open_shard, read_clip
from avfusion.features.sources import Source, clip_files, clip_key, messages_of, with_clip
from avfusion.features.stamps import Verified
from avfusion.models import Clip
from avfusion.types import Frames, TokenStream

_OPEN = 128  # shards at once: each takes a file descriptor


class FeatureStore:
    """Features of clips in a directory, by key.

    Shards are mapped into memory: only what is used is read, and processes share it. The store can be pickled, and
    given to the workers of a ``DataLoader``. Keys are those of :func:`clip_key`, or of :meth:`FeatureWriter.add`.

    Args:
        directory: directory that :func:`save_features` wrote.
        settings: what the features must depend on (:func:`feature_settings`); not compared without it.
        instruction: gives what the encoders are told of a conversation: ``processor.instruction``.

    Raises:
        CheckpointError: no features, features of other settings, or a damaged file.

    Example:
        >>> import tempfile, torch
        >>> from avfusion import TokenStream
        >>> from avfusion.features import FeatureStore, FeatureWriter
        >>> directory = tempfile.mkdtemp()
        >>> with FeatureWriter(directory, {}) as writer:
        ...     for key, time in {"a": 5, "b": 7}.items():
        ...         writer.add(key, {"audio": TokenStream.from_rate(torch.ones(1, time, 8), rate=50.0)})
        >>> store = FeatureStore(directory)
        >>> list(store), "c" in store, store["b"]["audio"].tokens.shape
        (['a', 'b'], False, torch.Size([1, 7, 8]))
    """

    def __init__(
        self, directory: str | Path, settings: Mapping[str, Any] | None = None, *, instruction: Any = None
    ) -> None:
        self.directory = Path(directory)
        index = read_index(self.directory)
        if index is None:
            raise CheckpointError(f"features: {self.directory} holds no features; write them with save_features")
        check_settings(self.directory, index.settings, settings or {})
        self.settings: dict[str, Any] = index.settings
        self._instruction = instruction
        self._clips = index.clips()
        self._verified = Verified()
        self._open: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a worker opens the files itself

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[str]:
        return iter(self._clips)

    def __contains__(self, key: object) -> bool:
        return key in self._clips

    def __getitem__(self, key: str) -> dict[str, Frames | TokenStream]:
        """The features under a key, as a batch of one; raises :class:`~avfusion.CheckpointError` if there are none."""
        if key not in self._clips:
            raise CheckpointError(f"features: {self.directory} lacks {key}; encode it with save_features")
        name, entry = self._clips[key]
        path = self.directory / name
        if name not in self._open:
            if len(self._open) >= _OPEN:
                self._open.clear()
            self._open[name] = open_shard(path)
        return read_clip(self._open[name], path, key, entry)

    def check_files(self, key: str, files: Sequence[str | Path]) -> None:
        """Raises :class:`~avfusion.CheckpointError` if one of a clip's files changed since it was encoded.

        A file that does not exist is not an error: its features stand for it.
        """
        if key in self._clips and not self._verified.fits(self._clips[key][1].files, files):
            raise CheckpointError(f"features: {self.directory} holds another state of {key}; encode it again")

    def clip(self, source: Source) -> Clip | None:
        """The features of a media file or of a conversation's clip; ``None`` for a conversation without media.

        Raises:
            CheckpointError: there are none, or a file changed since.
            InvalidTypeError: media that are not files.
        """
        messages = messages_of(source)
        key = clip_key(messages, None if self._instruction is None else self._instruction(messages))
        if key is None:
            return None
        self.check_files(key, list(clip_files(messages).values()))
        return Clip(features=self[key])

    def conversation(self, messages: Source) -> list[Any]:
        """A conversation with features in the place of its media files, as processors take it.

        Raises:
            CheckpointError: there are none, or a file changed since.
        """
        given = messages_of(messages)
        clip = self.clip(given)
        return given if clip is None else with_clip(given, clip)


class KeptConversations(Dataset[list[Any]]):
    """Conversations with features in the place of their media files; a map-style data set of PyTorch.

    Args:
        conversations: conversations, or rows ``{"messages": conversation}``.
        store: their features.

    Example:
        >>> import tempfile, torch
        >>> from avfusion import TokenStream
        >>> from avfusion.features import FeatureWriter, KeptConversations, clip_key, load_features
        >>> from avfusion.models import conversation
        >>> directory, rows = tempfile.mkdtemp(), [conversation("Who speaks?", audio="a.wav")]
        >>> with FeatureWriter(directory, {}) as writer:
        ...     writer.add(clip_key(rows[0]), {"audio": TokenStream.from_rate(torch.ones(1, 5, 8), rate=50.0)})
        >>> data = KeptConversations(rows, load_features(directory))
        >>> data[0][0]["content"][0]["video"].features["audio"].tokens.shape
        torch.Size([1, 5, 8])
    """

    def __init__(self, conversations: Sequence[Any], store: FeatureStore) -> None:
        self.conversations = conversations
        self.store = store

    def __len__(self) -> int:
        return len(self.conversations)

    def __getitem__(self, index: int) -> list[Any]:
        return self.store.conversation(self.conversations[index])


def load_features(directory: str | Path, model: Any = None, processor: Any = None) -> FeatureStore:
    """Opens features that :func:`~avfusion.features.save_features` wrote.

    Args:
        directory: their directory.
        model: compares its encoders with those that made the features; a model without encoders is not compared.
        processor: compares the rates and size at which it reads media.

    Raises:
        CheckpointError: no features, features of other encoders or other media options, or a damaged file.

    Example:
        >>> import tempfile
        >>> from avfusion.features import load_features
        >>> load_features(tempfile.mkdtemp())
        Traceback (most recent call last):
        avfusion.errors.CheckpointError: features: ... holds no features; write them with save_features
    """
    wanted: dict[str, Any] = {} if model is None else feature_settings(model)
    if processor is not None:
        wanted |= {"media": media_settings(processor)}
    return FeatureStore(directory, wanted, instruction=getattr(processor, "instruction", None))
