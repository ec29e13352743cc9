"""The page's own functions; ``examples.favor.checks.browser_check`` drives them in a browser."""

import gc
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from examples.favor.answering import Answerer, Decoding
from examples.favor.app import THEME, build, reply, timeline_of
from examples.favor.tiny import tiny
from tests.examples.favor.media import clip

# Gradio leaves event loops to the garbage collector, which is called here lest other tests be blamed.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed:ResourceWarning"
)


@pytest.fixture(autouse=True)
def _loops() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    model, processor = tiny()
    return Answerer(model=model, processor=processor, decoding=Decoding(max_new_tokens=8, num_beams=1))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("media")
    return clip(folder / "clip.mp4")


def test_the_page_is_built_and_phones_nobody(answerer: Answerer) -> None:
    page = build(answerer)
    labels = {block.get("props", {}).get("label") for block in page.get_config_file()["components"]}
    assert {"Video, with its sound", "Dialogue"} <= labels
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert not page.analytics_enabled
    assert THEME._stylesheets == []


def test_an_answer_grows(answerer: Answerer, video: str) -> None:
    history: list[Any] = []
    steps = list(reply(answerer, "what?", history, video))
    texts = [said[-1]["content"] for _, said, _ in steps if said[-1]["role"] == "assistant"]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert texts[-1] == answerer.answer([[{"role": "user", "content": _asking(video, "what?")}]])[0]
    # The page hands texts back as parts.
    said = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in steps[-1][1]]
    *_, (_, longer, _) = reply(answerer, "and where?", said, video)
    assert [turn["role"] for turn in longer] == ["user", "assistant"] * 2


def _asking(video: str, question: str) -> list[dict[str, str]]:
    return [{"type": "video", "path": video}, {"type": "text", "text": question}]


@pytest.mark.parametrize(("asked", "file", "message"), [("", None, "Ask something"), ("hi", "no.mp4", "no.mp4: ")])
def test_a_problem_is_one_line_and_changes_no_dialogue(
    answerer: Answerer, asked: str, file: str | None, message: str
) -> None:
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    *_, (box, said, problem) = reply(answerer, asked, history, file)
    assert (box, said) == (asked, history)
    assert message in problem.value
    assert "\n" not in problem.value


def test_the_timeline_is_of_clips_only(answerer: Answerer, video: str) -> None:
    assert timeline_of(answerer, video) is not None
    assert timeline_of(answerer) is None
    assert timeline_of(answerer, "no.mp4") is None
