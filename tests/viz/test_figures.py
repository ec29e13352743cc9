"""The drawings of the pages come from the library's functions, the same each time, and the README's is up to date."""

import runpy
from pathlib import Path

import matplotlib as mpl

DOCS = Path(__file__).parents[2] / "docs"


def test_every_drawing_is_made_for_light_and_dark_pages(tmp_path: Path) -> None:
    figures = runpy.run_path(str(DOCS / "figures.py"))
    figures["draw"](tmp_path)
    names = {"synchronisation", "windows", "mask", "streaming", "budget"}
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}{end}.svg" for name in names for end in ("", "-dark")}
    assert all(path.read_text().startswith("<?xml") for path in tmp_path.iterdir())


def test_a_drawing_is_the_same_each_time(tmp_path: Path) -> None:
    figures = runpy.run_path(str(DOCS / "figures.py"))
    with mpl.rc_context(figures["SHARED"]):
        pages = [tmp_path / "first.svg", tmp_path / "second.svg"]
        for page in pages:
            figures["mask"]().savefig(page, metadata={"Date": None})
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_the_picture_of_the_whole_names_the_parts_that_there_are() -> None:
    import avfusion

    with mpl.rc_context():
        axes = runpy.run_path(str(DOCS / "architecture.py"))["draw"]().axes[0]
    words = {text.get_text() for text in axes.texts}
    parts = {"AudioVisualConnector", "FrameSynchroniser", "SlidingWindowProjector", "CausalQFormer", "DiversityLoss"}
    assert parts <= words
    assert parts <= set(avfusion.__all__)
    assert (DOCS / "_static" / "architecture.svg").read_text().startswith("<?xml")
