"""``chat``: an answer, a dialogue, or the answers to a whole file of questions."""

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import set_seed
from transformers.utils import logging

from avfusion import CheckpointError, InvalidTypeError, InvalidValueError
from avfusion.files import locked
from avfusion.models import conversation, media_sources
from examples.favor.answering import Answerer, Decoding
from examples.favor.batches import answers, first_line
from examples.favor.loading import load
from examples.favor.questions import Question, read_questions, resume
from examples.favor.workers import WORKERS

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    add = parser.add_argument
    add("--video", metavar="FILE", help="what to talk about, with its sound")
    add("--audio", metavar="FILE", help="sound, instead of the video's own if there is one")
    add("--image", metavar="FILE", help="a picture instead of a video")
    add("--prompt", metavar="TEXT", help="the question; a dialogue without it")
    add("--data", metavar="FILE", help='JSON lines of {"prompt", "video", "audio", "image"} or {"messages"}')
    add("--out", metavar="FILE", help="where their answers are added, one a line; a run that was cut goes on")
    add("--media-root", metavar="DIR", help="what relative media names in --data start from (its folder)")
    add("--batch-size", type=int, default=1, metavar="N", help="questions of --data at once (1)")
    add("--workers", type=int, default=WORKERS, metavar="N", help=f"processes that read media of --data ({WORKERS})")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """What chat and app have in common."""
    add = parser.add_argument
    add("--model", required=True, help="a preset, tiny, a directory, or a training run's")
    add("--device", help="cpu, cuda, cuda:1, mps, … (a GPU if there is one)")
    add("--dtype", choices=_DTYPES, help="of the parameters (as stored; bfloat16 on a GPU that has it)")
    add("--attn-implementation", metavar="NAME", help="eager, sdpa, flash_attention_2, …")
    add("--quantize", choices=["4bit", "8bit"], help="the language model (bitsandbytes)")
    add("--max-new-tokens", type=int, default=Decoding().max_new_tokens, metavar="N", help="of an answer (256)")
    add("--num-beams", type=int, metavar="N", help="beam search (--data: 5; 1 where answers are shown word by word)")
    add("--repetition-penalty", type=float, default=Decoding().repetition_penalty, metavar="P", help="(1.5)")
    add("--temperature", type=float, default=0.0, metavar="T", help="sample; 0 takes the likeliest (0)")
    add("--top-p", type=float, default=1.0, metavar="P", help="sample from the likeliest of this probability (1)")
    add("--seed", type=int, default=0, help="of sampling (0)")


def run(options: argparse.Namespace) -> int:
    _check(options)
    if options.data is None:
        return _run(options, [], 0)
    questions, out = read_questions(Path(options.data), media_root=options.media_root), Path(options.out)
    out.touch()
    try:
        with locked(out):
            done = resume(out, questions)
            return _run(options, questions[done:], done)
    finally:
        if out.is_file() and not out.stat().st_size:  # nothing came of it
            out.unlink()


def _run(options: argparse.Namespace, questions: list[Question], done: int) -> int:
    answerer = load_answerer(options, num_beams=5 if options.data is not None and options.temperature == 0 else 1)
    try:
        return _answer(options, answerer, questions, done)
    except RuntimeError as error:
        raise InvalidValueError(f"model: {options.model} cannot answer ({first_line(error)})") from error


