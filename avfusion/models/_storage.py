"""What is trained, to a directory and back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from torch import nn

from avfusion.errors import CheckpointError, InvalidTypeError, InvalidValueError
from avfusion.models._features import VISUAL
from avfusion.modules import DiversityLoss
from avfusion.modules.component import Component
from avfusion.modules.weights import load_weights, save_weights

_CONFIG, _CLASS, _KIND = "config.json", "avfusion_class", "AudioVisualLanguageModel"


def is_peft(model: nn.Module) -> bool:
    """Whether ``model`` is one of peft's, without importing it."""
    return any(kind.__module__.startswith("peft.") and kind.__name__ == "PeftModel" for kind in type(model).__mro__)


def trains(module: nn.Module) -> bool:
    """Whether anything in ``module`` is trained."""
    return any(parameter.requires_grad for parameter in module.parameters())


class StoredModel(nn.Module):
    """What saves and loads :class:`~avfusion.models.AudioVisualLanguageModel`: whatever of it is trained."""

    language_model: Any
    connector: Any
    audio_encoders: nn.ModuleDict
    visual_encoder: nn.Module | None
    placeholder_token_id: int
    diversity_loss: DiversityLoss | None

    @property
    def encoders(self) -> dict[str, nn.Module]:
        """Every encoder by its stream's name."""
        visual = {} if self.visual_encoder is None else {VISUAL: self.visual_encoder}
        return {**visual, **dict(self.audio_encoders.items())}

    def save_pretrained(
        self,
        directory: str | Path,
        *,
        save_language_model: bool | None = None,
        save_encoders: bool | None = None,
    ) -> None:
        """Saves what is trained: ``connector/``, and ``adapter/`` of a ``PeftModel``.

        Args:
            directory: is made if it does not exist.
            save_language_model: ``language_model/`` in full; without it, if it is no ``PeftModel`` and is trained.
            save_encoders: the weights of all encoders; without it, of those that are trained.

        Raises:
            InvalidValueError: a file where the directory should be, or a ``PeftModel`` to save in full.
        """
        _save(self, Path(directory), save_language_model, save_encoders)

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        language_model: nn.Module | None = None,
        audio_encoders: Mapping[str, nn.Module] | None = None,
        visual_encoder: nn.Module | None = None,
        connector: nn.Module | None = None,
        is_trainable: bool = False,
    ) -> Self:
        """Puts a saved model together again, in evaluation mode.

        Args:
            directory: from :meth:`save_pretrained`.
            language_model: the base model, unless the directory holds it in full. An adapter is put into it, in place.
            audio_encoders: as in the constructor; what the directory holds of their weights is loaded into them.
            visual_encoder: as in the constructor, likewise. An encoder of which the directory holds no weights may be
                left out, to work from features.
            connector: given where it has parts of your own classes:
                ``AudioVisualConnector.from_pretrained(directory / "connector", projector=...)``.
            is_trainable: train the adapter further.

        Raises:
            CheckpointError: files that are missing, or do not fit the given parts.
            InvalidValueError: a language model or encoders that are missing, or given beside a saved one.
        """
        path = Path(directory)
        config = _read_config(path)
        weight = config["diversity_weight"]
        model = cls(
            language_model=_load_language_model(path, config, language_model, is_trainable),
            connector=_load_connector(path, config) if connector is None else connector,
            audio_encoders=audio_encoders,
            visual_encoder=visual_encoder,
            placeholder_token_id=config["placeholder_token_id"],
            diversity_loss=None if weight is None else DiversityLoss(weight=weight),
        )
        _load_encoders(path, config, model.encoders)
        return model.eval()


