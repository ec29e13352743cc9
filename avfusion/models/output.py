"""What the assembled model returns."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput

from avfusion.types import LLMEmbeddings


@dataclass
class EmbeddingsOutput(ModelOutput):
    """:class:`~avfusion.LLMEmbeddings` as a ``ModelOutput``, which Trainer and accelerate can gather.

    Attributes:
        embeddings: ``(clip, position, llm_dim)``; zero where masked.
        mask: ``(clip, position)`` bool.
        spans: ``(clip, position, 2)`` seconds.
        query_states: ``(window, query, hidden)``: the window encoder's output before the projection.

    Example:
        >>> import torch
        >>> from avfusion.models import EmbeddingsOutput
        >>> out = EmbeddingsOutput(
        ...     embeddings=torch.zeros(1, 4, 8),
        ...     mask=torch.tensor([[True, True, False, False]]),
        ...     spans=torch.zeros(1, 4, 2, dtype=torch.float64),
        ...     query_states=torch.zeros(2, 2, 6),
        ... )
        >>> out.window_mask.tolist()  # two windows of two queries each
        [True, False]
    """

    embeddings: Tensor | None = None
    mask: Tensor | None = None
    spans: Tensor | None = None
    query_states: Tensor | None = None

    @property
    def window_mask(self) -> Tensor:
        """``(window,)`` bool: the real windows of ``query_states``."""
        return LLMEmbeddings(**self).window_mask


@dataclass
class AudioVisualOutput(ModelOutput):
    """Output of :class:`~avfusion.models.AudioVisualLanguageModel`.

    Attributes:
        loss: scalar, with labels: ``language_model_loss`` plus ``diversity_loss``.
        logits: ``(row, length, vocabulary)``; of labelled positions only with ``labelled_logits_only``.
        cache: the language model's KV cache, under the same name for all versions of transformers.
        hidden_states: of the language model, if requested.
        attentions: of the language model, if requested.
        language_model_loss: scalar, with labels: next-token cross-entropy.
        diversity_loss: scalar, weighted; ``None`` without a diversity loss.
        embeddings: the connector's output, a row for each clip; ``None`` if a cache is continued without media.

    Example:
        >>> import torch
        >>> from avfusion.models import AudioVisualOutput
        >>> out = AudioVisualOutput(loss=torch.tensor(2.0), logits=torch.zeros(1, 4, 32))
        >>> out.loss, out["logits"].shape, out.diversity_loss is None
        (tensor(2.), torch.Size([1, 4, 32]), True)
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    cache: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    language_model_loss: Tensor | None = None
    diversity_loss: Tensor | None = None
    embeddings: EmbeddingsOutput | None = None
