"""Many questions: read ahead by workers, answered in order, whatever the batches and whatever cannot be read."""

import gc
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import set_seed

from avfusion import InvalidValueError
from avfusion.media import load_media
from avfusion.models import conversation
from examples.favor.answering import Answerer, Decoding
from examples.favor.batches import answers
from examples.favor.processing_favor import FavorProcessor
from examples.favor.questions import Question
from examples.favor.tiny import tiny
from tests.examples.favor.media import clip


@pytest.fixture
def answerer() -> Answerer:
    model, processor = tiny()
    return Answerer(model=model, processor=processor, decoding=Decoding(max_new_tokens=5, num_beams=1))


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> list[Question]:
    folder: Path = tmp_path_factory.mktemp("media")
    whole, silent = clip(folder / "whole.mp4"), clip(folder / "silent.mp4", sound=False, seed=1)
    (folder / "broken.mp4").write_bytes(Path(whole).read_bytes()[:600])
    asked = [
        conversation("a", video=whole),
        conversation("b"),
        conversation("c", video=str(folder / "broken.mp4")),
        conversation("d", video=silent, audio=whole),
        conversation("e", video=whole),
    ]
    return [Question({}, messages, str(number)) for number, messages in enumerate(asked)]


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_and_workers_change_no_answer(
    answerer: Answerer, questions: list[Question], batch_size: int, workers: int
) -> None:
    found = list(answers(answerer, questions, batch_size=batch_size, workers=workers))
    assert "broken.mp4" in found[2]["error"]
    for index in (0, 1, 3, 4):
        assert found[index] == {"answer": answerer.answer([questions[index].messages])[0]}


def test_what_is_sampled_does_not_depend_on_workers(answerer: Answerer, questions: list[Question]) -> None:
    asked = Answerer(
        model=answerer.model, processor=answerer.processor, decoding=answerer.decoding._replace(temperature=5.0)
    )
    said = []
    for workers in (None, 0, 2):
        set_seed(3)
        said.append(
            [{"answer": asked.answer([one.messages])[0]} for one in questions[:2]]
            if workers is None
            else list(answers(asked, questions[:2], batch_size=1, workers=workers))
        )
    assert said[0] == said[1] == said[2]


def test_workers_read_the_next_batch_while_the_model_answers_this_one(
    answerer: Answerer, questions: list[Question], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read, generate = FavorProcessor.apply_chat_template, answerer.model.generate

    def noting(self: Any, conversations: Any, **options: Any) -> Any:
        inputs = read(self, conversations, **options)
        with (tmp_path / "read").open("a") as file:
            file.write(f"{os.getpid()}\n")
        return inputs

    def waiting(**inputs: Any) -> torch.Tensor:
        begun.append(1)
        wanted = min(len(begun) + 1, 4)  # the batch of this call, and the next
        deadline = time.monotonic() + 60
        while len((tmp_path / "read").read_text().split()) < wanted:
            assert time.monotonic() < deadline, "nothing is read while the model answers"
            time.sleep(0.01)
        return generate(**inputs)

    begun: list[int] = []
    monkeypatch.setattr(FavorProcessor, "apply_chat_template", noting)
    monkeypatch.setattr(answerer.model, "generate", waiting)
    good = [questions[index] for index in (0, 1, 3, 4)]
    assert all("answer" in result for result in answers(answerer, good, batch_size=1, workers=1))
    assert len(begun) == 4
    assert str(os.getpid()) not in (tmp_path / "read").read_text().split()


def test_what_the_model_refuses_does_not_keep_others_from_their_answers(
    answerer: Answerer, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = answerer.model.generate

    def picky(**inputs: Any) -> torch.Tensor:
        if "input_features" not in inputs:
            raise InvalidValueError("input_features: must be given\nand more")
        if len(inputs["input_ids"]) > 1:
            raise InvalidValueError("input_ids: must be one row")
        return generate(**inputs)

    monkeypatch.setattr(answerer.model, "generate", picky)
    found = list(answers(answerer, questions[:2], batch_size=2))
    assert found[0] == {"answer": answerer.answer([questions[0].messages])[0]}
    assert found[1] == {"error": "input_features: must be given"}


def test_a_worker_leaves_alone_what_its_parent_left_of_a_decoder(tmp_path: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        load_media(clip(tmp_path / "a.mp4"), size=28)  # its threads are not forked, and their end is never seen
        worker = multiprocessing.get_context("fork").Process(target=gc.collect)
        worker.start()
        worker.join(30)
        code = worker.exitcode
        worker.kill()
    finally:
        gc.enable()
    assert code == 0
