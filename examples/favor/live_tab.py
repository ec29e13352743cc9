"""The page's live tab: a file, a camera or a microphone is watched, and questions are answered meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr

from avfusion import InvalidTypeError, InvalidValueError
from avfusion.media import open_live
from examples.favor.answering import Answerer
from examples.favor.browser_stream import BrowserStream
from examples.favor.limits import Limits, for_visitors, without_folders
from examples.favor.live import answer_options, live_session, media_options
from examples.live.watching import Seen, Watcher, lines

FILE, BOTH, CAMERA, MICROPHONE = "A file, played", "Camera and microphone", "Camera", "Microphone"
ABOUT = "The model watches while the clip goes on. Ask at any moment: it knows what it has seen so far."
_PICTURE = (240, 320)  # height and width that a camera's pictures are brought to on the way
_PATIENCE = 120.0  # seconds in which nothing may come of a camera or microphone
_TOLD = 6  # lines


class Live:
    """What one visitor watches."""

    def __init__(self, answerer: Answerer, limits: Limits | None = None) -> None:
        self.answerer, self.limits = answerer, limits or Limits()
        self.files: tuple[str | None, ...] = ()
        self.stream: BrowserStream | None = None
        self.watcher: Watcher | None = None
        self.seen: Seen | None = None
        self.told: list[str] = []
        self._lock = threading.Lock()

    def start(self, kind: str, path: str | None) -> None:
        """Begins to watch, and leaves what was watched before.

        Raises:
            InvalidValueError: no file, one that is too large or cannot be read, or a model that cannot stream.
        """
        self.stop()
        self.files = (path,)
        self.limits.check_files(self.files)
        if kind == FILE and not path:
            raise InvalidValueError("file: must be chosen first, found none")
        session, media = live_session(self.answerer), media_options(self.answerer.processor)
        source: Any
        if kind == FILE:
            source = open_live(str(path), **media)
        else:
            stream = BrowserStream(size=_PICTURE, picture=kind != MICROPHONE, sound=kind != CAMERA)
            # It opens as soon as something comes.
            source = partial(open_live, stream.reading, **stream.options, timeout=_PATIENCE, **media)
            self.stream = stream
        self.seen, self.told = None, []
        self.watcher = Watcher(session, source, self._tell)
        self.watcher.__enter__()

    def stop(self) -> None:
        """Ends watching; what was seen can still be asked about."""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.end()  # first, because whoever waits for it would go on waiting
        if self.watcher is not None:
            self.watcher.close()
        if stream is not None:
            stream.close()

    @property
    def is_watching(self) -> bool:
        """Whether more may come."""
        return self.watcher is not None and self.watcher.is_watching

    def show(self, picture: Any) -> None:
        """A picture of the camera."""
        if self.stream is not None:
            self.stream.show(picture)

    def sound(self, heard: tuple[int, Any] | None) -> None:
        """A stretch of sound of the microphone."""
        if self.stream is not None and heard is not None:
            self.stream.sound(*heard)

    def ask(self, question: str) -> Iterator[str]:
        """The answer, as long as it is so far.

        Raises:
            TimeoutError: it was not ready in time.
        """
        self.limits.check_texts([question])
        if self.watcher is None:
            raise InvalidValueError("live: must have been started before a question, found nothing to watch")
        answer, seconds = "", self.limits.seconds
        deadline = time.monotonic() + seconds
        for piece in self.watcher.ask(question, **answer_options(self.answerer)):
            answer += piece
            yield answer
            if time.monotonic() > deadline:
                raise TimeoutError(f"The answer was not ready within {seconds:g} s and ends here.")

    def status(self) -> str:
        """What is going on, in Markdown."""
        if self.watcher is None:
            return "Nothing is being watched."
        try:
            self.watcher.wait(0)
        except (InvalidValueError, InvalidTypeError, OSError, RuntimeError) as error:
            return f"**It broke off:** {for_visitors(error, self.files)}"
        with self._lock:
            seen, told = self.seen, list(self.told)
        if seen is None:
            return "Waiting for the first pictures or sound …"
        known = seen.report.end if seen.ended else max(0.0, seen.watched.watermark)
        state = "watching" if self.watcher.is_watching else "ended"
        head = f"**{seen.report.end:.1f} s**, {state}; knows up to {known:.1f} s, {seen.report.lag:.1f} s behind"
        told = [without_folders(line, self.files).replace("`", "'") for line in told]
        return "\n".join([head, "", "```", *told, "```"])

    def _tell(self, seen: Seen) -> None:
        with self._lock:
            self.seen = seen
            self.told = [*self.told, *lines(seen)][-_TOLD:]
        if seen.report.end > self.limits.live and not seen.ended:
            raise InvalidValueError(f"live: must be at most {self.limits.live:g} s, found more")


def live_tab(answerer: Answerer, limits: Limits | None = None) -> Callable[[gr.Request], None]:
    """The tab's parts and what they do, and what is to be done when a visitor leaves the page."""
    limits = limits or Limits()
    visitors: dict[str | None, Live] = {}  # by the session of each
    gr.Markdown(ABOUT)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            kind = gr.Radio([FILE, BOTH, CAMERA, MICROPHONE], value=FILE, show_label=False, elem_id="live-kind")
            file = gr.Video(label="File", sources=["upload"], height=220, elem_id="live-file")
            camera = gr.Image(
                label="Camera",
                sources=["webcam"],
                streaming=True,
                type="numpy",
                height=220,
                visible=False,
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="live-camera",
            )
            microphone = gr.Audio(
                label="Microphone",
                sources=["microphone"],
                streaming=True,
                type="numpy",
                visible=False,
                elem_id="live-microphone",
            )
            with gr.Row():
                start = gr.Button("Start", variant="primary", min_width=80, elem_id="live-start")
                stop = gr.Button("Stop", min_width=80, elem_id="live-stop")
            status = gr.Markdown("Nothing is being watched.", elem_id="live-status")
        with gr.Column(scale=3, min_width=300):
            dialogue = gr.Chatbot(
                label="Dialogue", height=430, elem_id="live-dialogue", feedback_options=None, buttons=[]
            )
            problem = gr.Markdown(visible=False, elem_id="live-problem")
            question = gr.Textbox(
                placeholder="Ask while it watches",
                show_label=False,
                elem_id="live-question",
                max_lines=4,
                max_length=limits.question,
            )
    mine = gr.State(None, delete_callback=lambda live: live and live.stop())
    timer = gr.Timer(0.5, active=False)

    def begin(live: Live | None, chosen: str, path: str | None, request: gr.Request) -> tuple[Any, Any, Any, Any, Any]:
        live = live or Live(answerer, limits)
        visitors[request.session_hash] = live
        try:
            if sum(other.is_watching for other in visitors.values() if other is not live) >= limits.watching:
                raise InvalidValueError(f"live: must be watched by at most {limits.watching} at once; try again later")
            live.start(chosen, path)
        except (InvalidValueError, InvalidTypeError, OSError, RuntimeError) as error:
            return live, live.status(), gr.Timer(active=False), [], _line(error, (path,))
        return live, live.status(), gr.Timer(active=True), [], gr.Markdown(visible=False)

    def end(live: Live | None) -> Any:
        if live is not None:
            live.stop()
        return "Nothing is being watched." if live is None else live.status()

    def answers(live: Live | None, asked: str, said: list[dict[str, Any]]) -> Iterator[tuple[Any, Any, Any]]:
        yield from reply(live, asked, said)

    kind.change(
        lambda chosen: (
            gr.Video(visible=chosen == FILE),
            gr.Image(visible=chosen in (BOTH, CAMERA)),
            gr.Audio(visible=chosen in (BOTH, MICROPHONE)),
        ),
        kind,
        [file, camera, microphone],
        show_progress="hidden",
    )
    start.click(begin, [mine, kind, file], [mine, status, timer, dialogue, problem], show_progress="hidden")
    stop.click(end, mine, status, show_progress="hidden")
    timer.tick(lambda live: live.status() if live else gr.skip(), mine, status, show_progress="hidden")
    camera.stream(lambda live, picture: live and live.show(picture), [mine, camera], None, stream_every=0.25)
    microphone.stream(lambda live, heard: live and live.sound(heard), [mine, microphone], None, stream_every=0.5)
    question.submit(answers, [mine, question, dialogue], [question, dialogue, problem], show_progress="minimal")

    def leave(request: gr.Request) -> None:
        live = visitors.pop(request.session_hash, None)
        if live is not None:
            live.stop()

    return leave


def reply(live: Live | None, asked: str, said: list[dict[str, Any]]) -> Iterator[tuple[Any, list[dict[str, Any]], Any]]:
    """The question's box, the dialogue and the problem's line, as the answer is being written."""
    asked = asked.strip()
    if not asked or live is None:
        yield asked, said, _line("Ask something first." if live is not None else "Start first.")
        return
    said = [*said, {"role": "user", "content": asked}]
    try:
        yield "", said, gr.Markdown(visible=False)
        answer = "(an empty answer)"
        for answer in live.ask(asked):
            yield gr.skip(), [*said, {"role": "assistant", "content": answer}], gr.skip()
        yield gr.skip(), [*said, {"role": "assistant", "content": answer}], gr.skip()
    except TimeoutError as error:  # what has been written stays
        yield gr.skip(), [*said, {"role": "assistant", "content": answer}], _line(error)
    except (InvalidValueError, InvalidTypeError, OSError, RuntimeError) as error:
        yield asked, said[:-1], _line(error, live.files)


def _line(problem: object, files: tuple[str | None, ...] = ()) -> Any:
    return gr.Markdown(for_visitors(problem, files), visible=True)
