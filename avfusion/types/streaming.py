"""Outputs of the steps of a stream."""

from typing import NamedTuple

from torch import Tensor

from avfusion._shapes import Int
from avfusion.types.tokens import Frames, LLMEmbeddings


class FinalisedFrames(NamedTuple):
    """The frames that a step of a :class:`~avfusion.FrameSynchroniser` finalised.

    Attributes:
        frames: ``(batch, frame, token, dim)``, each clip's first.
        lengths: ``(batch,)`` int64: finalised frames of each clip, including frames without real tokens.
        late: ``(batch, stream)`` int64: tokens and video frames of this step that arrived after their frame was
            finalised, and were dropped; in the order of the synchroniser's ``dims``.

    Example:
        >>> import torch
        >>> from avfusion import FrameSynchroniser
        >>> synchronise = FrameSynchroniser(visual_dim=16, stream_dims={"audio": 8})
        >>> chunk = {"visual": torch.randn(1, 3, 32, 16), "audio": torch.randn(1, 60, 8)}  # 1.5 s and 1.2 s
        >>> out, state = synchronise.step(chunk, synchronise.initial_state())
        >>> out.frames.tokens.shape, out.lengths.tolist(), out.late.tolist()
        (torch.Size([1, 2, 32, 24]), [2], [[0, 0]])
    """

    frames: Frames
    lengths: Int[Tensor, " batch"]
    late: Int[Tensor, "batch stream"]


class StreamedEmbeddings(NamedTuple):
    """The embeddings that a step returns for a language model.

    Attributes:
        finished: embeddings of the windows that this step finished, real ones first. They are final and are not
            returned again.
        partial: embeddings of each clip's last, incomplete window, if requested: one window per clip, masked if a
            window has just been finished. Together with all finished embeddings they equal the output for the clip up
            to now.
        late: ``(batch, stream)`` int64, as in :class:`FinalisedFrames`; ``(batch, 0)`` for a projector alone.

    Example:
        >>> import torch
        >>> from avfusion import CausalQFormer, Frames, SlidingWindowProjector
        >>> qformer = CausalQFormer(input_dim=24, hidden_size=16, num_heads=2, num_queries=3, tokens_per_frame=4)
        >>> projector = SlidingWindowProjector(window_encoder=qformer, window_frames=5, llm_dim=64)
        >>> frames = Frames.from_rate(torch.randn(1, 7, 4, 24), frame_rate=2.0)
        >>> out, state = projector.step(frames, projector.initial_state(), partial=True)
        >>> out.finished.spans[0, 0].tolist(), out.partial.spans[0, 0].tolist()
        ([0.0, 2.5], [2.5, 3.5])
    """

    finished: LLMEmbeddings
    partial: LLMEmbeddings | None
    late: Int[Tensor, "batch stream"]
