"""What the assembled model returns."""

from dataclasses import dataclass, fields

from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from avfusion.types import LLMEmbeddings

CACHE = fields(CausalLMOutputWithPast)[2].name
"""What transformers calls the cache: ``"cache"``, or ``"past_key_values"`` before 5.24."""


@dataclass
class AudioVisualOutput(CausalLMOutputWithPast):
    """What :class:`AudioVisualLanguageModel` returns.

    Attributes:
        loss: scalar, with labels: ``language_model_loss`` plus ``diversity_loss``.
        logits: ``(row, length, vocabulary)``.
        cache: the language model's; ``past_key_values`` before transformers 5.24, as in its own outputs.
        hidden_states: of the language model, if asked for.
        attentions: of the language model, if asked for.
        language_model_loss: scalar, with labels: next-token cross-entropy.
        diversity_loss: scalar, weighted; ``None`` without a diversity loss.
        embeddings: the connector's output, a row for each clip; ``None`` where a cache is continued without media.
    """

    language_model_loss: Tensor | None = None
    diversity_loss: Tensor | None = None
    embeddings: LLMEmbeddings | None = None
