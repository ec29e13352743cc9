"""Rendered prompts and loaded clips to what a model takes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import BatchFeature

from avfusion.errors import InvalidValueError
from avfusion.models.clips import Clip, kept_features
from avfusion.models.counting import PlaceholderCounter
from avfusion.models.feature_batches import collate_features
from avfusion.models.media_batch import MediaBatch
from avfusion.models.prompts import prepare_inputs


class ClipPreparing:
    """What of a processor counts embeddings and makes batches."""

    tokenizer: Any
    placeholder: str
    _counter: PlaceholderCounter | None

    def prepare(
        self,
        prompts: Sequence[Sequence[str]],
        clips: Sequence[Clip],
        media_index: Sequence[int],
        *,
        answers: Sequence[Sequence[str]] | None = None,
        end: str | None = None,
        return_labels: bool = False,
        padding_side: str = "left",
        add_special_tokens: bool = True,
    ) -> BatchFeature:
        """Rendered prompts and loaded clips to the model's inputs; see :meth:`apply_chat_template` for the usual way.

        Args:
            prompts: the prompts of each row, between which its answers stand.
            clips: what was read.
            media_index: clip of each row, -1 for none.
            answers: what was answered to the prompts of each row.
            end: the token that closes each answer; the tokenizer's end token without it.
            return_labels: labels for the answers.
            padding_side: ``"left"`` for generation.
            add_special_tokens: let the tokenizer begin each row with its special tokens.
        """
        data, counts = self.encode_media(clips)
        inputs = prepare_inputs(
            self.tokenizer,
            prompts,
            [counts[clip] if clip >= 0 else 0 for clip in media_index],
            answers=[[] for _ in prompts] if answers is None else answers,
            placeholder=self.placeholder,
            padding_side="left" if padding_side == "left" else "right",
            add_special_tokens=add_special_tokens,
            end=end,
        )
        if not return_labels:
            del inputs["labels"]
        if clips and list(media_index) != list(range(len(clips))):
            inputs["media_index"] = torch.tensor(media_index)
        return BatchFeature({**inputs, **data})

    def encode_media(self, clips: Sequence[Clip]) -> tuple[dict[str, Any], list[int]]:
        """What the model takes for clips, by name, and how many embeddings it will give for each.

        Raises:
            InvalidValueError: features for some clips only, or a processor that does not know its model.
        """
        if not clips:
            return {}, []
        features = kept_features(clips)
        return self.encode_features(features) if features else self.encode_clips(clips)

    def encode_features(self, features: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[int]]:
        """:meth:`encode_media` of clips whose features were kept."""
        media = MediaBatch(features=collate_features(features))
        return {"media": media}, self._count(media)

    def encode_clips(self, clips: Sequence[Clip]) -> tuple[dict[str, Any], list[int]]:
        """:meth:`encode_media` of clips without features."""
        from avfusion.media import Media, collate_media  # needs PyAV

        media = MediaBatch(*collate_media([Media(clip.video, clip.waveform, 0.0) for clip in clips]))
        return {"media": media}, self._count(media)

    def _count(self, media: MediaBatch) -> list[int]:
        if self._counter is None:
            raise InvalidValueError("processor: must know the model whose embeddings it counts, call with_model(model)")
        return self._counter(media.video, media.waveform, media.features)
