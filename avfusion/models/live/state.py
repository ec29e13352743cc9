"""What a session keeps beside the language model's cache."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import CheckpointError, InvalidTypeError, InvalidValueError
from avfusion.models.live.retention import RetentionPolicy
from avfusion.types import LLMEmbeddings
from avfusion.types.clock import time_dtype


class KeptWindows(NamedTuple):
    """The windows in a session's context.

    Attributes:
        embeddings: ``(1, window, query, llm_dim)``, in the language model's dtype.
        spans: ``(1, window, 2)`` seconds, float64.
        numbers: ``(1, window)`` int64: index of each window in the stream.
        finished: ``(1,)`` int64: number of windows finished so far, kept or not.

    Example:
        >>> import torch
        >>> from avfusion.models import KeptWindows
        >>> spans = torch.tensor([[[0.0, 5.0], [5.0, 10.0]]], dtype=torch.float64)
        >>> kept = KeptWindows(torch.zeros(1, 2, 4, 16), spans, torch.tensor([[0, 1]]), torch.tensor([2]))
        >>> kept.embeddings.shape[1], int(kept.finished)  # session.kept, when nothing has been forgotten
        (2, 2)
    """

    embeddings: Float[Tensor, "1 window query llm_dim"]
    spans: Float[Tensor, "1 window 2"]
    numbers: Int[Tensor, "1 window"]
    finished: Int[Tensor, " 1"]


class StreamingEncoderState(NamedTuple):
    """Where encoders and connector stand.

    Attributes:
        audio: the audio encoders' states, in their order.
        connector: the connector's.
        watermark: ``(1,)`` seconds up to which frames have been finalised, float64; ``-inf`` before the first.
        ended: ``(1,)`` bool: whether nothing more may come.
    """

    audio: tuple[Any, ...]
    connector: Any
    watermark: Float[Tensor, " 1"]
    ended: Bool[Tensor, " 1"]


class SessionState(NamedTuple):
    """Where a session stands: a tree of tensors, never changed.

    Attributes:
        encoder: of encoders and connector.
        kept: the windows that are remembered.
    """

    encoder: StreamingEncoderState
    kept: KeptWindows


def no_windows(like: Tensor) -> KeptWindows:
    """No windows, with embeddings ``(…, llm_dim)`` as ``like``."""
    numbers = torch.zeros(1, 0, dtype=torch.int64, device=like.device)
    spans = torch.zeros(1, 0, 2, dtype=time_dtype(like.device), device=like.device)
    return KeptWindows(like.new_zeros(1, 0, 0, like.shape[-1]), spans, numbers, numbers.new_zeros(1))


def windows_of(out: LLMEmbeddings, like: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings ``(1, window, query, llm_dim)`` as ``like``, and spans ``(1, window, 2)``, of the real windows."""
    windows, queries = out.query_states.shape[:2]
    real = out.window_mask
    embeddings = out.embeddings.reshape(1, windows, queries, like.shape[-1])[:, real.to(out.embeddings.device)]
    spans = out.spans.reshape(1, windows, queries, 2)[:, real.to(out.spans.device), 0]
    return embeddings.to(like.device, like.dtype), spans.to(like.device)


def remember(
    kept: KeptWindows, embeddings: Tensor, spans: Tensor, retention: RetentionPolicy | None
) -> tuple[KeptWindows, int]:
    """With new windows, but without those that the policy drops; and how many these are."""
    new = spans.shape[1]
    if not new:
        return kept, 0
    numbers = kept.finished[:, None] + torch.arange(new, device=kept.finished.device)
    kept = KeptWindows(
        torch.cat([kept.embeddings, embeddings], 1) if kept.embeddings.shape[1] else embeddings,
        torch.cat([kept.spans, spans], 1),
        torch.cat([kept.numbers, numbers], 1),
        kept.finished + new,
    )
    if retention is None:
        return kept, 0
    stay = retention(kept.numbers[0], kept.spans[0])
    count = kept.numbers.shape[1]
    if not isinstance(stay, Tensor) or stay.dtype != torch.bool:
        found = stay.dtype if isinstance(stay, Tensor) else type(stay).__name__
        raise InvalidTypeError(f"retention: must give a boolean tensor, found {found}")
    if stay.shape != (count,):
        raise InvalidValueError(f"retention: must give (window,) = ({count},), found shape {tuple(stay.shape)}")
    dropped = count - int(stay.sum())
    if not dropped:
        return kept, 0
    stay = stay.to(kept.numbers.device)
    return KeptWindows(kept.embeddings[:, stay], kept.spans[:, stay], kept.numbers[:, stay], kept.finished), dropped


def check_kept(kept: KeptWindows, like: Tensor) -> None:
    """Refuses windows of another model, whose embeddings are not as wide as ``like``."""
    count, width = kept.numbers.shape[-1], like.shape[-1]
    if kept.embeddings.ndim != 4 or kept.embeddings.shape[1] != count or kept.spans.shape != (1, count, 2):
        shapes = {name: tuple(value.shape) for name, value in kept._asdict().items()}
        raise CheckpointError(f"tensors: kept windows must be as many in every tensor, found {shapes}")
    if count and kept.embeddings.shape[-1] != width:
        raise CheckpointError(
            f"tensors: kept.embeddings must have the language model's width {width}, found {kept.embeddings.shape[-1]}"
        )
