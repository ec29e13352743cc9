"""Sphinx settings. Builds without a network, the same everywhere; the pages fetch nothing from elsewhere."""

import inspect
import os
import runpy
import sys
import zlib
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.inspect import signature as read_signature
from sphinx.util.inspect import stringify_signature

import avfusion
from avfusion.modules import Component

HERE = Path(__file__).parent
REPOSITORY = "https://github.com/avfusion/avfusion"

project = "avfusion"
author = "The avfusion authors"
copyright = "2026, The avfusion authors"
version = release = avfusion.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.linkcode",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    # Shapes in annotations, type variables, aliases, and values that are no public name.
    ("py:.*", r"(jaxtyping\.)?(Bool|Float|Int)"),
    (
        "py:.*",
        r"(collections\.abc\.)?(avfusion\.types\.state\.S|S|T|Judge|Samples|Scores|Features|CausalDirection|Padding)",
    ),
    (
        "py:.*",
        r"avfusion\.(_shapes|functional\.(masks|windows)|models\._|types\.tokens|aveb\.\w+\._)\b.*",
    ),
    (
        "py:.*",
        r"avfusion\.modules(\.\w+){1,2}\.(\w+State|KeyValues)|avfusion\.functional\.factored_tokens\.FactoredTokens",
    ),
    ("py:.*", r"torch\.(nn\.parameter\.Parameter|_C\.Generator)"),
    ("py:.*", r"avfusion\.(encoders\._blocks|media\.live\.(assembly|backlog|opening|pace|reader|source))\..*"),
    ("py:.*", r"threading\.Event"),
    ("py:class", r"AudioVisual(LanguageModel|Processor)"),  # annotations in quotes, which autosummary does not resolve
    ("py:.*", r"(transformers|peft|timm|torchmetrics|av|numpy|PIL|PIL\.Image)\..*"),
]

myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

autoclass_content = "class"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autosummary_generate = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 72
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_custom_sections = [("Attributes", "params_style")]

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Furo: the least that is whole. One column that can be read on a phone, dark by the reader's own setting, no fonts or
# scripts from elsewhere, and no options that would have to be kept up.
html_theme = "furo"
html_title = f"avfusion {release}"
html_favicon = "_static/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_theme_options = {
    "source_repository": f"{REPOSITORY}/",
    "source_branch": "main",
    "source_directory": "docs/",
    "footer_icons": [],
}

linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]
linkcheck_ignore = [r"https://avfusion\.readthedocs\.io.*"]  # this site


def _inventory(name: str) -> str:
    """A Sphinx inventory of the few names of another project that these pages link to; see ``inventories/``."""
    lines = (HERE / "inventories" / f"{name}.txt").read_text().splitlines()
    body = "".join(f"{entry} 1 {place} -\n" for entry, place in (line.rsplit(" ", 1) for line in lines))
    head = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n# The remainder is compressed using zlib.\n"
    path = HERE / "_build" / "inventories" / f"{name}.inv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head.encode() + zlib.compress(body.encode()))
    return str(path)


intersphinx_mapping = {
    "python": ("https://docs.python.org/3", _inventory("python")),
    "torch": ("https://docs.pytorch.org/docs/stable", _inventory("torch")),
}


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """The lines on GitHub of what a page describes."""
    found: Any = sys.modules.get(info["module"])
    for name in info["fullname"].split("."):
        found = getattr(found, name, None)
    found = inspect.unwrap(found.fget if isinstance(found, property) and found.fget else found)
    try:
        file, (lines, first) = inspect.getsourcefile(found), inspect.getsourcelines(found)
    except (TypeError, OSError):  # a constant, or a field
        return None
    path = Path(file or "").resolve()
    if not path.is_relative_to(HERE.parent):
        return None
    commit = os.environ.get("READTHEDOCS_GIT_COMMIT_HASH") or os.environ.get("GITHUB_SHA") or "main"
    return f"{REPOSITORY}/blob/{commit}/{path.relative_to(HERE.parent).as_posix()}#L{first}-L{first + len(lines) - 1}"


def _skip_member(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    # The fields of a NamedTuple are described under its "Attributes"; their own docstrings say "Alias for field 0".
    return True if type(obj).__name__ == "_tuplegetter" else None


def _sign(app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, result: str | None) -> Any:
    # Of a component, huggingface_hub's __new__(*args, **kwargs) would be shown; "<factory>" is no default.
    if what == "class" and isinstance(obj, type) and issubclass(obj, Component):
        signature = stringify_signature(
            read_signature(obj.__init__, bound_method=True), show_return_annotation=False, unqualified_typehints=True
        )
    return signature and signature.replace("<factory>", "{}"), result


def _document_constant(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    # A constant's words stand below it, in the module that defines it; its type's own docstring is shown otherwise.
    if what == "data":
        attribute = name.rpartition(".")[2]
        for module in [found for found in sys.modules if found.startswith("avfusion.")]:
            if getattr(sys.modules[module], attribute, None) is obj:
                analyzer = ModuleAnalyzer.for_module(module)
                analyzer.analyze()
                lines[:] = analyzer.attr_docs.get(("", attribute), lines)


def _inline_math(self: Any, node: nodes.math) -> None:
    self.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _block_math(self: Any, node: nodes.math_block) -> None:
    tex = node.astext().strip()
    tex = rf"\begin{{aligned}}{tex}\end{{aligned}}" if "&" in tex else tex
    self.body.append(f'<div class="math">{tex2mathml(tex, as_block=True)}</div>')
    raise nodes.SkipNode


def _draw_figures(app: Any) -> None:
    # Pages show what the functions do now, not what they did when a picture was kept.
    figures = runpy.run_path(str(Path(__file__).parent / "figures.py"))
    figures["draw"]()


def setup(app: Any) -> None:
    app.connect("builder-inited", _draw_figures)
    app.connect("autodoc-skip-member", _skip_member)
    app.connect("autodoc-process-signature", _sign)
    app.connect("autodoc-process-docstring", _document_constant)
    # Every browser of today reads MathML; MathJax would come from elsewhere.
    app.add_html_math_renderer("mathml", inline_renderers=(_inline_math, None), block_renderers=(_block_math, None))
