"""The scale of embeddings: a new connector's should be that of the language model's words."""

from typing import Any

import torch
from torch import nn

from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.models._wrappers import base_model
from avfusion.modules import is_sharded

_SAMPLED = 4096


@torch.no_grad()
def embedding_norm(language_model: Any) -> float:
    """Median L2 norm of a language model's token embeddings, as its first layer receives them.

    Args:
        language_model: a causal language model of transformers, possibly with adapters or wrapped. Of large
            vocabularies, 4,096 evenly spaced tokens are used.

    Raises:
        InvalidValueError: the embeddings have no values here (meta or sharded tensors).

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from avfusion.models import embedding_norm
        >>> sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> norm = embedding_norm(LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes)))
        >>> 0.05 < norm < 0.11  # 16 values of standard deviation 0.02
        True
    """
    embed = base_model(language_model).get_input_embeddings()
    _check_values("language_model", embed)
    count = embed.weight.shape[0]
    ids = torch.arange(0, count, max(1, count // _SAMPLED), device=embed.weight.device)
    return float(embed(ids).float().norm(dim=-1).median())  # called, because some models scale what they look up


@torch.no_grad()
def match_scale(connector: Any, norm: float) -> None:
    r"""Scales a new connector's output projection in place, so that its embeddings have a given L2 norm.

    For query states :math:`s` of unit variance, as a final LayerNorm gives them, the projection :math:`W s + b` has the
    expected squared norm

    .. math:: \lVert W \rVert_F^2 + \lVert b \rVert^2

    Else training has to shrink the embeddings of a new connector to the scale of words first.

    Args:
        connector: an :class:`~avfusion.AudioVisualConnector`, or a projector with an output projection ``proj``, whose
            window encoder ends in a LayerNorm.
        norm: such as :func:`embedding_norm` returns.

    Raises:
        InvalidTypeError: ``connector`` has no output projection.
        InvalidValueError: ``norm`` is not positive, or the projection is zero or has no values here (meta or sharded
            tensors).

    Example:
        >>> import torch
        >>> from avfusion import AudioVisualConnector
        >>> from avfusion.models import match_scale
        >>> connector = AudioVisualConnector.from_dims(visual=32, llm=64, hidden_size=64).eval()
        >>> match_scale(connector, norm=3.0)
        >>> norms = connector(visual=torch.randn(1, 40, 8, 32)).embeddings.norm(dim=-1)
        >>> 2.0 < norms.mean().item() < 4.0
        True
    """
    projection = getattr(getattr(connector, "projector", connector), "proj", None)
    if not isinstance(projection, nn.Linear):
        raise InvalidTypeError(
            f"connector: must have an output projection to scale, found {type(connector).__name__} without"
        )
    if not 0 < norm < float("inf"):
        raise InvalidValueError(f"norm: must be positive and finite, found {norm}")
    _check_values("connector", projection)
    squares = sum(parameter.double().square().sum() for parameter in projection.parameters())
    found = float(torch.as_tensor(squares)) ** 0.5
    if found == 0:
        raise InvalidValueError("connector: its output projection must not be zero")
    for parameter in projection.parameters():
        parameter.mul_(norm / found)


def _check_values(name: str, module: nn.Module) -> None:
    if is_sharded(module) or any(parameter.is_meta for parameter in module.parameters()):
        raise InvalidValueError(f"{name}: must have its values here to be scaled, found meta or sharded tensors")
