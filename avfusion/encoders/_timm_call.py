"""Features of timm models: of the last or another layer, tokens or feature maps."""

from inspect import signature
from operator import itemgetter
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from avfusion.encoders._patches import Patches
from avfusion.encoders._visual import output_shape
from avfusion.errors import InvalidTypeError, InvalidValueError


class TimmCall(NamedTuple):
    """A call for the features of a model's last or another layer.

    Attributes:
        layer: as ``forward_intermediates`` counts them; ``None`` for ``forward_features``.
        prefix: tokens before the patches.
        channels_last: whether the channels of a feature map come last.
        options: arguments of ``forward_intermediates``.
    """

    layer: int | None
    prefix: int
    channels_last: bool
    options: dict[str, Any]

    @classmethod
    def of(cls, model: Any, layer: int | None) -> Self:
        """The call of a model.

        Raises:
            InvalidTypeError: a model without the method.
        """
        method = "forward_features" if layer is None else "forward_intermediates"
        if not hasattr(model, method):
            raise InvalidTypeError(f"model: must be a timm model with {method}, found {type(model).__name__}")
        options: dict[str, Any] = {"intermediates_only": True, "stop_early": True, "output_fmt": "NCHW"}
        prefix: int = getattr(model, "num_prefix_tokens", 0)
        # Models that support it return a layer's prefix tokens beside its feature map.
        if layer is not None and prefix and "return_prefix_tokens" in signature(model.forward_intermediates).parameters:
            options["return_prefix_tokens"] = True
        channels_last = layer is None and getattr(model, "output_fmt", "NCHW") == "NHWC"
        return cls(layer, prefix, channels_last, options)

    def __call__(self, model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """``(image, token, dim)``, and ``(image, rows, columns, dim)`` or ``(image, token, dim)``."""
        prefix = None
        if self.layer is None:
            found = model.forward_features(pixels)
        else:
            (found,) = model.forward_intermediates(pixels, indices=[self.layer], **self.options)
            found, prefix = found if isinstance(found, tuple) else (found, None)
        if found.ndim == 4:
            patches = found if self.channels_last else found.permute(0, 2, 3, 1)
        elif found.ndim == 2:
            patches = found[:, None]
        else:
            prefix, patches = found[:, : self.prefix], found[:, self.prefix :]
        return patches.flatten(1, -2)[:, :0] if prefix is None else prefix, patches


class _Called(nn.Module):
    """A model whose ``forward`` is the call for its features."""

    def __init__(self, model: Any, call: TimmCall) -> None:
        super().__init__()
        self.model, self._call = model, call

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self._call(self.model, pixels)


def lay_patches(model: Any, call: TimmCall, size: tuple[int, int], *, keep_prefix: bool) -> tuple[Patches, int]:
    """The layout and width of a model's tokens for an image of ``size``.

    Raises:
        InvalidValueError: a layer that the model does not have.
    """
    called = _Called(model, call)
    try:
        prefix, patches = (output_shape(called, itemgetter(which), size) for which in (0, 1))
    except AssertionError as error:  # timm's own
        if call.layer is None:
            raise
        raise InvalidValueError(
            f"select_layer: must be a layer of {type(model).__name__}, found {call.layer} ({error})"
        ) from error
    number = patches[1:-1].numel()
    grid = (patches[1], patches[2]) if len(patches) == 4 else _grid_of(model, number, size)
    return Patches(prefix[1], number, grid, keep_prefix), patches[-1]


def _grid_of(model: Any, number: int, size: tuple[int, int]) -> tuple[int, int] | None:
    embed = getattr(model, "patch_embed", None)
    if embed is not None and hasattr(embed, "dynamic_feat_size"):
        rows, columns = embed.dynamic_feat_size(size)
    else:  # square patches
        rows = max(round((number * size[0] / size[1]) ** 0.5), 1)
        columns = number // rows
    return (rows, columns) if rows * columns == number else None
