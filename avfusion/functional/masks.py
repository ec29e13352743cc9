"""Frame-causal attention masks: a compact description, and the dense mask."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Bool
from avfusion.errors import InvalidValueError

CausalDirection = Literal["causal", "reversed"]
Padding = Literal["masked", "released"]


class FrameCausalMask(NamedTuple):
    r"""Frame-block-causal attention: tokens of a frame attend to that frame and to all frames on one side of it.

    .. math:: M_{ij} = \begin{cases} \lfloor j/S \rfloor \le \lfloor i/S \rfloor & \text{causal} \\
              \lfloor j/S \rfloor \ge \lfloor i/S \rfloor & \text{reversed} \end{cases}

    for query token :math:`i`, key token :math:`j` and :math:`S` tokens per frame (FAVOR, section 3.2).

    Attributes:
        num_frames: frames of a window.
        tokens_per_frame: tokens of a frame.
        direction: ``"causal"``, earlier frames, as published; ``"reversed"``, later frames, as in the released
            weights.
        cached_tokens: number of cached keys of earlier frames, which come first and are visible to all queries; for
            ``"causal"`` only.

    Example:
        >>> FrameCausalMask(num_frames=2, tokens_per_frame=1).dense().int().tolist()
        [[1, 0], [1, 1]]
        >>> FrameCausalMask(num_frames=2, tokens_per_frame=1, cached_tokens=1).dense().int().tolist()
        [[1, 1, 0], [1, 1, 1]]
    """

    num_frames: int
    tokens_per_frame: int
    direction: CausalDirection = "causal"
    cached_tokens: int = 0

    def dense(self, device: torch.device | str | None = None) -> Bool[Tensor, "token key"]:
        """``(query token, key token)`` bool, ``True`` = may attend; computed once per shape and device."""
        place = torch.device(device or "cpu")
        if torch.compiler.is_compiling():  # sizes may be symbols, which cannot be looked up
            return self._build(place)
        mask = _CACHE.get((self, place))
        if mask is None:
            mask = self._build(place)
            # A tracer's result is not a real tensor and must not be cached.
            if type(mask) is Tensor:
                if len(_CACHE) >= _CACHE_SIZE:
                    _CACHE.clear()
                _CACHE[self, place] = mask
        return mask

    def _build(self, device: torch.device) -> Tensor:
        check_direction(self.direction)
        # A mask computed in inference mode could not be saved for a later backward pass.
        with torch.inference_mode(False):
            frame = torch.arange(self.num_frames, device=device).repeat_interleave(self.tokens_per_frame)
            ahead = frame[:, None] - frame
            allowed = ahead >= 0 if self.direction == "causal" else ahead <= 0
            return torch.nn.functional.pad(allowed, (self.cached_tokens, 0), value=True)

    def sees_any(self, key_mask: Bool[Tensor, "window key"]) -> Bool[Tensor, "window token"]:
        """``(window, token)`` bool: the tokens that may attend to at least one real key.

        Args:
            key_mask: ``(window, key)`` bool: keys that are real, the cached ones first.

        Example:
            >>> import torch
            >>> structure = FrameCausalMask(num_frames=3, tokens_per_frame=1)
            >>> structure.sees_any(torch.tensor([[False, True, False]])).tolist()
            [[False, True, True]]
        """
        own = key_mask[:, self.cached_tokens :]
        real = own.unflatten(1, (self.num_frames, self.tokens_per_frame)).any(-1).int()
        seen = real.cummax(1).values if self.direction == "causal" else real.flip(1).cummax(1).values.flip(1)
        seen = seen.bool().repeat_interleave(self.tokens_per_frame, 1)
        return seen | key_mask[:, : self.cached_tokens].any(1, keepdim=True) if self.cached_tokens else seen


_CACHE: dict[tuple[FrameCausalMask, torch.device], Tensor] = {}
_CACHE_SIZE = 64


def seeing_queries(
    causal: FrameCausalMask | None, key_mask: Bool[Tensor, "window k"] | None
) -> Bool[Tensor, "window 1 q 1"] | None:
    """``(window, 1, q, 1)`` bool (``q`` may be 1, for all): queries that may attend to a real key; ``None``: all."""
    if key_mask is None:
        return None
    sees = key_mask.any(-1, keepdim=True) if causal is None else causal.sees_any(key_mask)
    return sees[:, None, :, None]


def let_see_something(allowed: Bool[Tensor, "*query key"]) -> Bool[Tensor, "*query key"]:
    """A mask under which no backend divides by zero: fully masked rows attend everywhere.

    Callers replace the output of those rows.
    """
    return allowed | ~allowed.any(-1, keepdim=True)


def allowed_pairs(
    causal: FrameCausalMask | None, key_mask: Bool[Tensor, "window k"] | None, device: torch.device
) -> Tensor | None:
    """The dense boolean mask, which broadcasts to ``(window, head, q, k)``; ``None``: nothing is masked."""
    # The tokens of one frame attend to each other and to all cached tokens.
    structure = None if causal is None or causal.num_frames == 1 else causal.dense(device)
    if key_mask is None:
        return structure
    allowed = key_mask[:, None, None, :]
    return let_see_something(allowed if structure is None else allowed & structure)


def check_direction(direction: str) -> None:
    """Raises :class:`~avfusion.InvalidValueError` unless ``direction`` is ``"causal"`` or ``"reversed"``."""
    if direction not in ("causal", "reversed"):
        raise InvalidValueError(f'causal_direction: must be "causal", "reversed" or None, found {direction!r}')


def check_padding(padding: str) -> None:
    """Raises :class:`~avfusion.InvalidValueError` unless ``padding`` is ``"masked"`` or ``"released"``."""
    if padding not in ("masked", "released"):
        raise InvalidValueError(f'padding: must be "masked" or "released", found {padding!r}')
