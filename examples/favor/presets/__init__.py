"""Named combinations of parts, a data file each; a path to a file of one's own works wherever a name does."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from peft import LoraConfig
from transformers import CONFIG_MAPPING

from avfusion import InvalidValueError
from examples.favor.configuration_favor import FavorConfig

_FOLDER = Path(__file__).parent
PRESETS = tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))
PROMPTS = ("own", "published")
OPTIONS = tuple(sorted(name for name in FavorConfig.__annotations__ if name not in FavorConfig.sub_configs))
_SUFFIXES = (".yaml", ".yml", ".json")
_DIRECTORIES = ("text", "vision", "audio", "events")  # which may be given relative to the file


@dataclass(frozen=True)
class Preset:
    """Where the parts come from, and how they are put together: what a file may state.

    Attributes:
        text: checkpoint of the language model: a name on the hub, or a directory.
        vision: of the vision tower: InstructBLIP's, a vision model of transformers, or timm's.
        audio: Whisper's.
        events: of a second audio tower (AST, Wav2Vec2 and their kin), if there is one.
        prompt: ``"own"``: the language model's chat template; ``"published"``: FAVOR's prompt. Its own, if it has one,
            without it.
        media_token: the token that keeps a place for an embedding. It becomes one of the tokenizer's if it is none;
            without it, one is chosen.
        image_size: height and width of the vision tower's input, for towers that take any (timm).
        options: of :class:`FavorConfig`, over what follows from the parts.
        lora_modules: what LoRA adapts.
        sizes: the parts' configurations, by name, for use without their checkpoints.
    """

    text: str
    vision: str
    audio: str
    events: str | None = None
    prompt: str | None = None
    media_token: str | None = None
    image_size: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    lora_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    sizes: dict[str, dict[str, Any]] = field(default_factory=dict)


def is_preset(name: str | Path) -> bool:
    """Whether a name is a preset's, or the path of a file that is to be one."""
    return str(name) in PRESETS or (Path(name).suffix in _SUFFIXES and Path(name).is_file())


def read_preset(name: str | Path) -> Preset:
    """A preset by its name or the path of its file.

    Raises:
        InvalidValueError: neither, or a file that states no preset; the error names all that is wrong.
    """
    path = _FOLDER / f"{name}.yaml" if str(name) in PRESETS else Path(name)
    if not is_preset(name):
        raise InvalidValueError(f"preset: must be one of {', '.join(PRESETS)}, or a file of one, found {str(name)!r}")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InvalidValueError(f"{path}: must be YAML or JSON ({' '.join(str(error).split())})") from error
    return preset_of(found, path)


def preset_of(values: Any, path: Path) -> Preset:
    """A preset of what a file states.

    Args:
        values: what was read.
        path: of the file; directories of parts may be given relative to it.

    Raises:
        InvalidValueError: values that state no preset; the error names all that is wrong.
    """
    if not isinstance(values, Mapping):
        raise InvalidValueError(f"{path}: must state a preset's parts by name, found {type(values).__name__}")
    values = {str(name): value for name, value in values.items()}
    wrong = _wrong(values)
    if wrong:
        raise InvalidValueError(f"{path}: {'; '.join(wrong)}")
    for name in _DIRECTORIES:
        if values.get(name) is not None and (path.parent / values[name]).is_dir():
            values[name] = str((path.parent / values[name]).resolve())
    if "lora_modules" in values:
        values["lora_modules"] = tuple(values["lora_modules"])
    return Preset(**values)


def lora_config(preset: str, **options: Any) -> LoraConfig:
    """LoRA on the language model's attention as published (rank 32), with the connector trained and saved beside it.

    Args:
        preset: name or file of a preset; for any other model, what is adapted is the preset's default.
        **options: of peft's ``LoraConfig``, over the published ones.
    """
    modules = read_preset(preset).lora_modules if is_preset(preset) else Preset.lora_modules
    published = {
        "r": 32,
        "lora_alpha": 32,
        "lora_dropout": 0.1,
        "target_modules": rf".*language_model\..*\.({'|'.join(modules)})",
        "modules_to_save": ["connector"],
    }
    return LoraConfig(**{**published, **options})


def full_config(preset: str) -> FavorConfig:
    """A preset's configuration without its checkpoints.

    Raises:
        InvalidValueError: a preset that does not state the sizes of its parts.
    """
    return FavorConfig(**stated_sizes(preset), **read_preset(preset).options)


def stated_sizes(preset: str) -> dict[str, dict[str, Any]]:
    """The parts' configurations that a preset states.

    Raises:
        InvalidValueError: a preset that does not state all of them.
    """
    chosen = read_preset(preset)
    events = () if chosen.events is None else ("event_config",)
    missing = [name for name in ("text_config", "vision_config", "audio_config", *events) if name not in chosen.sizes]
    if missing:
        raise InvalidValueError(
            f"{preset}: must state sizes to be used without the parts' checkpoints, found no {', '.join(missing)}"
        )
    sizes = {name: dict(values) for name, values in chosen.sizes.items()}
    if chosen.image_size is not None:
        sizes["vision_config"]["image_size"] = chosen.image_size
    return sizes


def _wrong(values: Mapping[str, Any]) -> list[str]:
    """Everything that keeps values from stating a preset."""
    known = [one.name for one in fields(Preset)]
    wrong = [f"{name}: must be one of {', '.join(known)}" for name in values if name not in known]
    wrong += [f"{name}: must be given" for name in ("text", "vision", "audio") if values.get(name) is None]
    for name in (*_DIRECTORIES, "media_token"):
        if values.get(name) is not None and (not isinstance(values[name], str) or not values[name]):
            wrong.append(f"{name}: must be a text, found {values[name]!r}")
    if values.get("prompt") not in (None, *PROMPTS):
        wrong.append(f"prompt: must be {' or '.join(PROMPTS)}, found {values['prompt']!r}")
    size = values.get("image_size")
    if size is not None and (type(size) is not int or size < 1):
        wrong.append(f"image_size: must be a number of pixels, found {size!r}")
    modules = values.get("lora_modules", [""])
    if not isinstance(modules, list | tuple) or not all(isinstance(one, str) for one in modules):
        wrong.append(f"lora_modules: must be a list of names, found {modules!r}")
    for name, of in (("options", OPTIONS), ("sizes", tuple(FavorConfig.sub_configs))):
        given = values.get(name, {})
        if not isinstance(given, Mapping):
            wrong.append(f"{name}: must be values by name, found {given!r}")
            continue
        wrong += [f"{name}.{key}: must be one of {', '.join(of)}" for key in given if key not in of]
        if name == "sizes":
            wrong += [
                f"sizes.{key}: must have a model_type of transformers, found {size!r:.80}"
                for key, size in given.items()
                if not isinstance(size, Mapping) or size.get("model_type") not in CONFIG_MAPPING
            ]
    return wrong
