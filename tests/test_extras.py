"""Without its extra a subpackage says which one to install; what needs none works without any.

The import is made again in this process, with names that are not installed: ``None`` in ``sys.modules``.
"""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.test_public_names import PACKAGES

EXTRAS = {
    "PIL",
    "accelerate",
    "av",
    "espeakng_loader",
    "gradio",
    "huggingface_hub",
    "jaxtyping",
    "matplotlib",
    "numpy",
    "peft",
    "rapidfuzz",
    "safetensors",
    "timm",
    "torchmetrics",
    "torchvision",
    "tqdm",
    "transformers",
    "whisper_normalizer",
}
# Of each subpackage that needs an extra: its name, and the packages of which each alone is missed.
NEEDS = {
    "avfusion.encoders": ("hf", ["transformers"]),
    "avfusion.models": ("hf", ["transformers"]),
    "avfusion.features": ("hf", ["transformers"]),
    "avfusion.training": ("hf", ["transformers"]),
    "avfusion.media": ("media", ["PIL", "av"]),
    "avfusion.aveb.metrics": ("aveb", ["rapidfuzz", "torchmetrics"]),
    "avfusion.aveb.mini": ("aveb", ["PIL", "av"]),
    "avfusion.viz": ("viz", ["matplotlib"]),
    "avfusion.aveb.runner": ("aveb", ["rapidfuzz", "torchmetrics"]),
}
CASES = [(package, missing) for package, (_, each) in NEEDS.items() for missing in [*each, *([None] * bool(each))]]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a module of avfusion as a new process would where ``absent`` is not installed."""
    kept = {name: module for name, module in sys.modules.items() if _ours(name)}

    def load(name: str, absent: set[str]) -> Any:
        for found in kept:
            del sys.modules[found]
        for other in absent:
            monkeypatch.setitem(sys.modules, other, None)
        return importlib.import_module(name)

    yield load
    for name in [name for name in sys.modules if _ours(name)]:
        del sys.modules[name]
    sys.modules.update(kept)


def _ours(name: str) -> bool:
    return name.partition(".")[0] == "avfusion"


@pytest.mark.parametrize(("package", "missing"), CASES)
def test_missing_extra_is_named(fresh: Any, package: str, missing: str | None) -> None:
    absent = EXTRAS if missing is None else {missing}
    with pytest.raises(ImportError, match=rf"pip install .*avfusion\[{NEEDS[package][0]}\]"):
        fresh(package, absent)


@pytest.mark.parametrize("package", sorted(set(PACKAGES) - set(NEEDS)))
def test_the_rest_needs_none(fresh: Any, package: str) -> None:
    module = fresh(package, EXTRAS)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_saving_says_its_extra(fresh: Any, tmp_path: Path) -> None:
    loss = fresh("avfusion", EXTRAS).DiversityLoss()
    with pytest.raises(ImportError, match=r"avfusion\[hf\]"):
        loss.save_pretrained(tmp_path)
    with pytest.raises(ImportError, match=r"avfusion\[hf\]"):
        type(loss).from_pretrained(tmp_path)


def test_speech_says_its_extra(fresh: Any, tmp_path: Path) -> None:
    espeak = fresh("avfusion.aveb", EXTRAS).espeak
    with pytest.raises(ImportError, match=r"avfusion\[aveb\]"):
        espeak("What is this?", tmp_path / "question.wav")


def test_timm_says_its_extra(fresh: Any) -> None:
    encoder = fresh("avfusion.encoders", {"timm"}).TimmVisualEncoder
    with pytest.raises(ImportError, match=r"avfusion\[hf\]"):
        encoder.from_pretrained("vit_tiny_patch16_224")