def _save(model: "StoredModel", directory: Path, save_language_model: bool | None, save_encoders: bool | None) -> None:
    if directory.exists() and not directory.is_dir():
        raise InvalidValueError(f"directory: must be a directory, found the file {directory}")
    if not isinstance(model.connector, Component):
        raise InvalidTypeError(
            f"connector: must be an avfusion Component to be saved, found {type(model.connector).__name__}"
        )
    llm, adapter = model.language_model, None
    if is_peft(llm):
        if save_language_model:
            raise InvalidValueError(
                "save_language_model: must not be set for a PeftModel, whose adapter is saved; "
                "merge_and_unload() it first"
            )
        adapter = llm.active_adapter
        llm.save_pretrained(str(directory / "adapter"), selected_adapters=[adapter])
        save_language_model = False
    elif save_language_model is None:
        save_language_model = trains(llm)
    if save_language_model:
        llm.save_pretrained(str(directory / "language_model"))
    model.connector.save_pretrained(directory / "connector")

    chosen = {name: encoder for name, encoder in model.encoders.items() if save_encoders or trains(encoder)}
    chosen = {} if save_encoders is False else chosen
    for name, encoder in chosen.items():
        path = directory / "encoders" / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights(encoder, path)
    config = {
        _CLASS: _KIND,
        "placeholder_token_id": model.placeholder_token_id,
        "diversity_weight": None if model.diversity_loss is None else model.diversity_loss.weight,
        "connector": type(model.connector).__name__,
        "language_model": "full" if save_language_model else "adapter" if adapter else None,
        "adapter": adapter,
        "audio_encoders": sorted(model.audio_encoders),
        "visual_encoder": model.visual_encoder is not None,
        "saved_encoders": sorted(chosen),
    }
    (directory / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _read_config(directory: Path) -> dict[str, Any]:
    """The configuration that :func:`save` wrote."""
    path = directory / _CONFIG
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; save a model with save_pretrained") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from error
    if not isinstance(config, dict) or config.get(_CLASS) != _KIND:
        found = config.get(_CLASS) if isinstance(config, dict) else type(config).__name__
        raise CheckpointError(f"{path}: must describe an {_KIND}, found {found!r}")
    wanted = {
        "placeholder_token_id",
        "diversity_weight",
        "connector",
        "language_model",
        "adapter",
        "audio_encoders",
        "visual_encoder",
        "saved_encoders",
    }
    missing = sorted(wanted - set(config))
    if missing:
        raise CheckpointError(f"{path}: lacks {missing}")
    return config


def _load_connector(directory: Path, config: dict[str, Any]) -> Any:
    """The connector that was saved."""
    kind = Component.registry.get(config["connector"])
    if kind is None:
        raise CheckpointError(
            f"{directory}: was saved with a connector of the class {config['connector']}, which is not known here; "
            "import it, or pass connector=..."
        )
    return kind.from_pretrained(str(_existing(directory / "connector")))


def _load_language_model(directory: Path, config: dict[str, Any], given: Any, is_trainable: bool) -> Any:
    """The language model: what was saved, put on the given base model where that was not."""
    if given is not None and is_peft(given):
        raise InvalidTypeError("language_model: must be the base model, found a PeftModel; its adapter is loaded")
    if config["language_model"] == "full":
        from transformers import AutoModelForCausalLM

        if given is not None:
            raise InvalidValueError(f"language_model: {directory} holds the trained one; leave it out")
        return AutoModelForCausalLM.from_pretrained(str(_existing(directory / "language_model")))
    if given is None:
        raise InvalidValueError(f"language_model: must be given, {directory} does not hold it")
    if config["language_model"] is None:
        return given
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ImportError("An adapter needs peft: pip install avfusion[hf]") from error
    adapter = config["adapter"]
    path = directory / "adapter" if adapter == "default" else directory / "adapter" / adapter
    return PeftModel.from_pretrained(given, str(_existing(path)), adapter_name=adapter, is_trainable=is_trainable)


def _load_encoders(directory: Path, config: dict[str, Any], encoders: Mapping[str, nn.Module]) -> None:
    """Loads what was saved of the encoders into them."""
    missing = sorted(set(config["saved_encoders"]) - set(encoders))
    if missing:
        raise InvalidValueError(f"audio_encoders, visual_encoder: {directory} holds weights for {missing}, not given")
    for name in config["saved_encoders"]:
        load_weights(encoders[name], directory / "encoders" / f"{name}.safetensors")


def _existing(directory: Path) -> Path:
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no such directory; the checkpoint is incomplete")
    return directory
