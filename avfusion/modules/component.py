"""What every component shares: saving, loading and sharing, through huggingface_hub's mixin."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor, nn

from avfusion.errors import CheckpointError

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
                raise ImportError("Saving and loading components needs huggingface_hub: pip install 'avfusion[hf]'")

            save_pretrained = push_to_hub = _missing
            from_pretrained = classmethod(_missing)


_CONFIG, _WEIGHTS, _CLASS = "config.json", "model.safetensors", "avfusion_class"


class _Unbuilt:
    """A submodule of a foreign class, named in a config: its weights are saved, but only its owner can build it."""

    def __init__(self, name: str) -> None:
        self.name = name


def _encode(module: nn.Module) -> dict[str, Any]:
    if isinstance(module, Component):
        return {_CLASS: type(module).__name__, **module.config}
    return {_CLASS: None, "name": f"{type(module).__module__}.{type(module).__qualname__}"}


def _decode(config: dict[str, Any]) -> "Component | _Unbuilt":
    config = dict(config)
    name = config.pop(_CLASS, None)
    if name is None:
        return _Unbuilt(config["name"])
    if name not in Component.registry:
        raise CheckpointError(f"{_CLASS}: must be one of {sorted(Component.registry)}, found {name!r}")
    return Component.registry[name].from_config(config)


class Component(nn.Module, PyTorchModelHubMixin):
    """An ``nn.Module`` with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.

    A directory holds ``model.safetensors`` and ``config.json``, the constructor's arguments. Injected
    components are kept in the configuration too; a module of your own class is saved with its weights, and given again to
    ``from_pretrained(directory, window_encoder=...)``.
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
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Builds a component from :attr:`config`, with new weights."""
        known = cls._hub_mixin_init_parameters
        unknown = sorted(set(config) - set(known))
        if unknown:
            raise CheckpointError(f"{cls.__name__}: unknown configuration {unknown}, known are {sorted(known)[1:]}")
        built = {name: cls._decode_arg(known[name].annotation, value) for name, value in config.items()}
        return cls(**cls._require_built(built))

    @classmethod
    def _require_built(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name, value in arguments.items():
            if isinstance(value, _Unbuilt):
                raise CheckpointError(
                    f"{name}: {cls.__name__} was saved with a {value.name}, which only you can build; "
                    f"pass {name}=... to from_pretrained"
                )
        return arguments

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        config = {_CLASS: type(self).__name__, **self.config}
        (save_directory / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        config: dict[str, Any] | None = None,
        map_location: str = "cpu",
        **arguments: Any,
    ) -> Self:
        if config is None:
            raise CheckpointError(f"{model_id}: holds no {_CONFIG}; save a component with save_pretrained")
        found = config.get(_CLASS)
        if found != cls.__name__:
            raise CheckpointError(f"{model_id}: {_CONFIG} must describe a {cls.__name__}, found {found!r}")
        unknown = sorted(set(config) - {_CLASS} - set(cls._hub_mixin_init_parameters))
        if unknown:
            raise CheckpointError(f"{model_id}: {_CONFIG} holds arguments that {cls.__name__} does not take: {unknown}")
        component = cls(**cls._require_built(arguments))
        if Path(model_id).is_dir():
            weights = Path(model_id, _WEIGHTS)
        else:
            from huggingface_hub import hf_hub_download

            weights = Path(
                hf_hub_download(
                    repo_id=model_id,
                    filename=_WEIGHTS,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    token=token,
                    local_files_only=local_files_only,
                )
            )
        _load_weights(component, weights, map_location)
        return component.to(map_location).eval()


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Loads tensors into a module, or raises one error that names everything that differs.

    Args:
        module: takes the tensors.
        tensors: name to tensor.
        source: where they come from, for the message.

    Raises:
        CheckpointError: tensors missing, left over, or of another shape.
    """
    wanted = module.state_dict()
    missing = sorted(set(wanted) - set(tensors))
    unknown = sorted(set(tensors) - set(wanted))
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, must be {tuple(wanted[name].shape)}"
        for name in sorted(set(wanted) & set(tensors))
        if tensors[name].shape != wanted[name].shape
    ]
    differences = [
        f"{title} {len(names)}: {'; '.join(names[:5])}{' …' if len(names) > 5 else ''}"
        for title, names in (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
        if names
    ]
    if differences:
        raise CheckpointError(f"{source}: does not fit {type(module).__name__}. " + ". ".join(differences))
    module.load_state_dict(dict(tensors), assign=any(t.is_meta for t in wanted.values()))


def _load_weights(module: nn.Module, path: Path, device: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path, device=device)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; save a component with save_pretrained") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error})") from error
    load_exactly(module, tensors, str(path))
