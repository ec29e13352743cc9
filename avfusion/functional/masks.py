"""Which token may attend to which, described before it is spelled out."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Bool
from avfusion.errors import InvalidValueError

CausalDirection = Literal["causal", "reversed"]
Padding = Literal["masked", "released"]


class FrameCausalMask(NamedTuple):
    r"""Frame-block-causal attention: tokens of a frame see each other and every frame on one side of it.

    .. math:: M_{ij} = \begin{cases} \lfloor j/S \rfloor \le \lfloor i/S \rfloor & \text{causal} \\
              \lfloor j/S \rfloor \ge \lfloor i/S \rfloor & \text{reversed} \end{cases}

    for query token :math:`i`, key token :math:`j` and :math:`S` tokens a frame (FAVOR, section 3.2).

    Attributes:
        num_frames: frames of a window.
        tokens_per_frame: tokens of a frame.
        direction: ``"causal"``, earlier frames, as published; ``"reversed"``, later frames, as in the released
            weights.

    Example:
        >>> FrameCausalMask(num_frames=2, tokens_per_frame=1).dense().int().tolist()
        [[1, 0], [1, 1]]
    """

    num_frames: int
    tokens_per_frame: int
    direction: CausalDirection = "causal"

    def dense(self, device: torch.device | str | None = None) -> Bool[Tensor, "token token"]:
        """``(query token, key token)`` bool, ``True`` = may attend; built once for each shape and device."""
        place = torch.device(device or "cpu")
        if torch.compiler.is_compiling():  # sizes may be symbols, which cannot be looked up
            return self._build(place)
        mask = _CACHE.get((self, place))
        if mask is None:
            mask = self._build(place)
            # What a tracer makes stands for a tensor and must not outlive its trace.
            if type(mask) is Tensor:
                if len(_CACHE) >= _CACHE_SIZE:
                    _CACHE.clear()
                _CACHE[self, place] = mask
        return mask

    def _build(self, device: torch.device) -> Tensor:
        check_direction(self.direction)
        # A mask made under inference mode could not be saved for a later backward pass.
        with torch.inference_mode(False):
            frame = torch.arange(self.num_frames, device=device).repeat_interleave(self.tokens_per_frame)
            ahead = frame[:, None] - frame
            return ahead >= 0 if self.direction == "causal" else ahead <= 0


_CACHE: dict[tuple[FrameCausalMask, torch.device], Tensor] = {}
_CACHE_SIZE = 64


def check_direction(direction: str) -> None:
    """Raises :class:`~avfusion.InvalidValueError` unless ``direction`` is ``"causal"`` or ``"reversed"``."""
    if direction not in ("causal", "reversed"):
        raise InvalidValueError(f'causal_direction: must be "causal", "reversed" or None, found {direction!r}')


def check_padding(padding: str) -> None:
    """Raises :class:`~avfusion.InvalidValueError` unless ``padding`` is ``"masked"`` or ``"released"``."""
    if padding not in ("masked", "released"):
        raise InvalidValueError(f'padding: must be "masked" or "released", found {padding!r}')
