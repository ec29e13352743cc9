"""Shared by all encoders: loading, freezing, and running in groups of bounded size."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from avfusion.encoders._checkpointing import enable_checkpointing
from avfusion.encoders._loading import hub_options, load_pretrained, split_options
from avfusion.errors import InvalidValueError
from avfusion.modules import is_sharded


class PretrainedEncoder(nn.Module):
    """An encoder that may be frozen.

    Args:
        group_size: clips, chunks or images that go through the model at once.
        group_name: the caller's name for ``group_size``.
        frozen: no gradients, no graph, always in evaluation mode.
    """

    # The transformers class that loads each part, by the constructor's argument.
    _parts: ClassVar[dict[str, Any]] = {}

    def __init__(self, *, group_size: int, group_name: str, frozen: bool) -> None:
        super().__init__()
        if group_size < 1:
            raise InvalidValueError(f"{group_name}: must be at least 1, found {group_size}")
        self.frozen = frozen
        self._group_size = group_size

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> Self:
        """Loads the model and its preprocessor from the hub or a directory.

        Args:
            name: name or directory of the checkpoint.
            **options: the constructor's arguments, including parts that should not be loaded; all others are passed to
                the model's ``from_pretrained`` (``dtype``, ``attn_implementation``, ``revision``, …).

        Raises:
            CheckpointError: the checkpoint lacks weights of the model, or has them in other shapes.
            InvalidValueError: an option that would run code from the hub or load a pickle.
        """
        own, options = split_options(cls, options)
        for part, source in cls._parts.items():
            if part not in own and part == "model":
                own[part] = load_pretrained(source, name, options)
            elif part not in own:
                own[part] = source.from_pretrained(name, **hub_options(options))
        return cls(**own)

    @classmethod
    def from_config(cls, config: Any, **options: Any) -> Self:
        """A new encoder with random weights, for instance one whose weights are loaded with a larger model's.

        Args:
            config: a configuration of transformers, of the model that :meth:`from_pretrained` loads.
            **options: the constructor's arguments except ``model``.
        """
        source = cls._parts["model"]
        options["model"] = source.from_config(config) if hasattr(source, "from_config") else source._from_config(config)
        return cls(**options)

    def _settle(self, model: nn.Module) -> None:
        """Ends the construction: freezes the model, or leaves its mode unchanged."""
        if self.frozen:
            self.requires_grad_(False)
        self.train(model.training)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode as ``nn.Module`` does; parts without a parameter to train stay in evaluation mode."""
        super().train(mode and not self.frozen and _learns(self))
        for child in self.children():
            child.train(self.training and _learns(child))
        return self

    @property
    def device(self) -> torch.device:
        """Device of the parameters; inputs are moved to it."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the parameters and of the tokens."""
        return next(p.dtype for p in self.parameters() if p.is_floating_point())

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Enables the model's own activation checkpointing. Only useful with ``frozen=False``.

        Args:
            activation_checkpointing_kwargs: of ``torch.utils.checkpoint``, for models of transformers.
            **kwargs: other arguments of transformers: ``every_n_layers``, ``offload``, ….
        """
        for child in self.children():
            enable_checkpointing(child, activation_checkpointing_kwargs, **kwargs)

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """:meth:`activation_checkpointing_enable`, by its older name."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **kwargs)

    def _in_groups(self, encode: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        # Without input the model still runs once, on a blank input whose output is dropped. Trained parameters then get
        # (zero) gradients and sharded ones are gathered on every rank, and the output's shape is known.
        count = len(inputs[0])
        if count == 0:
            inputs = tuple(value.new_zeros(1, *(max(size, 1) for size in value.shape[1:])) for value in inputs)
        # Hooks may ask embeddings inside the model for gradients, which a model with nothing to train has no use for.
        learns = not self.frozen and (_learns(self) or any(value.requires_grad for value in inputs))
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
            # Every process must call a sharded model equally often, whatever its number of groups.
            size = max(count, 1) if is_sharded(self) else self._group_size
            groups = zip(*(torch.split(value, size) for value in inputs), strict=True)
            return torch.cat([encode(*group) for group in groups])[:count]


def _learns(module: nn.Module) -> bool:
    """Whether a parameter takes gradients."""
    return any(parameter.requires_grad for parameter in module.parameters())
