"""What the assembled model returns."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput

from avfusion.types import LLMEmbeddings


@dataclass
class AudioVisualOutput(ModelOutput):
    """What :class:`~avfusion.models.AudioVisualLanguageModel` returns.

    Attributes:
        loss: scalar, with labels: ``language_model_loss`` plus ``diversity_loss``.
        logits: ``(row, length, vocabulary)``.
        cache: the language model's, whatever this transformers calls it.
        hidden_states: of the language model, if asked for.
        attentions: of the language model, if asked for.
        language_model_loss: scalar, with labels: next-token cross-entropy.
        diversity_loss: scalar, weighted; ``None`` without a diversity loss.
        embeddings: the connector's output, a row for each clip; ``None`` where a cache is continued without media.

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
    embeddings: LLMEmbeddings | None = None
