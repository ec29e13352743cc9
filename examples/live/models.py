"""A model by name, as something that can watch."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from avfusion.encoders import BlockwiseAudioEncoder
from avfusion.models import KeepNewest, LiveSession
from examples.favor.chat import load_answerer
from examples.favor.live import answer_options, live_session, media_options
from examples.live.demo import REMEMBERED
from examples.tiny_avllm.ask import load
from examples.tiny_avllm.data import SAMPLE_RATE, SCENE
from examples.tiny_avllm.job import Settings, run
from examples.tiny_avllm.questions import as_prompt


class LiveModel(NamedTuple):
    """What it takes to watch with a model.

    Attributes:
        session: begins a new one.
        media: options of ``open_live``.
        answers: options of ``session.ask``.
        asked: a question as the session takes it.
    """

    session: Callable[[], LiveSession]
    media: dict[str, Any]
    answers: dict[str, Any]
    asked: Callable[[str], str]


def load_live(options: argparse.Namespace) -> LiveModel:
    """The model of the options of :func:`examples.favor.chat.add_model_arguments`, beside ``remember`` and ``tiny``.

    ``tiny`` is the model of ``examples.tiny_avllm``, trained first if it has not been; so is a directory of it. All
    else is a FAVOR.
    """
    folder = Path(options.model)
    if options.model == "tiny":
        folder = options.tiny / "model"
        if not folder.is_dir():
            print(f"{folder} does not exist: training the tiny model, which takes some minutes")
            run(trained_as(options.tiny))
    if not _is_tiny(folder):
        answerer = load_answerer(options, num_beams=1)
        remember = options.remember or 120.0
        return LiveModel(
            lambda: live_session(answerer, remember=remember),
            media_options(answerer.processor),
            answer_options(answerer),
            str,
        )
    model, tokenizer = load(folder)
    # It has learned on whole clips, and so hears each half second, the length of a scene, with those before it.
    model.audio_encoders["audio"] = BlockwiseAudioEncoder(
        encoder=model.audio_encoders["audio"], block=SCENE, left_context=3 * SCENE
    )
    retention = KeepNewest(seconds=options.remember or REMEMBERED, slack=0.0)
    prompt = as_prompt("QUESTION").replace("QUESTION", "{question}")
    return LiveModel(
        lambda: LiveSession(model.eval(), tokenizer, prompt=prompt, retention=retention, max_wait=2.0),
        {"frame_rate": 1 / SCENE, "size": 32, "sample_rate": SAMPLE_RATE},
        {"max_new_tokens": 8, "do_sample": False},
        lambda question: question.strip().rstrip("?").strip(),
    )


def trained_as(out: Path) -> Settings:
    """The job of ``python -m examples.tiny_avllm --no-twin``."""
    return Settings(
        out=out, seed=0, clips=1000, held_out=200, encoder_steps=120, connector_steps=60, steps=340, twin=False
    )


def _is_tiny(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and "avfusion_class" in json.loads(config.read_text())
