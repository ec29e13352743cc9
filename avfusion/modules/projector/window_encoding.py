"""Encoding of whole windows, shared by clips and streams."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from avfusion._shapes import Float
from avfusion.functional.host import to_device
from avfusion.functional.packing import HostFrames
from avfusion.functional.window_batches import WindowRows, window_batches
from avfusion.functional.windows import WindowLayout
from avfusion.modules.projector.computed_windows import ComputedWindows
from avfusion.modules.projector.frame_buffer import FrameBuffer
from avfusion.modules.projector.offers import Offers, encode_windows
from avfusion.types import Frames


def is_sharded(*modules: nn.Module | None) -> bool:
    """Whether FSDP2 or ZeRO-3 splits parameters of any of them: then every process must call them equally often.

    Example:
        >>> import torch
        >>> from avfusion.modules import is_sharded
        >>> is_sharded(torch.nn.Linear(2, 2), None)
        False
    """
    # By hand, because Module.parameters(), which looks for names and repetitions, takes as long as some kernels do.
    left = [module for module in modules if module is not None]
    while left:
        module = left.pop()
        for parameter in module._parameters.values():
            # A DTensor, whose type is slow to import, and DeepSpeed's mark.
            if parameter is not None and (hasattr(type(parameter), "device_mesh") or "ds_id" in parameter.__dict__):
                return True
        left += [child for child in module._modules.values() if child is not None]
    return False


class WindowEncoding(NamedTuple):
    """A window encoder, the map of its states, and how they are called.

    Attributes:
        encoder: the window encoder.
        proj: from its states to the language model's width.
        offers: what the encoder offers.
        window_frames: frames a window.
        stride_frames: frames from one window's start to the next's.
        chunk_windows: windows that are encoded at once; as many as are fastest without it.
        checkpoint_chunks: in training, keep only each chunk's inputs.
        fixed_shape: all chunks have one shape except for the number of windows, for compiled code.
        windows_vary: the number of windows is dynamic in compiled code.
        instruction: the arguments of an instruction to each clip, as :func:`instruction_arguments` gives them.
    """

    encoder: Any
    proj: nn.Module
    offers: Offers
    window_frames: int
    stride_frames: int
    chunk_windows: int | None
    checkpoint_chunks: bool
    fixed_shape: bool
    windows_vary: bool
    instruction: dict[str, Tensor]

    def conditioning(self, clips: Tensor) -> dict[str, Tensor]:
        """The instruction of each window's clip ``(window,)``."""
        return {name: value[to_device(clips, value.device)] for name, value in self.instruction.items()}

    def encode(
        self, tokens: Tensor, mask: Tensor | None, conditioning: dict[str, Tensor], frame_index: Tensor | None = None
    ) -> Float[Tensor, "window query hidden"]:
        """The window encoder's states of windows ``(window, frame, token, dim)``, or of windows of shared frames."""
        return encode_windows(self.encoder, self.offers, tokens, mask, frame_index, **conditioning)

    def encode_real(
        self, frames: Frames, host: HostFrames, layout: WindowLayout, clips: Tensor
    ) -> tuple[Tensor, Tensor]:
        """States and embeddings of every window of clips ``(batch,)``, of which only the real ones are computed.

        Args:
            frames: of the clips.
            host: the same frames on the CPU.
            layout: their windows, on the CPU.
            clips: ``(batch,)`` int64, on the CPU: rows of the instruction.
        """
        total, count = layout.mask[..., 0].numel(), layout.mask.shape[1]
        states, embeddings = WindowRows(total), WindowRows(total)
        for batch in window_batches(
            frames,
            host,
            layout,
            multiple=self.encoder.frame_multiple if self.offers.short_windows else self.window_frames,
            chunk_windows=self.chunk_windows,
            share_frames=(
                self.stride_frames < self.window_frames and self.offers.shared_frames and not self.fixed_shape
            ),
            fixed_shape=self.fixed_shape,
        ):
            conditioning = self.conditioning(clips[batch.windows // max(count, 1)])
            if self.windows_vary and len(batch.windows) > 1:
                for value in (batch.tokens, batch.mask, *conditioning.values()):
                    torch._dynamo.maybe_mark_dynamic(value, 0)
            arguments = (batch.tokens, batch.mask, conditioning, batch.frame_index)
            if self.checkpoint_chunks and torch.is_grad_enabled():
                encoded = checkpoint(self.encode, *arguments, use_reentrant=False)
            else:
                encoded = self.encode(*arguments)
            states.put(batch.windows, encoded)
            embeddings.put(batch.windows, self.proj(encoded))
        return states.collect(), embeddings.collect()

    def encode_full(self, wanted: Sequence[range], ends: Sequence[int], buffer: FrameBuffer) -> list[ComputedWindows]:
        """A stream's windows without cached state, encoded from scratch.

        Args:
            wanted: numbers of the windows of each clip.
            ends: frames of each clip up to the last real one.
            buffer: their frames.
        """
        clips = [clip for clip, windows in enumerate(wanted) if windows]
        if not clips:
            return []
        numbers = []
        for windows, end in ((wanted[clip], ends[clip]) for clip in clips):
            stop = min(end, windows[-1] * self.stride_frames + self.window_frames)
            numbers.append(range(windows.start * self.stride_frames, stop))
        frames = Frames(*buffer.gather(clips, numbers))
        most = max(len(wanted[clip]) for clip in clips)
        lacking = (most - 1) * self.stride_frames + 1 - frames.tokens.shape[1]
        if lacking > 0:
            frames = Frames(*(nn.functional.pad(value, (0, 0) * (value.ndim - 2) + (0, lacking)) for value in frames))
        counts = torch.tensor([len(wanted[clip]) for clip in clips], device="cpu")
        host = HostFrames.of(frames)
        layout = host.windows(self.window_frames, self.stride_frames, wanted=counts)
        states, embeddings = self.encode_real(frames, host, layout, torch.tensor(clips, device="cpu"))
        total = layout.mask.shape[1]
        chosen = [[*wanted[clip], *[-1] * (total - len(wanted[clip]))] for clip in clips]  # -1: of no clip
        return [
            ComputedWindows(
                [clip for clip in clips for _ in range(total)],
                [window for windows in chosen for window in windows],
                states,
                embeddings,
                to_device(layout.spans.flatten(0, 1), host.device),
                to_device(layout.mask.any(-1).flatten(), host.device),
            )
        ]
