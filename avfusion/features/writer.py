"""Writing features, one clip after the other."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from avfusion.errors import InvalidValueError
from avfusion.features.index import Index, merge_index, read_index
from avfusion.features.settings import check_settings
from avfusion.features.shards import Entry, Features, new_name, write_shard
from avfusion.features.stamps import FileStamp, Verified
from avfusion.types import Frames, TokenStream


class FeatureWriter:
    """Adds features to a directory; :func:`~avfusion.features.save_features` uses it.

    Clips are collected, and written as a shard when there are enough. A shard is complete or not there, so a process
    that is killed loses only the clips since the last one. Any number of processes may write to a directory.

    Args:
        directory: directory of the features; created if it does not exist.
        settings: what the features depend on besides the media (:func:`feature_settings`), as values of JSON.
        dtype: dtype of the tokens; ``None`` keeps theirs. Times are float64.
        shard_size: bytes of features after which a shard is written.
        rank: number of this process, which only appears in the names of shards.

    Raises:
        CheckpointError: the directory holds features of other settings, or a damaged file.

    Example:
        >>> import tempfile, torch
        >>> from avfusion import TokenStream
        >>> from avfusion.features import FeatureWriter, load_features
        >>> directory = tempfile.mkdtemp()
        >>> with FeatureWriter(directory, {"version": 1}) as writer:
        ...     writer.add("a", {"audio": TokenStream.from_rate(torch.ones(1, 5, 8), rate=50.0)})
        >>> load_features(directory)["a"]["audio"].tokens.dtype
        torch.float16
    """

    def __init__(
        self,
        directory: str | Path,
        settings: Mapping[str, Any],
        *,
        dtype: torch.dtype | None = torch.float16,
        shard_size: int = 256_000_000,
        rank: int = 0,
    ) -> None:
        if dtype is not None and not dtype.is_floating_point:
            raise InvalidValueError(f"dtype: must be a floating-point dtype, found {dtype}")
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.settings = {**settings, "dtype": None if dtype is None else str(dtype).removeprefix("torch.")}
        self.dtype = dtype
        self.shard_size = shard_size
        self.rank = rank
        index = read_index(self.directory) or Index(self.settings, {})
        check_settings(self.directory, index.settings, self.settings)
        self._known: dict[str, Entry] = {key: entry for key, (_, entry) in index.clips().items()}
        self._waiting: dict[str, tuple[Features, Sequence[FileStamp]]] = {}
        self._size = 0  # bytes that wait
        self._verified = Verified()

    def __contains__(self, key: str) -> bool:
        return key in self._known or key in self._waiting

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:  # what was encoded before an error is kept, if it can be; the error is the one to see
            with suppress(OSError):
                self.close()

    def is_kept(self, key: str, files: Sequence[str | Path] = ()) -> bool:
        """Whether there are features under a key, of these files as they are now."""
        return key in self._known and self._verified.fits(self._known[key].files, files)

    def add(self, key: str, features: Features, files: Sequence[FileStamp] = ()) -> None:
        """Adds the features of a clip, which replace older ones under the same key.

        Args:
            key: any text.
            features: streams of one clip, possibly none; their tensors are copied.
            files: the state of the clip's files when they were read; not compared later without them.

        Raises:
            InvalidValueError: more than one clip, or real tokens that are not finite, or not in ``dtype``.
            OSError: a shard cannot be written; what it would have held is written by the next call.
        """
        kept = {name: self._kept(name, value) for name, value in features.items()}
        self._waiting[key] = (kept, files)
        self._size += sum(part.nbytes for value in kept.values() for part in value)
        if self._size >= self.shard_size:
            self.flush()

    def flush(self) -> None:
        """Writes the clips that wait as a shard."""
        if self._waiting:
            path = self.directory / new_name(self.directory, self.rank)
            self._known |= write_shard(path, self.settings, self._waiting)
            self._waiting, self._size = {}, 0

    def close(self) -> None:
        """Writes what waits, and one index over the shards of all processes."""
        self.flush()
        merge_index(self.directory)

    def _kept(self, name: str, value: Frames | TokenStream) -> Frames | TokenStream:
        if value.mask.shape[0] != 1:
            raise InvalidValueError(f"{name}: must be of one clip, found {value.mask.shape[0]}")
        tokens, mask, times = (part.detach().cpu() for part in value)
        tokens = tokens.masked_fill(~mask[..., None], 0)
        kept = tokens.to(self.dtype)
        if not kept.isfinite().all():
            found = f"up to {tokens.abs().max():g}" if tokens.isfinite().all() else "NaN or infinity"
            raise InvalidValueError(f"{name}: tokens must be finite in {kept.dtype}, found {found}")
        return type(value)(_copy(kept), _copy(mask), _copy(times.double()))


def _copy(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)
