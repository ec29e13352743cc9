"""Counting the embeddings of clips where the model is not: in the processes of a data loader."""

import copy
from typing import Any

import torch

from avfusion.models._features import Features, can_count, count_by, layout
from avfusion.types import Video, Waveform


class PlaceholderCounter:
    """:meth:`AudioVisualLanguageModel.num_placeholders` on the CPU, whatever device the model is on.

    It holds a copy of the synchroniser, and uses the clocks of the encoders. A model whose connector is of a class of
    its own has to run to be counted, and so has an encoder without ``timeline``: then the model's own device is used.

    Args:
        model: an :class:`AudioVisualLanguageModel`.
    """

    def __init__(self, model: Any) -> None:
        self._model = None if can_count(model.connector) else model
        if self._model is None:
            self._synchroniser = copy.deepcopy(model.connector.synchroniser).cpu()
            self._projector = model.connector.projector
            self._encoders = dict(model.audio_encoders.items())

    @torch.no_grad()
    def __call__(self, video: Video | None, waveform: Waveform | None, features: Features | None = None) -> list[int]:
        """Embeddings of each clip."""
        counts: list[int]
        if self._model is not None:
            counts = self._model.num_placeholders(video=video, waveform=waveform, features=features).tolist()
            return counts
        found = layout(self._encoders, video, waveform) if features is None else features
        on_cpu = {
            name: type(value)(*(part.cpu() for part in value)) for name, value in found.items() if value is not None
        }
        counts = count_by(self._synchroniser, self._projector, on_cpu).tolist()
        return counts
