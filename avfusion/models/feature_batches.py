"""Features of single clips to batches, and back."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from avfusion.errors import InvalidValueError
from avfusion.models._features import Features, num_clips, take_clips
from avfusion.types import Frames, TokenStream


def collate_features(clips: Sequence[Mapping[str, Frames | TokenStream]]) -> dict[str, Frames | TokenStream]:
    """Pads the features of single clips into one batch.

    Args:
        clips: outputs of :meth:`AudioVisualLanguageModel.encode`, each with a batch of any size.

    Returns:
        Features of all clips in order; a stream that only some clips have is masked for the others.

    Raises:
        InvalidValueError: no clips, a clip without features, or different widths or tokens per frame.

    Example:
        >>> import torch
        >>> from avfusion import TokenStream
        >>> from avfusion.models import collate_features
        >>> clips = [{"audio": TokenStream.from_rate(torch.ones(1, time, 8), rate=50.0)} for time in (3, 5)]
        >>> collate_features(clips)["audio"].mask.sum(1).tolist()
        [3, 5]
    """
    if not clips or not all(clips):
        raise InvalidValueError(f"clips: each must have features, found {[sorted(clip) for clip in clips]}")
    sizes = [len(next(iter(clip.values())).mask) for clip in clips]
    batch: dict[str, Frames | TokenStream] = {}
    for name in dict.fromkeys(name for clip in clips for name in clip):
        given = [clip[name] for clip in clips if name in clip]
        shapes = sorted({tuple(value.tokens.shape[2:]) for value in given})
        if len(shapes) > 1:
            raise InvalidValueError(f"{name}: tokens must be of one shape in all clips, found {shapes}")
        length = max(value.mask.shape[1] for value in given)
        parts = [
            tuple(_padded(part, length) for part in clip[name])
            if name in clip
            else tuple(part.new_zeros(size, length, *part.shape[2:]) for part in given[0])
            for clip, size in zip(clips, sizes, strict=True)
        ]
        batch[name] = type(given[0])(*(torch.cat(values) for values in zip(*parts, strict=True)))
    return batch


def _padded(part: Tensor, length: int) -> Tensor:
    missing = part.new_zeros(part.shape[0], length - part.shape[1], *part.shape[2:])
    return torch.cat([part, missing], 1)


def split_features(features: Features) -> list[dict[str, Frames | TokenStream]]:
    """The clips of a batch of features, each a batch of one without the padding at its end.

    Args:
        features: output of :meth:`AudioVisualLanguageModel.encode`.

    Returns:
        For each clip all streams of the batch; a stream of which a clip has nothing has no tokens. The tensors are
        views.

    Example:
        >>> import torch
        >>> from avfusion import TokenStream
        >>> from avfusion.models import split_features
        >>> batch = {"audio": TokenStream.from_rate(torch.ones(2, 5, 8), rate=50.0, lengths=[3, 5])}
        >>> [tuple(clip["audio"].tokens.shape) for clip in split_features(batch)]
        [(1, 3, 8), (1, 5, 8)]
    """
    given = {name: value for name, value in features.items() if value is not None}
    lengths = {
        name: _lengths(value.mask.flatten(2).any(2) if value.mask.ndim > 2 else value.mask)
        for name, value in given.items()
    }
    return [
        {
            name: type(value)(*(part[clip : clip + 1, : lengths[name][clip]] for part in value))
            for name, value in given.items()
        }
        for clip in range(num_clips(features) or 0)
    ]


def select_features(features: Features, index: Sequence[int] | Tensor) -> dict[str, Frames | TokenStream]:
    """Rows of a batch of features, in any order and number.

    Args:
        features: output of :meth:`AudioVisualLanguageModel.encode` or :func:`collate_features`.
        index: ``(row,)`` whole numbers: clip of each row, ``-1`` for a row without one, which is masked.

    Raises:
        InvalidValueError: an index without a clip.

    Example:
        >>> import torch
        >>> from avfusion import TokenStream
        >>> from avfusion.models import select_features
        >>> batch = {"audio": TokenStream.from_rate(torch.tensor([[[1.0]], [[2.0]]]), rate=50.0)}
        >>> rows = select_features(batch, [1, 0, 1, -1])["audio"]
        >>> rows.tokens.flatten().tolist(), rows.mask.flatten().tolist()
        ([2.0, 1.0, 2.0, 0.0], [True, True, True, False])
    """
    clips, rows = num_clips(features) or 0, torch.as_tensor(index)
    rows = rows.long() if rows.numel() == 0 else rows
    whole = not (rows.is_floating_point() or rows.dtype == torch.bool)
    if rows.ndim != 1 or not whole or bool(((rows < -1) | (rows >= clips)).any()):
        raise InvalidValueError(f"index: must name one of {clips} clips for each row, or be -1, found {rows.tolist()}")
    return take_clips(features, rows)


def _lengths(real: Tensor) -> list[int]:
    """Places up to the last real one of each row."""
    places = torch.arange(1, real.shape[1] + 1, device=real.device)
    return (real * places).amax(1).tolist() if real.shape[1] else [0] * len(real)
