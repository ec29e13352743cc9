"""The shapes that annotations promise hold while the core's other tests run, as jaxtyping and beartype see it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORE = (
    "avfusion/functional",
    "avfusion/modules",
    "tests/core/test_attention.py",
    "tests/core/test_causal_qformer.py",
    "tests/core/test_connector.py",
    "tests/core/test_diversity.py",
    "tests/core/test_projector.py",
)
# Bad input would be refused by the checker before it is refused by name, and a compiler cannot read the checker:
# its sizes are symbols, which are no int.
LEFT_OUT = "errors_name are_named is_named refuses compile exports"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["AVFUSION_CHECK_SHAPES"] = "1"
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_annotations_hold() -> None:
    chosen = " and ".join(f"not {word}" for word in LEFT_OUT.split())
    result = run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *CORE, "-k", chosen)
    assert result.returncode == 0, result.stdout[-3000:]


def test_the_checker_sees_a_wrong_shape() -> None:
    result = run(
        "-c",
        "import conftest, torch; from avfusion.functional import attention; "
        "attention(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 5), torch.zeros(1, 1, 2, 4))",
    )
    assert "TypeCheckError" in result.stderr
