"""What a visitor may ask for; that a visitor who leaves is not worked for; and that no path of the server is shown."""

import argparse
import gc
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avfusion import InvalidValueError
from avfusion.media import write_video
from examples.favor import limits as limits_module
from examples.favor.answering import Answerer, Decoding
from examples.favor.app import build, reply, serve, timeline_of
from examples.favor.limits import Limits, for_visitors
from examples.favor.live_tab import FILE, Live
from examples.favor.tiny import tiny
from tests.examples.favor.media import clip

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:unclosed:ResourceWarning",
    "ignore:.*no_silent_downcasting",  # of pandas at Gradio
)


@pytest.fixture(autouse=True, scope="module")
def _loops() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    model, processor = tiny()
    return Answerer(model=model, processor=processor, decoding=Decoding(max_new_tokens=8, num_beams=1))


@pytest.fixture
def endless(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> Answerer:
    """Answers that go on for a hundred thousand tokens."""
    monkeypatch.setattr(answerer.model.generation_config, "eos_token_id", None)
    decoding = answerer.decoding._replace(max_new_tokens=100_000)
    return Answerer(model=answerer.model, processor=answerer.processor, decoding=decoding)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("media")
    return clip(folder / "clip.mp4", seconds=3.0)


def last(steps: Iterator[tuple[Any, Any, Any]]) -> tuple[Any, Any, str]:
    *_, (box, said, problem) = steps
    return box, said, getattr(problem, "value", "")


# --- Limits. ---


def test_every_limit_is_an_option_with_a_default() -> None:
    parser = argparse.ArgumentParser()
    limits_module.add_arguments(parser)
    assert limits_module.from_options(parser.parse_args([])) == Limits()
    assert limits_module.from_options(parser.parse_args(["--max-question", "7", "--max-clip", "1.5"])) == Limits(
        question=7, clip=1.5
    )
    for name in Limits._fields:
        with pytest.raises(InvalidValueError, match=f"max-{name}: must be above 0, found 0"):
            limits_module.from_options(parser.parse_args([f"--max-{name}", "0"]))


@pytest.mark.parametrize(
    ("few", "message"),
    [
        ({"question": 4}, "question: must have at most 4 characters, found 5"),
        ({"dialogue": 6}, "dialogue: must have at most 6 characters, found 7"),
        ({"upload": 0.0001}, "clip.mp4: must be at most 0.0001 MiB large, found more"),
        ({"clip": 2.0}, "clip.mp4: must last at most 2 s, found more"),
    ],
)
def test_more_than_a_limit_is_refused_before_anything_is_computed(
    answerer: Answerer, video: str, few: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answerer.model, "generate", None)
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    limits = Limits()._replace(**few)
    box, said, problem = last(reply(answerer, "what?", history, video, limits=limits))
    assert (box, said, problem) == ("what?", history, message)
    if "clip" in few or "upload" in few:
        assert timeline_of(answerer, video, limits=limits) is None


def test_what_is_within_the_limits_is_answered(answerer: Answerer, video: str) -> None:
    size = Path(video).stat().st_size / 2**20
    limits = Limits()._replace(question=5, dialogue=5, upload=size, clip=3.0)
    assert last(reply(answerer, "what?", [], video, limits=limits))[1][-1]["role"] == "assistant"
    assert timeline_of(answerer, video, limits=limits) is not None


def test_a_late_answer_ends_and_what_is_written_stays(endless: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    hook = endless.model.language_model.register_forward_hook(lambda *_: steps.append(1))
    began = time.monotonic()
    ticks = iter(range(10**9))
    monkeypatch.setattr(time, "monotonic", lambda: began + next(ticks))  # a second passes at each look
    try:
        _, said, problem = last(reply(endless, "what?", [], limits=Limits(seconds=20.0)))
    finally:
        hook.remove()
    assert "not ready within 20 s" in problem
    assert said[-1]["role"] == "assistant"
    assert 5 < len(steps) < 25


def test_the_live_tab_has_the_same_limits(endless: Answerer, video: str) -> None:
    live = Live(endless, Limits(question=4, seconds=1e-9, live=0.5))
    live.start(FILE, video)
    try:
        with pytest.raises(InvalidValueError, match="question: must have at most 4 characters, found 5"):
            next(live.ask("what?"))
        while live.is_watching:
            time.sleep(0.05)
        assert live.status() == r"**It broke off:** live: must be at most 0.5 s, found more"
        with pytest.raises(TimeoutError, match="not ready within"):
            list(live.ask("what"))
    finally:
        live.stop()
    large = Live(endless, Limits()._replace(upload=0.0001))
    with pytest.raises(InvalidValueError, match=r"clip\.mp4: must be at most"):
        large.start(FILE, video)


# --- Visitors of a real server. ---


class Visitor:
    """A client of the page, which speaks its protocol without a browser."""

    def __init__(self, address: str, name: str) -> None:
        self.address, self.name = address, name

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.address}/gradio_api/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def ask(self, question: str, function: int) -> Any:
        """Joins the queue, and gives the open stream of what comes of it."""
        data = [question, [], None, None, None]
        body = {"data": data, "fn_index": function, "session_hash": self.name}
        self.event = self.post("queue/join", body)["event_id"]
        return urllib.request.urlopen(f"{self.address}/gradio_api/queue/data?session_hash={self.name}", timeout=60)


def messages(stream: Any) -> Iterator[dict[str, Any]]:
    for line in stream:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


@pytest.mark.parametrize(("way", "silent"), [("hangs up", False), ("hangs up", True), ("presses stop", True)])
def test_the_model_stops_when_its_visitor_leaves(
    endless: Answerer, way: str, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if silent:  # tokens of which nothing is shown
        monkeypatch.setattr(Answerer, "_text", lambda *_: "")
    steps: list[float] = []
    hook = endless.model.language_model.register_forward_hook(lambda *_: steps.append(time.monotonic()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    limits = Limits(upload=1)
    page = build(endless, limits)
    names = [(function.fn.__name__, number) for number, function in page.fns.items() if function.fn is not None]
    answers = next(number for name, number in names if name == "answers")
    serve(page, limits, "127.0.0.1", port, prevent_thread_lock=True, quiet=True)
    try:
        address = f"http://127.0.0.1:{port}"
        first = Visitor(address, "first")
        with first.ask("what?", answers) as stream:
            for message in messages(stream):
                if message["msg"] == "process_generating" and len(steps) > 3:
                    break
            if way == "presses stop":
                ids = {"event_id": first.event, "session_hash": first.name, "fn_index": answers}
                first.post("cancel", ids)
        waited = time.monotonic() + 60  # the server looks for its client every few seconds
        while steps[-1] > time.monotonic() - 1.0 and time.monotonic() < waited:
            time.sleep(0.2)
        assert steps[-1] < time.monotonic() - 1.0, "the model went on"
        assert len(steps) < 100_000
        # The next visitor is answered, and an upload that is too large is not taken.
        with Visitor(address, "second").ask("", answers) as stream:
            done = next(message for message in messages(stream) if message["msg"] == "process_completed")
        assert done["success"]
        large = urllib.request.Request(
            f"{address}/gradio_api/upload",
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
            + bytes(2**20 + 1)
            + b"\r\n--x--\r\n",
            {"Content-Type": "multipart/form-data; boundary=x"},
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(large, timeout=30)
        assert refused.value.code == 413
        refused.value.close()
    finally:
        hook.remove()
        page.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


# --- What is shown of errors. ---


def test_an_error_does_not_tell_where_the_upload_lies(answerer: Answerer, tmp_path: Path) -> None:
    folder = tmp_path / "gradio cache" / "0123abc"
    folder.mkdir(parents=True)
    broken = folder / "my film.mp4"
    write_video(broken, torch.zeros(4, 3, 32, 32), frame_rate=2.0)
    broken.write_bytes(broken.read_bytes()[:300])
    for path in (broken, folder / "gone.mp4"):
        _, _, problem = last(reply(answerer, "what?", [], str(path)))
        assert problem.startswith(f"{path.name}: ")
        assert "/" not in problem
    live = Live(answerer)
    with pytest.raises(InvalidValueError):
        live.start(FILE, str(broken))
    assert "0123abc" not in live.status()


NAMES = st.text(st.sampled_from("abcdefghij.-_ äß<>&*`[]!"), min_size=1, max_size=8).filter(
    lambda name: name.strip(". ") and name == name.strip() and "/" not in name
)


@settings(max_examples=300)
@given(folders=st.lists(NAMES, min_size=1, max_size=4), name=NAMES, known=st.booleans(), form=st.integers(0, 4))
def test_no_folder_of_any_path_is_shown(folders: list[str], name: str, known: bool, form: int) -> None:
    """Of uploads wherever they lie, and of any other path without spaces; and what is shown is no markup."""
    if not known:
        folders = [re.sub(r"[ <>]", "_", folder) for folder in folders]
    path = "/" + "/".join([*folders, name])
    text = (
        f"{path}: does not exist",
        f"cannot open '{path}' (No such file or directory)",
        f"[Errno 28] No space left on device: '{path}'",
        f"video: no such file, {path}",
        f"a {path} b {path}\nTraceback of {path}",
    )[form]
    shown = for_visitors(text, [path] if known else [])
    assert "/" not in shown
    assert "\n" not in shown
    for mark in "<>`*[!":
        assert not re.search(rf"(?<!\\)(?:\\\\)*{re.escape(mark)}", shown), "not escaped"


def test_what_is_no_path_stays() -> None:
    for text in ("120 km/h and 3 / 4", "see https://example.org/a/b", "either/or", "rate: must be 16000"):
        assert for_visitors(text) == text
    assert for_visitors("") == for_visitors(ValueError()) == "unknown error"
    assert for_visitors("<b>|") == r"&lt;b&gt;\|"
