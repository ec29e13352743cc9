"""What all encoders share: being frozen, running in groups of bounded size, and loading without surprises."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from avfusion.errors import CheckpointError, InvalidTypeError, InvalidValueError
from avfusion.types import Waveform


class PretrainedEncoder(nn.Module):
    """A tower that may be frozen.

    Args:
        group_size: clips, chunks or pictures that go through the model at once.
        group_name: what the caller calls ``group_size``.
        frozen: no gradients, no graph, always in evaluation mode.
    """

    def __init__(self, *, group_size: int, group_name: str, frozen: bool) -> None:
        super().__init__()
        if group_size < 1:
            raise InvalidValueError(f"{group_name}: must be at least 1, found {group_size}")
        self.frozen = frozen
        self._group_size = group_size

    def _settle(self, model: nn.Module) -> None:
        """Ends the construction: keeps the mode the model came in, or freezes it."""
        if self.frozen:
            self.requires_grad_(False)
        self.train(model.training)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode as ``nn.Module`` does; a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    @property
    def device(self) -> torch.device:
        """Where the parameters are: inputs are moved there."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the parameters: that of the tokens."""
        return next(p.dtype for p in self.parameters() if p.is_floating_point())

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Recomputes activations in the backward pass, by the model's own means. Only of use with ``frozen=False``."""
        child: Any
        for child in self.children():
            if hasattr(child, "gradient_checkpointing_enable"):
                child.gradient_checkpointing_enable(gradient_checkpointing_kwargs)
            elif hasattr(child, "set_grad_checkpointing"):
                child.set_grad_checkpointing(True)

    def _in_groups(self, encode: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        # With nothing to encode the model still runs once, on a blank of which nothing is kept: trained parameters get
        # (zero) gradients on every rank and sharded ones are gathered on every rank, and the output's shape is known.
        count = len(inputs[0])
        if count == 0:
            inputs = tuple(value.new_zeros(1, *(max(size, 1) for size in value.shape[1:])) for value in inputs)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            groups = zip(*(torch.split(value, self._group_size) for value in inputs), strict=True)
            return torch.cat([encode(*group) for group in groups])[:count]


def place(values: Tensor, mask: Tensor) -> Tensor:
    """Puts ``values`` ``(real, ...)`` where ``mask`` ``(batch, place)`` is true, and zeros elsewhere."""
    if bool(mask.all()):
        return values.reshape(*mask.shape, *values.shape[1:])
    places = values.new_zeros(*mask.shape, *values.shape[1:])
    places[mask] = values
    return places


def check_waveform(waveform: Waveform, sample_rate: int | None = None) -> None:
    """Refuses what no audio encoder takes; with ``None``, of any rate."""
    if not isinstance(waveform, Waveform):
        raise InvalidTypeError(f"waveform: must be an avfusion.Waveform, found {type(waveform).__name__}")
    if sample_rate not in (None, waveform.sample_rate):
        raise InvalidValueError(
            f"waveform.sample_rate: must be {sample_rate}, which the encoder was made for; "
            f"found {waveform.sample_rate}: resample the sound first"
        )
    if bool((waveform.mask[:, 1:] & ~waveform.mask[:, :-1]).any()):
        raise InvalidValueError("waveform.mask: real samples must come first, found padding before or among them")


_HUB = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
# Heads and training-time tokens that the encoders never use, and that published checkpoints therefore often lack.
_UNUSED = ("pooler", "masked_spec_embed", "mask_token", "vision_model.head.")


def hub_options(options: dict[str, Any]) -> dict[str, Any]:
    """The part of ``from_pretrained`` options that says where files come from."""
    return {name: options[name] for name in _HUB if name in options}


def load_pretrained(cls: Any, name: str, options: dict[str, Any]) -> Any:
    """``cls.from_pretrained`` with safetensors and without remote code; missing weights are an error, not noise.

    Raises:
        CheckpointError: the checkpoint lacks weights of the model, or holds them in other shapes.
        InvalidValueError: an option that would run code from the hub or load a pickle.
    """
    for option, allowed in (("trust_remote_code", False), ("use_safetensors", True)):
        if options.get(option, allowed) is not allowed:
            raise InvalidValueError(f"{option}: must be {allowed}, found {options[option]}")
    options = {key: value for key, value in options.items() if key != "trust_remote_code"}
    model, info = cls.from_pretrained(name, **{**options, "use_safetensors": True, "output_loading_info": True})
    missing = sorted(key for key in info["missing_keys"] if not any(part in key for part in _UNUSED))
    if missing:
        shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise CheckpointError(
            f"{name}: must hold the weights of {type(model).__name__}; it lacks {len(missing)}: {shown}"
        )
    return model
