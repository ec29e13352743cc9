"""What the steps of a stream give."""

from typing import NamedTuple

from torch import Tensor

from avfusion._shapes import Int
from avfusion.types.tokens import Frames, LLMEmbeddings


class ClosedFrames(NamedTuple):
    """The frames that a step of a :class:`~avfusion.FrameSynchroniser` closed.

    Attributes:
        frames: ``(batch, frame, token, dim)``, each clip's first.
        lengths: ``(batch,)`` int64: closed frames of each clip, those in which nothing is real included.
        late: ``(batch, stream)`` int64: tokens and pictures of this step that came after their frame was closed, and
            were left out; in the order of the synchroniser's ``dims``.
    """

    frames: Frames
    lengths: Int[Tensor, " batch"]
    late: Int[Tensor, "batch stream"]


class StreamedEmbeddings(NamedTuple):
    """What a step gives a language model.

    Attributes:
        finished: the embeddings of the windows that this step finished, each clip's first: never given again, and never
            to change.
        unfinished: the embeddings of each clip's last window as it stands, if asked for: one window a clip, masked
            where a window has just been finished. With all that was finished before, they are what the clip gives when
            it is cut there.
        late: ``(batch, stream)`` int64, as in :class:`ClosedFrames`; ``(batch, 0)`` from a projector alone.
    """

    finished: LLMEmbeddings
    unfinished: LLMEmbeddings | None
    late: Int[Tensor, "batch stream"]
