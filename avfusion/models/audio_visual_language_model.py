"""Encoders, connector and language model in one module."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from avfusion._shapes import Bool, Float, Int
from avfusion.models._assembly import Part, assemble_parts
from avfusion.models._cache import CACHE
from avfusion.models._checks import check_labels, check_parts, check_text
from avfusion.models._features import Features
from avfusion.models._generation import AnsweringModel
from avfusion.models._labelled import labelled_positions
from avfusion.models._parts import PLACEHOLDER
from avfusion.models._wrappers import takes, vocabulary
from avfusion.models.media_batch import MediaBatch, as_media
from avfusion.models.output import AudioVisualOutput, EmbeddingsOutput
from avfusion.models.prompts import IGNORED
from avfusion.modules import DiversityLoss
from avfusion.types import Video, Waveform


class AudioVisualLanguageModel(AnsweringModel):
    """A causal language model with audio and video input.

    The encoders turn audio and video into tokens, and the connector turns the tokens into embeddings, which replace the
    embeddings of placeholder tokens in the text. Row ``i`` of the text refers to clip ``i`` of the media, unless
    ``media_index`` is given.

    Args:
        language_model: a causal language model of transformers, or a ``PeftModel`` around one; either may be compiled
            or wrapped.
        connector: returns embeddings of the language model's width.
        audio_encoders: encoders of the connector's audio streams by stream name; all receive the same audio.
        visual_encoder: encoder of the video frames.
        placeholder_token_id: id of the placeholder token. Its own embedding is never looked up, so that it may lie
            outside the vocabulary.
        diversity_loss: auxiliary loss, added to the language model's.

    Raises:
        InvalidValueError: the parts do not fit each other.
        InvalidTypeError: a part is not a module.

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

    @classmethod
    def from_pretrained_parts(
        cls,
        *,
        language_model: Part,
        visual_encoder: Part | None = None,
        audio_encoder: Part | Mapping[str, Part] | None = None,
        placeholder: str = PLACEHOLDER,
        placeholder_token_id: int | None = None,
        diversity_loss: DiversityLoss | None = None,
        encoder_options: Mapping[str, Mapping[str, Any]] | None = None,
        dtype: Any = None,
        device_map: Any = None,
        attn_implementation: str | None = None,
        quantization_config: Any = None,
        **sizes: Any,
    ) -> Self:
        """Builds a model from pretrained parts, with a new connector between them, in evaluation mode.

        Widths, slots, heads and rates follow from the parts. The connector's embeddings begin with the norm of the
        language model's word embeddings (:func:`match_scale`). :meth:`save_pretrained` records the parts, so that
        :meth:`from_pretrained` needs only the directory.

        Args:
            language_model: name on the Hub or directory of a causal language model of transformers, or the model. A
                model that is loaded here is frozen: give it adapters, or unfreeze it.
            visual_encoder: name or directory of a vision model of transformers or timm, or an encoder of avfusion's.
            audio_encoder: name or directory of Whisper or another audio model of transformers, or an encoder of
                avfusion's; or several, by stream name.
            placeholder: the token that stands for an embedding in the text; added to the tokenizer if it is new.
            placeholder_token_id: its id, for a language model that was not loaded by name.
            diversity_loss: auxiliary loss, added to the language model's.
            encoder_options: arguments of the encoders' ``from_pretrained`` by stream, ``"visual"`` among them, such as
                ``{"visual": {"pool": 16}}``.
            dtype: dtype of language model and encoders; the connector is float32.
            device_map: of the language model; the other parts are placed on the device of its word embeddings.
            attn_implementation: of the language model.
            quantization_config: of the language model.
            **sizes: arguments of :meth:`avfusion.AudioVisualConnector.from_encoders`: ``window_seconds``,
                ``num_queries``, ``frame_rate``, ``hidden_size``, ….

        Raises:
            InvalidValueError: parts that do not exist or do not fit, all in one error.
            CheckpointError: a checkpoint that lacks weights.

        Example:
            >>> import timm
            >>> from transformers import LlamaConfig, LlamaForCausalLM
            >>> from avfusion.encoders import TimmVisualEncoder
            >>> from avfusion.models import AudioVisualLanguageModel
            >>> sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
            >>> vision = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1)  # or names of pretrained parts
            >>> model = AudioVisualLanguageModel.from_pretrained_parts(
            ...     language_model=LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes)),
            ...     visual_encoder=TimmVisualEncoder(model=vision),
            ...     placeholder_token_id=64,
            ...     window_seconds=2.0,
            ...     num_queries=4,
            ... )
            >>> model.connector.llm_dim, model.connector.projector.window_frames
            (16, 4)
        """
        parts = assemble_parts(
            language_model,
            visual_encoder,
            audio_encoder,
            placeholder=placeholder,
            placeholder_token_id=placeholder_token_id,
            encoder_options=encoder_options or {},
            options={
                "dtype": dtype,
                "device_map": device_map,
                "attn_implementation": attn_implementation,
                "quantization_config": quantization_config,
            },
            sizes=sizes,
        )
        model = cls(**parts.arguments, diversity_loss=diversity_loss)
        model.part_sources |= parts.sources
        model.placeholder = parts.placeholder
        return model.eval()

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
        """Next-token logits, and the loss if labels are given.

        Args:
            input_ids: ``(row, length)``, with a placeholder token for each embedding of the row's clip.
            attention_mask: ``(row, length)``, 1 for real tokens; with a cache it covers the cached tokens too.
            labels: ``(row, length)``: ``input_ids`` at trained positions, -100 elsewhere.
            video: the video of each clip.
            waveform: the audio of each clip.
            features: the output of :meth:`encode`, instead of ``video`` and ``waveform``.
            media: all three as one argument, as returned by :class:`AudioVisualProcessor`.
            media_index: ``(row,)`` int64: the clip of each row, ``-1`` for none; by default row ``i`` has clip ``i``.
                Each clip is encoded once for all its rows.
            instruction: ``(row, words, instruction_dim)``: an instruction for each row, for connectors with
                conditioning.
            instruction_mask: ``(row, words)`` bool.
            position_ids: ``(row, length)``; by default counted from ``attention_mask``, so that padding does not shift
                positions.
            cache: the KV cache to continue: ``cache`` of an earlier output. The name is the same for all versions of
                transformers.
            **kwargs: arguments of the language model (``use_cache``, ``output_hidden_states``, ``num_items_in_batch``,
                …).

        Raises:
            PlaceholderError: a row has a different number of placeholders than its clip has embeddings, or a label is a
                placeholder.
            InvalidValueError: batch sizes differ, labels are outside the vocabulary, or media have no encoder.
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
        if labels is not None and self.training and self.labelled_logits_only:
            kwargs |= labelled_positions(self.language_model, labels)
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