def _answer(options: argparse.Namespace, answerer: Answerer, questions: list[Question], done: int) -> int:
    if options.data is not None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the workers are forked
        results = answers(answerer, questions, batch_size=options.batch_size, workers=options.workers)
        total = done + len(questions)
        shown = tqdm(results, total=total, initial=done, unit="question", disable=None)
        return _answer_all(questions, shown, Path(options.out))
    media = {kind: value for kind in ("video", "audio", "image") if (value := getattr(options, kind)) is not None}
    if options.prompt is None:
        return _dialogue(answerer, media)
    for piece in _pieces(answerer, conversation(options.prompt, **media)):
        print(piece, end="", flush=True)
    print()
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuses what makes no sense before a model is loaded for it."""
    files = {kind: getattr(options, kind) for kind in ("video", "audio", "image")}
    given = [kind for kind, file in files.items() if file is not None]
    if (options.data is None) != (options.out is None):
        raise InvalidValueError("data, out: must be given together, found one of them")
    if options.data is not None and (given or options.prompt is not None):
        raise InvalidValueError("data: must be given without prompt, video, audio and image, found it with them")
    if options.batch_size < 1:
        raise InvalidValueError(f"batch-size: must be at least 1, found {options.batch_size}")
    if options.workers < 0:
        raise InvalidValueError(f"workers: must be at least 0, found {options.workers}")
    media_sources(conversation("", **files))
    for kind in given:
        if not Path(files[kind]).is_file():
            raise InvalidValueError(f"{kind}: no such file, {files[kind]}")


def load_answerer(options: argparse.Namespace, *, num_beams: int) -> Answerer:
    """The model of the options.

    Args:
        options: of :func:`add_model_arguments`.
        num_beams: if the options name none.

    Raises:
        CheckpointError: a checkpoint that cannot be loaded.
        InvalidValueError: options that make no sense here.
    """
    decoding = Decoding(
        max_new_tokens=options.max_new_tokens,
        num_beams=num_beams if options.num_beams is None else options.num_beams,
        repetition_penalty=options.repetition_penalty,
        temperature=options.temperature,
        top_p=options.top_p,
    ).check()
    device = _device(options.device)
    if options.quantize is not None and importlib.util.find_spec("bitsandbytes") is None:
        raise InvalidValueError(f"quantize: {options.quantize} must have bitsandbytes installed, found it missing")
    if options.quantize is not None and options.model.startswith("tiny"):
        raise InvalidValueError(f"quantize: must not be given for tiny models, found {options.quantize}")
    dtype = None if options.dtype is None else _DTYPES[options.dtype]
    if dtype is None and device.type == "cuda" and torch.cuda.is_bf16_supported():
        dtype = torch.bfloat16
    set_seed(options.seed)
    logging.disable_progress_bar()
    try:
        model, processor = load(
            options.model,
            device=str(device),
            dtype=dtype,
            attn_implementation=options.attn_implementation,
            quantize=options.quantize,
        )
    except (InvalidValueError, InvalidTypeError, OSError):
        raise
    except (ValueError, RuntimeError, ImportError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"model: {options.model} cannot be loaded ({first_line(error)})") from error
    return Answerer(model=model, processor=processor, decoding=decoding)


def _device(name: str | None) -> torch.device:
    here = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    here += ["mps"] if torch.backends.mps.is_available() else []
    if name is None:
        name = here[1] if len(here) > 1 else "cpu"
    if name not in here and f"{name}:0" not in here:
        raise InvalidValueError(f"device: must be one of {', '.join(here)}, found {name!r}")
    return torch.device(name)


def _pieces(answerer: Answerer, messages: Sequence[Any]) -> Generator[str, None, None]:
    """The answer as it comes, or at once where beams are asked for."""
    if answerer.decoding.num_beams == 1:
        yield from answerer.stream(messages)
    else:
        yield from answerer.answer([messages])


def _dialogue(answerer: Answerer, media: dict[str, Any]) -> int:
    """Questions line by line until the input ends; Ctrl-C ends an answer, not the dialogue."""
    shown = sys.stdin.isatty()
    if shown and importlib.util.find_spec("readline"):
        importlib.import_module("readline")  # the arrow keys and the history of input()
    messages: list[Any] = []
    while True:
        try:
            question = input("> " if shown else "").strip()
        except (EOFError, KeyboardInterrupt):
            if shown:
                print()
            return 0
        if not question:
            continue
        messages += conversation(question, **({} if messages else media))
        answer = ""
        with closing(_pieces(answerer, messages)) as pieces:
            try:
                for piece in pieces:
                    print(piece, end="", flush=True)
                    answer += piece
            except KeyboardInterrupt:
                pass
        print()
        messages.append({"role": "assistant", "content": answer})


def _answer_all(questions: list[Question], results: Iterable[dict[str, str]], out: Path) -> int:
    """Writes answers in order, each batch's before the next one begins, and a record's error in an answer's place."""
    failed: list[str] = []
    with out.open("a", encoding="utf-8") as file:
        for question, result in zip(questions, results, strict=True):
            if "error" in result:
                failed.append(f"{question.place}: {result['error']}")
            file.write(json.dumps({**question.record, **result}, ensure_ascii=False) + "\n")
            file.flush()
    if failed:
        more = f" (and {len(failed) - 1} more records without an answer)" if len(failed) > 1 else ""
        raise InvalidValueError(failed[0] + more)
    return 0
