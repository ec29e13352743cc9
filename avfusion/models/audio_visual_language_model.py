"""Encoders, connector and language model in one module."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from avfusion._shapes import Bool, Float, Int
from avfusion.models._cache import CACHE
from avfusion.models._checks import check_labels, check_parts, check_text
from avfusion.models._features import Features
from avfusion.models._generation import AnsweringModel
from avfusion.models._wrappers import takes, vocabulary
from avfusion.models.media_batch import MediaBatch, as_media
from avfusion.models.output import AudioVisualOutput, EmbeddingsOutput
from avfusion.models.prompts import IGNORED
from avfusion.modules import DiversityLoss
from avfusion.types import Video, Waveform


class AudioVisualLanguageModel(AnsweringModel):
    """A causal language model that watches and listens.

    The encoders make tokens of sound and pictures, the connector makes embeddings of them, and these take the places
    that placeholder tokens keep in the text. Row ``i`` of the text talks about clip ``i`` of the media, unless
    ``media_index`` says otherwise.

    Args:
        language_model: a causal language model of transformers, or a ``PeftModel`` around one; either may be compiled
            or wrapped otherwise.
        connector: gives embeddings of the language model's width.
        audio_encoders: encoder of each audio stream of the connector, by the stream's name; all hear the same sound.
        visual_encoder: encoder of the pictures.
        placeholder_token_id: the token that keeps a place for an embedding. Its own embedding is never looked up, so it
            may lie outside the language model's vocabulary.
        diversity_loss: added to the loss.

    Raises:
        InvalidValueError: parts that do not fit each other.
        InvalidTypeError: parts that are not modules.

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from avfusion import AudioVisualConnector, CausalQFormer, DiversityLoss, FrameSynchroniser
        >>> from avfusion import SlidingWindowProjector, TokenStream
        >>> from avfusion.models import AudioVisualLanguageModel
        >>> qformer = CausalQFormer(
        ...     input_dim=16, hidden_size=16, num_heads=2, num_queries=2, window_frames=4, tokens_per_frame=8
        ... )
        >>> connector = AudioVisualConnector(
        ...     synchroniser=FrameSynchroniser(visual_dim=8, stream_dims={"audio": 8}, slots=8),
        ...     projector=SlidingWindowProjector(window_encoder=qformer, window_frames=4, llm_dim=16),
        ... )
        >>> config = LlamaConfig(
        ...     vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        ... )
        >>> model = AudioVisualLanguageModel(
        ...     language_model=LlamaForCausalLM(config),
        ...     connector=connector,
        ...     placeholder_token_id=31,
        ...     diversity_loss=DiversityLoss(),
        ... )
        >>> features = {"audio": TokenStream.from_rate(torch.randn(1, 24, 8), rate=8.0)}  # 3 s: 6 frames, 2 windows
        >>> model.num_placeholders(features=features).tolist()
        [4]
        >>> ids = torch.tensor([[1, 31, 31, 31, 31, 5, 6]])
        >>> out = model(ids, labels=torch.tensor([[-100, -100, -100, -100, -100, 5, 6]]), features=features)
        >>> out.logits.shape, bool(out.loss == out.language_model_loss + out.diversity_loss)
        (torch.Size([1, 7, 32]), True)
        >>> model.eval().generate(ids, features=features, max_new_tokens=3, min_new_tokens=3).shape
        torch.Size([1, 3])
    """

    def __init__(
        self,
        *,
        language_model: nn.Module,
        connector: nn.Module,
        audio_encoders: Mapping[str, nn.Module] | None = None,
        visual_encoder: nn.Module | None = None,
        placeholder_token_id: int,
        diversity_loss: DiversityLoss | None = None,
    ) -> None:
        super().__init__()
        audio_encoders = dict(audio_encoders or {})
        check_parts(language_model, connector, audio_encoders, visual_encoder, diversity_loss)
        self.language_model: Any = language_model
        self.connector: Any = connector
        self.audio_encoders = nn.ModuleDict(audio_encoders)
        self.visual_encoder = visual_encoder
        self.placeholder_token_id = placeholder_token_id
        self.diversity_loss = diversity_loss
        self._settle()

    def forward(
        self,
        input_ids: Int[Tensor, "row length"],
        attention_mask: Int[Tensor, "row total"] | None = None,
        labels: Int[Tensor, "row length"] | None = None,
        *,
        video: Video | None = None,
        waveform: Waveform | None = None,
        features: Features | None = None,
        media: MediaBatch | None = None,
        media_index: Int[Tensor, " row"] | None = None,
        instruction: Float[Tensor, "row words instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "row words"] | None = None,
        position_ids: Int[Tensor, "row length"] | None = None,
        cache: Any = None,
        **kwargs: Any,
    ) -> AudioVisualOutput:
        """Next-token logits, and the loss if there are labels.

        Args:
            input_ids: ``(row, length)``, with a placeholder token for each embedding of the row's clip.
            attention_mask: ``(row, length)``, 1 for real tokens; with a cache it covers the cached tokens too.
            labels: ``(row, length)``: ``input_ids`` where the model shall learn, -100 elsewhere.
            video: ``clip`` clips.
            waveform: the same clips' sound.
            features: what :meth:`encode` gave for them, instead of ``video`` and ``waveform``.
            media: all three as one argument, as :class:`AudioVisualProcessor` gives it.
            media_index: ``(row,)`` int64: the clip each row talks about, ``-1`` for none; row ``i`` about clip ``i``
                without it. Each clip is encoded once, however many rows talk about it.
            instruction: ``(row, words, instruction_dim)``: what each row asks, for connectors that take it.
            instruction_mask: ``(row, words)`` bool.
            position_ids: ``(row, length)``; counted from ``attention_mask`` without it, so that padding does not move
                the text.
            cache: the one to continue, ``cache`` of an earlier output. It has this name with every transformers.
            **kwargs: for the language model (``use_cache``, ``output_hidden_states``, ``num_items_in_batch``, …).

        Raises:
            PlaceholderError: a row whose placeholders are not as many as its clip's embeddings, or labels that hold a
                placeholder.
            InvalidValueError: batches that differ, labels outside the vocabulary, or media for which there is no
                encoder.
        """
        check_text(input_ids, attention_mask, labels, cached=cache is not None)
        if labels is not None:
            check_labels(labels, self.placeholder_token_id, vocabulary(self.language_model))
        inputs_embeds, embeddings = self._inputs(
            input_ids,
            as_media(media, video, waveform, features),
            media_index,
            cache,
            instruction=instruction,
            instruction_mask=instruction_mask,
        )
        if position_ids is None and attention_mask is not None:
            position_ids = (attention_mask.long().cumsum(1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        if position_ids is not None and takes(self.language_model, "position_ids"):
            kwargs["position_ids"] = position_ids
        if cache is not None:
            kwargs[CACHE] = cache
        if kwargs.get("num_items_in_batch") is not None:  # there may be nothing to learn in a whole step
            kwargs["num_items_in_batch"] = torch.as_tensor(kwargs["num_items_in_batch"]).clamp(min=1)
        out = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            labels=labels,
            **kwargs,
        )
        diversity = None
        if self.diversity_loss is not None and embeddings is not None:
            diversity = self.diversity_loss(embeddings.query_states, embeddings.window_mask)
        loss = spoken = None if labels is None else _where_learned(out.loss, labels)
        if loss is not None and diversity is not None:
            loss = loss + diversity.to(loss.device)
        return AudioVisualOutput(
            loss=loss,
            logits=out.logits,
            cache=out.get(CACHE),
            hidden_states=out.get("hidden_states"),
            attentions=out.get("attentions"),
            language_model_loss=spoken,
            diversity_loss=diversity,
            embeddings=None if embeddings is None else EmbeddingsOutput(**embeddings._asdict()),
        )


def _where_learned(loss: Tensor, labels: Tensor) -> Tensor:
    """The loss, or zero with zero gradients where there is nothing to learn: a mean over no tokens is not a number."""
    learned = (labels[:, 1:] != IGNORED).any().to(loss.device)
    return torch.where(learned, loss, torch.zeros_like(loss))
