"""Encoders, connector and language model in one module."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from avfusion._shapes import Bool, Float, Int
from avfusion.encoders._checkpointing import disable_checkpointing, enable_checkpointing
from avfusion.errors import InvalidValueError
from avfusion.models._cache import CACHE
from avfusion.models._checks import check_labels, check_parts, check_text
from avfusion.models._features import (
    VISUAL,
    Features,
    can_count,
    count_positions,
    empty_features,
    layout,
    num_clips,
    place,
    select_features,
)
from avfusion.models._training import TrainedModel
from avfusion.models._wrappers import takes, unwrap, vocabulary
from avfusion.models.merge import check_index, merge_embeddings, select_clips
from avfusion.models.output import AudioVisualOutput, EmbeddingsOutput
from avfusion.models.prompts import IGNORED
from avfusion.models.rowwise import rowwise_options
from avfusion.modules import DiversityLoss
from avfusion.types import Frames, LLMEmbeddings, TokenStream, Video, Waveform


class AudioVisualLanguageModel(TrainedModel):
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

    def encode(self, video: Video | None = None, waveform: Waveform | None = None) -> dict[str, Frames | TokenStream]:
        """The encoders' tokens of a batch of clips, which may be kept and given as ``features`` later.

        Args:
            video: ``clip`` clips.
            waveform: the same clips' sound. A clip that lacks a modality has it all masked; one that all lack is
                ``None``.

        Returns:
            Frames or token stream by name, without those that are ``None``.

        Raises:
            InvalidValueError: media for which there is no encoder.
        """
        self._check_media(video, waveform, None)
        features: dict[str, Frames | TokenStream] = {}
        for name, encoder in self.encoders.items():
            media = video if name == VISUAL else waveform
            if media is not None:
                features[name] = encoder(media)
        return features

    @torch.no_grad()
    def num_placeholders(
        self,
        *,
        video: Video | None = None,
        waveform: Waveform | None = None,
        features: Features | None = None,
    ) -> Int[Tensor, " clip"]:
        """How many placeholder tokens the text of each clip must have, exactly.

        Nothing is encoded if the audio encoders have a ``timeline(waveform)``, which gives the stream that they would
        with tokens of width 0; one that has none is run, and so is all of it for a connector of your own class.

        Args:
            video: ``clip`` clips.
            waveform: the same clips' sound.
            features: what :meth:`encode` gave for them, instead.

        Returns:
            ``(clip,)`` int64 on the CPU; 0 for a clip without media.

        Raises:
            InvalidValueError: no media at all, or both media and features.
            AlignmentError: sound that the connector cannot place.
        """
        self._check_media(video, waveform, features)
        if features is None:
            foretold = can_count(self.connector)
            encoders = dict(self.audio_encoders.items())
            features = layout(encoders, video, waveform) if foretold else self.encode(video, waveform)
        given = {name: value for name, value in features.items() if value is not None}
        if not given:
            raise InvalidValueError("video, waveform, features: one must be given, found none")
        return count_positions(self.connector, given).cpu()

    def connect(
        self,
        features: Features,
        *,
        batch: int | None = None,
        instruction: Float[Tensor, "clip length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "clip length"] | None = None,
    ) -> LLMEmbeddings:
        """The connector's embeddings of encoded clips.

        Args:
            features: what :meth:`encode` gave, on any device and in any floating dtype.
            batch: clips, which must be said where there are no features at all: the connector then runs on nothing, so
                that its parameters get zero gradients rather than none.
            instruction: for connectors that take one.
            instruction_mask: ``(clip, length)`` bool.
        """
        given = {name: value for name, value in features.items() if value is not None}
        if not given:
            if batch is None:
                raise InvalidValueError("batch: must be given where there are no features, found None")
            given = empty_features(self.connector, self.encoders, batch)
        guide = {"instruction": instruction, "instruction_mask": instruction_mask}
        guide = {name: value for name, value in guide.items() if value is not None}
        return self.connector(**place(self.connector, given), **guide)

    def embed(
        self, input_ids: Int[Tensor, "row length"], embeddings: LLMEmbeddings | None = None
    ) -> Float[Tensor, "row length llm_dim"]:
        """The language model's input: embedded text, with ``embeddings``, a clip a row, at its placeholders.

        Raises:
            PlaceholderError: a row whose placeholders are not as many as its real embeddings.
        """
        table = self.get_input_embeddings()
        if embeddings is None:
            return table(input_ids)
        text = table(input_ids.masked_fill(input_ids == self.placeholder_token_id, 0))
        return merge_embeddings(input_ids, text, embeddings, self.placeholder_token_id)

    def forward(
        self,
        input_ids: Int[Tensor, "row length"],
        attention_mask: Int[Tensor, "row total"] | None = None,
        labels: Int[Tensor, "row length"] | None = None,
        *,
        video: Video | None = None,
        waveform: Waveform | None = None,
        features: Features | None = None,
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
            video,
            waveform,
            features,
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

    @torch.no_grad()
    def generate(
        self,
        input_ids: Int[Tensor, "row length"],
        attention_mask: Int[Tensor, "row length"] | None = None,
        *,
        video: Video | None = None,
        waveform: Waveform | None = None,
        features: Features | None = None,
        media_index: Int[Tensor, " row"] | None = None,
        instruction: Float[Tensor, "row words instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "row words"] | None = None,
        count_prompt: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Continues the text, by the language model's own ``generate``.

        Each row gets what it gets alone, with every logits processor and ``max_length``, set here or in the language
        model's ``generation_config``: see :func:`rowwise_options`.

        Args:
            input_ids: as for :meth:`forward`, and so are all others but ``kwargs``; padding must be on the left.
            attention_mask: ``(row, length)``, 1 for real tokens.
            video: as for :meth:`forward`.
            waveform: as for :meth:`forward`.
            features: as for :meth:`forward`.
            media_index: as for :meth:`forward`.
            instruction: as for :meth:`forward`.
            instruction_mask: as for :meth:`forward`.
            count_prompt: let logits processors, such as a repetition penalty, see the prompt's text before the new
                tokens, as transformers does with a prompt of ids; ``False`` shows them the new tokens alone.
            **kwargs: of transformers' ``generate``: ``max_new_tokens``, ``num_beams``, ``do_sample``, ``streamer``, ….

        Returns:
            ``(row, new)`` int64: the new tokens only; or what ``return_dict_in_generate`` asks for.

        Raises:
            PlaceholderError: a row whose placeholders are not as many as its clip's embeddings.
            InvalidValueError: padding on the right, batches that differ, media for which there is no encoder, or a
                ``max_length`` that a row has reached.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        check_text(input_ids, attention_mask)
        real = attention_mask.bool()
        wrong = (~real[:, -1] | (real[:, :-1] & ~real[:, 1:]).any(1)).nonzero().flatten().tolist()
        if wrong:
            raise InvalidValueError(
                f"attention_mask: padding must be on the left to generate, found some after real tokens in rows "
                f'{wrong}; use padding_side="left"'
            )
        inputs_embeds, _ = self._inputs(
            input_ids,
            video,
            waveform,
            features,
            media_index,
            instruction=instruction,
            instruction_mask=instruction_mask,
        )
        options = rowwise_options(
            self.language_model,
            input_ids,
            attention_mask,
            placeholder_token_id=self.placeholder_token_id,
            count_prompt=count_prompt,
            **kwargs,
        )
        llm = unwrap(self.language_model)
        return llm.generate(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **options)

    def _inputs(
        self,
        input_ids: Tensor,
        video: Video | None,
        waveform: Waveform | None,
        features: Features | None,
        media_index: Tensor | None,
        cache: Any = None,
        **guide: Any,
    ) -> tuple[Tensor, LLMEmbeddings | None]:
        """The language model's input, and the connector's output."""
        self._check_media(video, waveform, features)
        features = self.encode(video, waveform) if features is None else features
        rows, clips = input_ids.shape[0], num_clips(features)
        if clips is None and cache is not None:
            return self.embed(input_ids), None  # text that goes on from a cache
        if media_index is not None:
            check_index(media_index, clips or 0, rows)
        elif clips not in (None, rows):
            raise InvalidValueError(f"media_index: must be given for {clips} clips and {rows} rows, found None")
        if clips is None or media_index is None:
            embeddings = self.connect(features, batch=rows, **guide)
            return self.embed(input_ids, embeddings), embeddings
        if guide["instruction"] is not None:  # each row sees its clip in another light
            embeddings = self.connect(select_features(features, media_index), **guide)
            return self.embed(input_ids, embeddings), embeddings
        embeddings = self.connect(features)
        return self.embed(input_ids, select_clips(embeddings, media_index)), embeddings

    def _check_media(self, video: Video | None, waveform: Waveform | None, features: Features | None) -> None:
        if features is not None and (video is not None or waveform is not None):
            raise InvalidValueError("features: must not come with video or waveform, found both")
        if video is not None and self.visual_encoder is None:
            raise InvalidValueError("video: this model has no visual_encoder, found a video")
        if waveform is not None and not self.audio_encoders:
            raise InvalidValueError("waveform: this model has no audio_encoders, found a waveform")

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Recomputes the language model's and the connector's activations in the backward pass.

        Args:
            activation_checkpointing_kwargs: of ``torch.utils.checkpoint``, for the language model.
            **kwargs: what else this transformers takes: ``every_n_layers``, ``offload``, ….
        """
        enable_checkpointing(unwrap(self.language_model), activation_checkpointing_kwargs, **kwargs)
        self._checkpoint_connector(True)

    def activation_checkpointing_disable(self) -> None:
        """Keeps activations again."""
        disable_checkpointing(unwrap(self.language_model))
        self._checkpoint_connector(False)

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """:meth:`activation_checkpointing_enable`, by its older name."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """:meth:`activation_checkpointing_disable`, by its older name."""
        self.activation_checkpointing_disable()

    def _checkpoint_connector(self, enabled: bool) -> None:
        for module in self.connector.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = enabled

    def set_attn_implementation(self, attn_implementation: Any) -> None:
        """Changes the attention backend of connector and language model; the connector refuses one it does not have."""
        for module in self.connector.modules():
            if hasattr(module, "set_attn_implementation"):
                module.set_attn_implementation(attn_implementation)
        unwrap(self.language_model).set_attn_implementation(attn_implementation)


def _where_learned(loss: Tensor, labels: Tensor) -> Tensor:
    """The loss, or zero with zero gradients where there is nothing to learn: a mean over no tokens is not a number."""
    learned = (labels[:, 1:] != IGNORED).any().to(loss.device)
    return torch.where(learned, loss, torch.zeros_like(loss))
