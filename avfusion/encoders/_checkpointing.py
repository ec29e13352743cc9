"""Activation checkpointing under the names that modules use for it."""

from typing import Any


def enable_checkpointing(module: Any, kwargs: dict[str, Any] | None = None, **more: Any) -> bool:
    """Enables activation checkpointing of a transformers or timm module; ``False`` if it is not supported.

    Args:
        module: any.
        kwargs: of ``torch.utils.checkpoint``.
        **more: other arguments of transformers.
    """
    if hasattr(module, "activation_checkpointing_enable"):  # transformers from 5.24 on
        module.activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs, **more)
    elif hasattr(module, "gradient_checkpointing_enable"):
        module.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs, **more)
    elif hasattr(module, "set_grad_checkpointing"):
        module.set_grad_checkpointing(True)
    else:
        return False
    return True


def disable_checkpointing(module: Any) -> None:
    """Disables activation checkpointing."""
    for name in ("activation_checkpointing_disable", "gradient_checkpointing_disable"):
        if hasattr(module, name):
            getattr(module, name)()
            return
