"""``app``: a page to talk with the model about what a camera, a microphone or a file holds."""

import argparse
import os
from collections.abc import Iterable, Iterator
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr
from matplotlib.figure import Figure

from avfusion import InvalidTypeError, InvalidValueError
from avfusion.models import conversation
from examples.favor.answering import Answerer
from examples.favor.chat import add_model_arguments, load_answerer
from examples.favor.data import with_clip
from examples.favor.limits import Limits, for_visitors, plain
from examples.favor.limits import add_arguments as add_limits
from examples.favor.limits import from_options as limits_of
from examples.favor.live_tab import live_tab
from examples.favor.timeline import attention_timeline, draw_timeline

TITLE = "FAVOR"
ABOUT = (
    "A language model that watches and listens. Give it a video, a sound or a picture, or a picture and a sound, and "
    "ask. Below the dialogue: which moments each embedding of the clip was made from."
)
# Fonts of the system: none is fetched.
THEME = gr.themes.Soft(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
#problem, #live-problem { color: var(--error-text-color); }
#problem p, #live-problem p { white-space: nowrap; overflow-x: auto; }
#dialogue, #timeline, #video, #live-dialogue, #live-file { min-width: 0 !important; max-width: 100%; }
#video video, #live-file video { width: 100%; min-width: 0; max-width: 100%; object-fit: contain; }
#dialogue *, #live-dialogue * { overflow-wrap: anywhere; word-break: break-word; }
#timeline img { width: 100%; height: auto; }
footer { display: none !important; }
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    add("--port", type=int, default=7860, help="(7860)")
    add("--share", action="store_true", help="a public address, through Gradio's tunnel")
    add_limits(parser)


def run(options: argparse.Namespace) -> int:
    limits = limits_of(options)
    serve(build(load_answerer(options, num_beams=1), limits), limits, options.host, options.port, share=options.share)
    return 0


def serve(page: gr.Blocks, limits: Limits, host: str, port: int, **options: Any) -> None:
    """Answers one visitor after the other, until the server is stopped."""
    page.queue(default_concurrency_limit=1, max_size=limits.waiting).launch(
        server_name=host,
        server_port=port,
        theme=THEME,
        css=CSS,
        show_error=False,  # a visitor sees the problems that are meant for visitors; all others are on the terminal
        max_file_size=limits.upload * 2**20,
        footer_links=[],
        **options,
    )


def build(answerer: Answerer, limits: Limits | None = None) -> gr.Blocks:
    """The page; each part of it is a tab."""
    limits = (limits or Limits()).check()
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}\n{ABOUT}")
        with gr.Tab("Clip"):
            _clip_tab(answerer, limits)
        with gr.Tab("Live"):
            leave = live_tab(answerer, limits)
        page.unload(leave)
    return page


def _clip_tab(answerer: Answerer, limits: Limits) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            video = gr.Video(
                label="Video, with its sound",
                sources=["upload", "webcam"],
                include_audio=True,
                webcam_options=gr.WebcamOptions(mirror=False),  # as it was seen
                height=300,
                elem_id="video",
            )
            audio = gr.Audio(
                label="Sound, instead of the video's",
                sources=["upload", "microphone"],
                type="filepath",
                elem_id="audio",
            )
            image = gr.Image(
                label="Picture, instead of a video",
                sources=["upload", "webcam"],
                type="filepath",
                height=200,
                elem_id="image",
            )
        with gr.Column(scale=3, min_width=300):
            dialogue = gr.Chatbot(label="Dialogue", height=430, elem_id="dialogue", feedback_options=None, buttons=[])
            problem = gr.Markdown(visible=False, elem_id="problem")
            question = gr.Textbox(
                placeholder="Ask about the clip",
                show_label=False,
                autofocus=True,
                elem_id="question",
                max_lines=4,
                max_length=limits.question,
            )
            with gr.Row():
                stop = gr.Button("Stop", min_width=80)
                clear = gr.Button("New dialogue", min_width=80)
                ask = gr.Button("Ask", variant="primary", min_width=80, elem_id="ask")
    timeline = gr.Image(show_label=False, elem_id="timeline", interactive=False, visible=False, buttons=["download"])
    seen = gr.State(())  # the media of which the timeline is

    def answers(asked: str, history: list[dict[str, Any]], *files: str | None) -> Iterator[tuple[Any, Any, Any]]:
        yield from reply(answerer, asked, history, *files, limits=limits)

    def picture(drawn: Any, *files: str | None) -> tuple[Any, Any]:
        if files == drawn:
            return gr.skip(), drawn
        figure = timeline_of(answerer, *files, limits=limits)
        return (gr.Image(visible=False) if figure is None else gr.Image(_pixels(figure), visible=True)), files

    media: list[Any] = [video, audio, image]
    outputs = [question, dialogue, problem]
    asking = gr.on(
        [question.submit, ask.click], answers, [question, dialogue, *media], outputs, show_progress="minimal"
    )
    asking.then(picture, [seen, *media], [timeline, seen], show_progress="hidden")
    stop.click(None, cancels=[asking])
    clear.click(lambda: ([], gr.Markdown(visible=False)), None, [dialogue, problem])
    for source in media:  # another clip, another dialogue
        source.change(lambda: ([], gr.Markdown(visible=False)), None, [dialogue, problem], show_progress="hidden")


