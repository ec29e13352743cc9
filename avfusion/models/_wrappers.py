"""What a language model is wrapped in: compilation, parallelism, adapters."""

import inspect
from typing import Any

from torch import nn

_ANYTHING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def is_peft(model: nn.Module) -> bool:
    """Whether ``model`` is one of peft's, without importing it."""
    return any(kind.__module__.startswith("peft.") and kind.__name__ == "PeftModel" for kind in type(model).__mro__)


def unwrap(model: Any) -> Any:
    """The transformers or peft model inside whatever wraps its ``forward``.

    Looks through ``torch.compile``, DDP and modules that pass everything on to a single child.
    """
    while True:
        inner = _inner(model)
        if inner is None:
            return model
        model = inner


def base_model(model: Any) -> Any:
    """The transformers model inside every wrapper, adapters included."""
    model = unwrap(model)
    return unwrap(model.get_base_model()) if is_peft(model) else model


def takes(model: Any, name: str) -> bool:
    """Whether the ``forward`` of the transformers model has a parameter of this name."""
    base = base_model(model)
    # A forward that was replaced on the instance may hide its parameters; the class still names them.
    return any(name in inspect.signature(forward).parameters for forward in (base.forward, type(base).forward))


def embedding_dim(model: Any) -> int:
    """Width of the language model's input embeddings."""
    table = unwrap(model).get_input_embeddings()
    if hasattr(table, "embedding_dim"):
        return int(table.embedding_dim)
    return int(table.weight.shape[-1])  # an adapter's wrapper of the table


def vocabulary(model: Any) -> int:
    """Rows of the table of input embeddings."""
    table = unwrap(model).get_input_embeddings()
    return int(table.num_embeddings if hasattr(table, "num_embeddings") else table.weight.shape[0])


def _inner(model: Any) -> Any:
    compiled = getattr(model, "_orig_mod", None)
    if isinstance(compiled, nn.Module):
        return compiled
    wrapped = getattr(model, "module", None)
    if isinstance(wrapped, nn.Module) and not hasattr(model, "get_input_embeddings"):
        return wrapped
    children = list(model.children())
    if len(children) == 1 and not is_peft(model) and not hasattr(model, "generation_config"):
        parameters = inspect.signature(type(model).forward).parameters
        if all(value.kind in _ANYTHING for name, value in parameters.items() if name != "self"):
            return children[0]
    return None
