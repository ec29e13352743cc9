"""From media and text to what the language model reads."""

from typing import Any

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import InvalidValueError
from avfusion.models._checks import check_adapters
from avfusion.models._embedding import look_up
from avfusion.models._features import (
    VISUAL,
    Features,
    can_count,
    count_positions,
    empty_features,
    layout,
    no_embeddings,
    num_clips,
    place,
    runs_without_clips,
    take_clips,
)
from avfusion.models._training import TrainedModel
from avfusion.models.media_batch import MediaBatch
from avfusion.models.merge import check_index, merge_embeddings, select_clips
from avfusion.types import Frames, LLMEmbeddings, TokenStream, Video, Waveform


class ListeningModel(TrainedModel):
    """An assembly that puts embeddings of media into text."""

    def encode(self, video: Video | None = None, waveform: Waveform | None = None) -> dict[str, Frames | TokenStream]:
        """The encoders' tokens of a batch of clips, which may be kept and given as ``features`` later.

        Args:
            video: ``clip`` clips.
            waveform: the same clips' audio. A clip without a modality has it masked; a modality that no clip has is
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
            waveform: the same clips' audio.
            features: what :meth:`encode` gave for them, instead.

        Returns:
            ``(clip,)`` int64 on the CPU; 0 for a clip without media.

        Raises:
            InvalidValueError: no media at all, or both media and features.
            AlignmentError: audio that the connector cannot place.
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
            InvalidValueError: a table that is trained and sharded with a language model that is sharded by itself.
        """
        table = self.get_input_embeddings()
        if embeddings is None:
            return look_up(table, input_ids)
        text = look_up(table, input_ids.masked_fill(input_ids == self.placeholder_token_id, 0))
        return merge_embeddings(input_ids, text, embeddings, self.placeholder_token_id)

    def _inputs(
        self,
        input_ids: Tensor,
        media: MediaBatch,
        media_index: Tensor | None,
        cache: Any = None,
        **guide: Any,
    ) -> tuple[Tensor, LLMEmbeddings | None]:
        """The language model's input, and the connector's output."""
        check_adapters(self.language_model)
        features: Features = self.encode(media.video, media.waveform) if media.features is None else media.features
        rows, clips = input_ids.shape[0], num_clips(features)
        if clips is None and cache is not None:
            return self.embed(input_ids), None  # text that goes on from a cache
        if media_index is not None:
            check_index(media_index, clips or 0, rows)
        elif clips not in (None, rows):
            raise InvalidValueError(f"media_index: must be given for {clips} clips and {rows} rows, found None")
        if clips is None and not runs_without_clips(self.connector):
            return self.embed(input_ids, no_embeddings(rows, self.connector.llm_dim)), None
        if clips is None or media_index is None:
            embeddings = self.connect(features, batch=rows, **guide)
            return self.embed(input_ids, embeddings), embeddings
        if guide["instruction"] is not None:  # each row sees its clip in another light
            embeddings = self.connect(take_clips(features, media_index), **guide)
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
