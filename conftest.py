"""Settings of every test and doctest; at the root so that the doctests of ``avfusion/`` and ``docs/`` get them too."""

import os
import random

import hypothesis
import pytest
import torch

# What builds the site and looks at it needs the extra "docs" and is no test.
collect_ignore_glob = ["docs/*.py", "docs/checks/*"]

if os.environ.get("AVFUSION_CHECK_SHAPES"):  # see tests/test_shapes.py
    from jaxtyping import install_import_hook

    functional = ("alignment", "attention", "diversity", "masks", "windows")
    modules = (
        "attention.multi_head_attention",
        "audio_visual_connector",
        "diversity_loss",
        "projector.multi_resolution_projector",
        "projector.sliding_window_projector",
        "projector.two_resolution_encoder",
        "qformer.causal_qformer",
        "qformer.instruction_embedding",
        "qformer.layer",
        "synchroniser.frame_synchroniser",
    )
    checked = [f"avfusion.functional.{name}" for name in functional] + [f"avfusion.modules.{name}" for name in modules]
    install_import_hook(checked, "beartype.beartype")

# Tests run in one process a core; threads inside each would only get in each other's way.
torch.set_num_threads(1)

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """The same numbers in a test whichever tests ran before it."""
    random.seed(0)
    torch.manual_seed(0)