def reply(
    answerer: Answerer,
    asked: str,
    history: list[dict[str, Any]],
    video: str | None = None,
    audio: str | None = None,
    image: str | None = None,
    *,
    limits: Limits | None = None,
) -> Iterator[tuple[Any, list[dict[str, Any]], Any]]:
    """The question's box, the dialogue and the problem's line, as the answer is being written."""
    limits, asked, files = limits or Limits(), asked.strip(), (video, audio, image)
    if not asked:
        yield "", history, _line("Ask something first.")
        return
    said = [*history, {"role": "user", "content": asked}]
    answer = ""
    try:
        limits.check_texts([plain(turn["content"]) for turn in said])
        limits.check_files(files)
        messages = _messages(said, {"video": video, "audio": audio, "image": image})
        yield "", said, gr.Markdown(visible=False)
        for piece in answerer.stream(messages, seconds=limits.seconds, longest=limits.clip):
            answer += piece
            shown = [*said, {"role": "assistant", "content": answer}] if answer else said
            yield gr.skip(), shown, gr.skip()
        if not answer:
            yield gr.skip(), [*said, {"role": "assistant", "content": "(an empty answer)"}], gr.skip()
    except TimeoutError as error:  # what has been written stays
        shown = [*said, {"role": "assistant", "content": answer}] if answer else history
        yield gr.skip() if answer else asked, shown, _line(error)
    except (InvalidValueError, InvalidTypeError, OSError, RuntimeError) as error:
        yield asked, history, _line(error, files)


def timeline_of(
    answerer: Answerer,
    video: str | None = None,
    audio: str | None = None,
    image: str | None = None,
    *,
    limits: Limits | None = None,
) -> Figure | None:
    """The picture of a clip; none without media, or for a model that has no windows."""
    limits, messages = limits or Limits(), conversation("", video=video, audio=audio, image=image)
    try:
        limits.check_files((video, audio, image))
        clip = answerer.processor.load_clip(messages, timeout=limits.seconds, longest=limits.clip)
        if clip is None:
            return None
        found = attention_timeline(answerer.model, answerer.inputs([with_clip(messages, clip)]))
    except (InvalidValueError, InvalidTypeError, OSError):  # the answer has told it already
        return None
    return draw_timeline(found, clip)


def _messages(said: list[dict[str, Any]], media: dict[str, str | None]) -> list[dict[str, Any]]:
    """The dialogue as the processor takes it: media stand in the first question."""
    turns = [{"role": turn["role"], "content": plain(turn["content"])} for turn in said]
    return [*conversation(turns[0]["content"], **media), *turns[1:]]


def _line(problem: object, files: Iterable[str | None] = ()) -> Any:
    return gr.Markdown(for_visitors(problem, files), visible=True)


def _pixels(figure: Figure) -> Any:
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(130)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
