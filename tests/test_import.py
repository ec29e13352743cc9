"""``import avfusion`` is light: it needs the core dependencies alone and loads nothing that waits for an extra."""

import os
import subprocess
import sys
from pathlib import Path

import avfusion

ROOT = Path(__file__).parents[1]

# huggingface_hub is not among them: every component can be saved and loaded through it.
HEAVY = {
    "accelerate",
    "av",
    "matplotlib",
    "peft",
    "rapidfuzz",
    "timm",
    "torchmetrics",
    "torchvision",
    "transformers",
}
# None in sys.modules makes an import of that name fail, as if it was not installed.
BLOCK = "import sys; sys.modules.update(dict.fromkeys({names!r}));"


def run(code: str) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_loads_no_extra() -> None:
    code = "import sys, torch; before = set(sys.modules); import avfusion; print(*set(sys.modules) - before)"
    loaded = set(run(code).split())
    assert "avfusion" in loaded
    assert {name.partition(".")[0] for name in loaded} & HEAVY == set()


def test_import_loads_no_compiler() -> None:
    slow = {"sympy", "torch._dynamo", "torch.distributed.tensor", "torch.nn.attention.flex_attention"}
    code = "import sys, torch; before = set(sys.modules); import avfusion; print(*set(sys.modules) - before)"
    assert set(run(code).split()) & slow == set()


def test_core_needs_torch_and_einops_alone() -> None:
    absent = sorted(HEAVY | {"huggingface_hub", "jaxtyping", "safetensors"})
    code = (
        BLOCK.format(names=absent)
        + "import avfusion, avfusion.testing; print(len([getattr(avfusion, n) for n in avfusion.__all__]))"
    )
    assert run(code) == str(len(avfusion.__all__))
