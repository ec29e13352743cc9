"""Links between the repository's own files lead somewhere; Sphinx sees to those of the site's pages."""

import re
from pathlib import Path

import pytest

from tests.docs.test_blocks import PAGES, ROOT, name

LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s]+)\)")
# In a page of the site, Sphinx looks at links and pictures, and makes some of the pictures.
OUTSIDE = [page for page in PAGES if page.parent == ROOT or page.name == "README.md"]


def dead_links(page: Path) -> list[str]:
    """Links of a page to files, or to headings of its own, that are not there."""
    text = page.read_text()
    headings = {_anchor(line) for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    found = []
    for link in LINK.findall(re.sub(r"(?s)```.*?```", "", text)):
        file, _, anchor = link.partition("#")
        if (file and not (page.parent / file).exists()) or (not file and anchor not in headings):
            found.append(link)
    return found


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", OUTSIDE, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_planted_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n[a](#a-page) [b](#b) [c](page.md) [d](missing.md) [e](https://example.org)\n")
    assert dead_links(page) == ["#b", "missing.md"]
