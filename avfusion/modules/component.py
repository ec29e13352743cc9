"""What every component shares: saving, loading and sharing, through huggingface_hub's mixin."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import nn

from avfusion.errors import CheckpointError
from avfusion.files import write_whole
from avfusion.files.arguments import misfits
from avfusion.files.configuration import check_layers, read_config
from avfusion.files.weights import assign_weights, check_fit, read_weights, save_weights

_HUB_MISSING = "Saving and loading components needs huggingface_hub: pip install 'avfusion[hf]'"

if TYPE_CHECKING:
    from huggingface_hub import PyTorchModelHubMixin
else:
    try:
        from huggingface_hub import PyTorchModelHubMixin
    except ImportError:  # the core needs torch and einops alone

        class PyTorchModelHubMixin:
            """Stands in where huggingface_hub is not installed."""

            def __init_subclass__(cls, **kwargs: Any) -> None:
                super().__init_subclass__()

            def _missing(*args: Any, **kwargs: Any) -> Any:
                raise ImportError(_HUB_MISSING)

            save_pretrained = push_to_hub = _missing


_CONFIG, _WEIGHTS, _CLASS = "config.json", "model.safetensors", "avfusion_class"
_LAYERS = 128  # as many are built before they are compared with the weights


class _Unbuilt:
    """A submodule of a foreign class, named in a config: its weights are saved, but only its owner can build it."""

    def __init__(self, name: str) -> None:
        self.name = name


def _encode(module: nn.Module) -> dict[str, Any]:
    if isinstance(module, Component):
        return {_CLASS: type(module).__name__, **module.config}
    return {_CLASS: None, "name": f"{type(module).__module__}.{type(module).__qualname__}"}


def _decode(value: Any) -> Any:
    if not (isinstance(value, dict) and _CLASS in value):
        return value
    config = dict(value)
    name = config.pop(_CLASS)
    if name is None:
        return _Unbuilt(str(config.get("name")))
    if not isinstance(name, str) or name not in Component.registry:
        raise CheckpointError(f"{_CLASS}: must be one of {sorted(Component.registry)}, found {name!r:.80}")
    return Component.registry[name].from_config(config)


class Component(nn.Module, PyTorchModelHubMixin):
    """An ``nn.Module`` with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.

    A directory holds ``model.safetensors`` and ``config.json``, the constructor's arguments. Injected
    components are kept in the configuration too; a module of your own class is saved with its weights, and given again
    to ``from_pretrained(directory, window_encoder=...)``.

    Example:
        >>> import tempfile, torch
        >>> from avfusion.modules import Component
        >>> class Gate(Component):
        ...     def __init__(self, *, dim: int = 8) -> None:
        ...         super().__init__()
        ...         self.weight = torch.nn.Parameter(torch.zeros(dim))
        >>> directory = tempfile.mkdtemp()
        >>> Gate(dim=3).save_pretrained(directory)
        >>> Gate.from_pretrained(directory).config
        {'dim': 3}
    """

    registry: ClassVar[dict[str, type["Component"]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(
            library_name="avfusion",
            license="apache-2.0",
            repo_url="https://github.com/avfusion/avfusion",
            coders={nn.Module: (_encode, _decode)},
            **kwargs,
        )
        Component.registry[cls.__name__] = cls

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as written to ``config.json``."""
        return dict(getattr(self, "_hub_mixin_config", None) or {})

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Builds a component from :attr:`config`, with new weights.

        Args:
            config: the constructor's arguments; submodules as they are, or as configurations.

        Raises:
            CheckpointError: arguments that this class does not take, or a submodule that only its owner can build.
        """
        known = set(inspect.signature(cls).parameters)
        unknown = sorted(set(config) - known)
        if unknown:
            raise CheckpointError(f"{cls.__name__}: unknown arguments {unknown}, known are {sorted(known)}")
        arguments = {name: _decode(value) for name, value in config.items()}
        for name, value in arguments.items():
            if isinstance(value, _Unbuilt):
                raise CheckpointError(
                    f"{name}: {cls.__name__} was saved with a {value.name}, which only you can build; "
                    f"pass {name}=... to from_pretrained"
                )
        wrong = list(misfits(cls, arguments))
        if wrong:
            raise CheckpointError(f"{cls.__name__}: cannot be built from its configuration: {'; '.join(wrong)}")
        try:
            return cls(**arguments)
        except CheckpointError:
            raise
        except Exception as error:
            reason = (str(error) or type(error).__name__).partition("\n")[0]
            raise CheckpointError(f"{cls.__name__}: cannot be built from its configuration: {reason}") from error

    def _save_pretrained(self, save_directory: Path) -> None:
        save_weights(self, save_directory / _WEIGHTS)
        config = {_CLASS: type(self).__name__, **self.config}
        write_whole(save_directory / _CONFIG, json.dumps(config, indent=2) + "\n")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        map_location: str = "cpu",
        **arguments: Any,
    ) -> Self:
        """Builds and loads what ``save_pretrained`` wrote, in evaluation mode and in the dtype it was saved in.

        Args:
            pretrained_model_name_or_path: a directory, or a name on the Hugging Face Hub.
            force_download: download again what is already there.
            token: of the Hub.
            cache_dir: where downloads go.
            local_files_only: never ask the Hub.
            revision: branch, tag or commit on the Hub.
            map_location: device to load to.
            **arguments: replace the constructor's saved arguments; modules of your own classes are given here.

        Raises:
            CheckpointError: a file that is missing, broken or not this component's; the message names what differs.
        """
        try:
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import HFValidationError, RemoteEntryNotFoundError
        except ImportError:
            raise ImportError(_HUB_MISSING) from None

        def find(name: str) -> Path:
            if Path(pretrained_model_name_or_path).is_dir():
                return Path(pretrained_model_name_or_path, name)
            try:
                return Path(
                    hf_hub_download(
                        repo_id=str(pretrained_model_name_or_path),
                        filename=name,
                        revision=revision,
                        cache_dir=cache_dir,
                        force_download=force_download,
                        token=token,
                        local_files_only=local_files_only,
                    )
                )
            except (HFValidationError, RemoteEntryNotFoundError) as error:
                raise CheckpointError(f"{pretrained_model_name_or_path}: holds no {name} ({error})") from error

        config_file, weights_file = find(_CONFIG), find(_WEIGHTS)
        config = read_config(config_file, _CLASS, cls.__name__)
        tensors = read_weights(weights_file, map_location)
        check_layers(config, max(_LAYERS, len(tensors)), str(config_file))
        with torch.device("meta"):  # sizes that a file claims are compared before there is memory for them
            claimed = cls.from_config({**config, **arguments})
        check_fit(claimed, tensors, str(weights_file))
        component = cls.from_config({**config, **arguments})
        assign_weights(component, tensors, str(weights_file))
        return component.to(map_location).eval()
