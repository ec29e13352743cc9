"""Sphinx settings. Builds without a network: links into other projects' pages are made on Read the Docs alone."""

import os
import runpy
from pathlib import Path
from typing import Any

import avfusion

project = "avfusion"
author = "The avfusion authors"
copyright = "2026, The avfusion authors"
version = release = avfusion.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
if os.environ.get("READTHEDOCS"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }

exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autoclass_content = "class"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"avfusion {release}"
html_theme_options = {
    "source_repository": "https://github.com/avfusion/avfusion/",
    "source_branch": "main",
    "source_directory": "docs/",
}


def _skip_member(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    # The fields of a NamedTuple are described under its "Attributes"; their own docstrings say "Alias for field 0".
    return True if type(obj).__name__ == "_tuplegetter" else None


def _draw_figures(app: Any) -> None:
    # Pages show what the functions do now, not what they did when a picture was kept.
    figures = runpy.run_path(str(Path(__file__).parent / "figures.py"))
    figures["draw"]()


def setup(app: Any) -> None:
    app.connect("builder-inited", _draw_figures)
    app.connect("autodoc-skip-member", _skip_member)
