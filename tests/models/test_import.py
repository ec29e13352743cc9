import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(code: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_missing_transformers_names_the_extra() -> None:
    done = run("import sys; sys.modules['transformers'] = None; import avfusion.models")
    assert done.returncode != 0
    assert "pip install avfusion[hf]" in done.stderr.splitlines()[-1]


def test_peft_is_imported_only_when_needed() -> None:
    done = run("import sys, avfusion.models; print('peft' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr
