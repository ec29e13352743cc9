"""A model by name: a preset, a directory, or what was trained on top of either."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from avfusion import CheckpointError, InvalidValueError
from examples.favor.assembling import change, loading_options, new_model
from examples.favor.baselines import baseline
from examples.favor.configuration_favor import FavorConfig
from examples.favor.modeling_favor import FavorForConditionalGeneration
from examples.favor.parts import preset_processor
from examples.favor.presets import PRESETS, full_config, is_preset, read_preset
from examples.favor.processing_favor import FavorProcessor, shared_options
from examples.favor.tiny import tiny, tiny_config

OPTIONS_FILE = "favor_config.json"  # in a training run's directory: what its model has otherwise than its base


def load(
    name: str | Path,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    attn_implementation: str | None = None,
    quantize: str | None = None,
    trainable: bool = False,
    options: Mapping[str, Any] | None = None,
    bases: int = 8,
) -> tuple[Any, FavorProcessor]:
    """Model and processor, in evaluation mode.

    Args:
        name: a preset's name or file (a new connector between pretrained parts), ``"tiny"`` or ``"tiny:PRESET"``
            (small and random), a directory of ``save_pretrained``, or one of a training run, which holds what was
            trained and names the rest, or ``"baseline:NAME"``: one of ``baselines``, tiny with ``":tiny"`` after it.
        device: for all of it; where the weights are loaded without it.
        dtype: of the parameters; as stored without it.
        attn_implementation: of towers, connector and language model.
        quantize: ``"4bit"`` or ``"8bit"`` for the language model.
        trainable: train the adapter of a training run further.
        options: of the configuration, over the named model's; the connector is then a new one.
        bases: training runs that may stand on each other.

    Raises:
        CheckpointError: a directory that holds no such model, or one whose files are not what they claim.
        InvalidValueError: a name that is neither a preset nor a directory.
    """
    path = Path(name)
    kind, _, rest = str(name).partition(":")
    if kind == "baseline":
        which, _, size = rest.partition(":")
        if options or size not in ("", "tiny"):
            raise InvalidValueError(
                f"model: must be baseline:NAME or baseline:NAME:tiny without options, found {name!r}"
            )
        return baseline(
            which,
            tiny=size == "tiny",
            device=device,
            dtype=dtype,
            attn_implementation=attn_implementation,
            quantize=quantize,
        )
    given: dict[str, Any] = {"dtype": dtype, "attn_implementation": attn_implementation, "quantize": quantize}
    if (path / "adapter_config.json").is_file():
        base = read_object(path / "adapter_config.json").get("base_model_name_or_path")
        if not isinstance(base, str) or not base:
            raise CheckpointError(f"{path}: its adapter_config.json names no base model")
        if not bases:
            raise CheckpointError(f"{path}: must not be its own base model, found one behind another")
        if not (path / "adapter_model.safetensors").is_file():
            raise CheckpointError(f"{path}: holds no adapter_model.safetensors")
        if options:
            raise InvalidValueError(
                f"options: must be none for a training run, which has its own, found {dict(options)}"
            )
        if (path / OPTIONS_FILE).is_file():
            options = read_object(path / OPTIONS_FILE)
        model, processor = load(base, device=device, options=options, bases=bases - 1, **given)
        with _broken(path):
            model = PeftModel.from_pretrained(model, str(path), is_trainable=trainable)
    elif path.is_dir() and not is_preset(name):
        _directory_configuration(path)
        check_index(path)
        with _broken(path):
            parts = loading_options(**given, device=device)
            model = FavorForConditionalGeneration.from_pretrained(path, use_safetensors=True, **parts)
            processor = FavorProcessor.from_pretrained(path)
        if options:
            change(model, processor, options)
    else:
        if not is_preset(name):
            load_configuration(name)
        place = str(path.resolve()) if path.is_file() else str(name)
        model, processor = new_model(place, device=device, options=options, **given)
    if device is not None and quantize is None:
        model = model.to(device)
    return model.eval(), processor


def load_configuration(name: str | Path) -> FavorConfig:
    """The configuration of what :func:`load` loads by this name, training runs excepted; it reads no weights.

    Raises:
        CheckpointError: a directory that holds no such model.
        InvalidValueError: a name that is neither a preset nor a directory.
    """
    kind, _, twin = str(name).partition(":")
    if is_preset(name):
        return full_config(str(name))
    if Path(name).is_dir():
        return _directory_configuration(Path(name))
    if kind == "tiny" and (str(name) == "tiny" or is_preset(twin)):
        return tiny_config(twin or "favor-vicuna-7b")
    raise InvalidValueError(
        f"model: must be a preset ({', '.join(PRESETS)}), a preset's file, tiny, tiny:PRESET or a directory, "
        f"found {str(name)!r}"
    )


def _directory_configuration(path: Path) -> FavorConfig:
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{path}: holds neither config.json nor adapter_config.json, so it is no model")
    found = read_object(path / "config.json").get("model_type")
    if found != "favor":
        raise CheckpointError(
            f"{path}: must hold a favor model, found {found!r:.80}; to make one of a language model, a vision model "
            f"and Whisper: python -m examples.favor assemble --text {path} --vision ... --audio ... --out ..."
        )
    with _broken(path):
        config: FavorConfig = FavorConfig.from_pretrained(path)
    return config


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        CheckpointError: anything else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: must be a JSON object ({error})") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: must be a JSON object, found {type(found).__name__}")
    return found


def check_index(path: Path) -> None:
    """Refuses a list of a model's files that names others than those beside it."""
    for index in sorted(path.glob("*.index.json")):
        names = read_object(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise CheckpointError(f"{index}: must have a weight_map from tensors to files")
        for name in sorted(set(names.values())):
            if Path(name).name != name or name in ("", ".", "..") or "\\" in name or not (path / name).is_file():
                raise CheckpointError(f"{index}: must name files beside it, found {name!r:.80}")


@contextmanager
def _broken(path: Path) -> Iterator[None]:
    """One error for what transformers meets in files that are not what they claim."""
    try:
        yield
    except (ImportError, MemoryError, InvalidValueError):
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be loaded ({(str(error) or type(error).__name__).partition(chr(10))[0]})"
        ) from error


def load_processor(name: str | Path, config: FavorConfig) -> FavorProcessor:
    """The processor of what :func:`load` loads by this name, for a configuration that may differ from its own."""
    if is_preset(name):
        return preset_processor(read_preset(name), config)
    preset = str(name).partition(":")[2] or "favor-vicuna-7b"
    processor = FavorProcessor.from_pretrained(name) if Path(name).is_dir() else tiny(preset)[1]
    for option, value in shared_options(config).items():
        setattr(processor, option, value)
    return processor
