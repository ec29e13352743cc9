"""Answers of the assembled model."""

from typing import Any, Literal

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import InvalidValueError
from avfusion.models._base_rows import adapters_for
from avfusion.models._checks import check_text
from avfusion.models._features import Features
from avfusion.models._inputs import ListeningModel
from avfusion.models._wrappers import unwrap
from avfusion.models.media_batch import MediaBatch, as_media
from avfusion.models.rowwise import rowwise_options
from avfusion.types import Video, Waveform


class AnsweringModel(ListeningModel):
    """An assembly that continues text about media."""

    @torch.no_grad()
    def generate(
        self,
        input_ids: Int[Tensor, "row length"],
        attention_mask: Int[Tensor, "row length"] | None = None,
        *,
        video: Video | None = None,
        waveform: Waveform | None = None,
        features: Features | None = None,
        media: MediaBatch | None = None,
        media_index: Int[Tensor, " row"] | None = None,
        instruction: Float[Tensor, "row words instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "row words"] | None = None,
        count_prompt: bool = True,
        text_only: Literal["adapted", "base"] = "adapted",
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
            media: as for :meth:`forward`.
            media_index: as for :meth:`forward`.
            instruction: as for :meth:`forward`.
            instruction_mask: as for :meth:`forward`.
            count_prompt: let logits processors, such as a repetition penalty, see the prompt's text before the new
                tokens, as transformers does with a prompt of ids; ``False`` shows them the new tokens alone.
            text_only: whether the ``"adapted"`` model answers rows without a clip, or the ``"base"`` model, with its
                adapters switched off. A batch in which only some rows have a clip needs LoRA for ``"base"``.
            **kwargs: of transformers' ``generate``: ``max_new_tokens``, ``num_beams``, ``do_sample``, ``streamer``, ….

        Returns:
            ``(row, new)`` int64: the new tokens only; or what ``return_dict_in_generate`` asks for.

        Raises:
            PlaceholderError: a row whose placeholders are not as many as its clip's embeddings.
            InvalidValueError: padding on the right, batches that differ, media for which there is no encoder, or a
                ``max_length`` that a row has reached; ``text_only="base"`` for a mixed batch without LoRA.
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
            as_media(media, video, waveform, features),
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
        has_clip = (input_ids == self.placeholder_token_id).any(1).tolist()
        with adapters_for(llm, has_clip, text_only) as chosen:
            return llm.generate(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **chosen, **options)
