"""Answers: alone, together, and as they are written."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from avfusion import InvalidValueError
from avfusion.media import load_media
from avfusion.models import conversation, rowwise_options
from examples.favor.answering import Answerer, Decoding
from examples.favor.timeline import attention_timeline, draw_timeline
from examples.favor.tiny import tiny
from tests.examples.favor.media import clip

GREEDY = Decoding(max_new_tokens=10, num_beams=1)


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    model, processor = tiny()
    return Answerer(model=model, processor=processor, decoding=GREEDY)


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    folder: Path = tmp_path_factory.mktemp("media")
    whole, silent = clip(folder / "whole.mp4", seconds=3), clip(folder / "silent.mp4", sound=False, seed=1)
    image = load_media(silent, frame_rate=2.0).video
    assert image is not None
    still = image._replace(
        pixels=image.pixels[:, :1], mask=image.mask[:, :1], spans=torch.tensor([[[-torch.inf, torch.inf]]]).double()
    )
    dialogue = [*conversation("what?", video=whole), {"role": "assistant", "content": "a cat"}]
    return [
        conversation("what?", video=whole),
        conversation("is it quiet?", video=silent),
        conversation("what is said?", audio=whole),
        conversation("a picture of what?", image=still),
        conversation("who speaks?", image=still, audio=whole),
        conversation("hello"),
        conversation("how many are there?", video=whole),
        [*dialogue, {"role": "user", "content": "and where?"}],
    ]


@pytest.mark.parametrize("beams", [1, 3])
def test_a_mixed_batch_gives_what_each_gives_alone(answerer: Answerer, conversations: Any, beams: int) -> None:
    asked = Answerer(model=answerer.model, processor=answerer.processor, decoding=GREEDY._replace(num_beams=beams))
    together = asked.tokens(conversations)
    assert together == [asked.tokens([messages])[0] for messages in conversations]
    assert len({tuple(tokens) for tokens in together}) > 1


def test_what_is_streamed_is_the_greedy_answer(answerer: Answerer, conversations: Any) -> None:
    for messages in conversations[:6]:
        pieces = list(answerer.stream(messages))
        assert len(pieces) > 1
        assert "".join(pieces) == answerer.answer([messages])[0]


def test_who_stops_listening_stops_the_model(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    answerer.model.language_model.register_forward_hook(lambda *_: steps.append(1))
    long = Answerer(model=answerer.model, processor=answerer.processor, decoding=GREEDY._replace(max_new_tokens=5000))
    before = threading.active_count()
    pieces = long.stream(conversation("hello"))
    next(pieces)
    pieces.close()
    assert len(steps) < 2000
    assert threading.active_count() == before


def test_an_error_of_the_model_reaches_who_listens(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(answerer.model, "generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(answerer.stream(conversation("hello")))


def test_only_what_was_answered_is_penalised(answerer: Answerer) -> None:
    ids, scores = torch.tensor([[7, 8, 9, 3]]), torch.ones(1, 12)
    prompt = {"input_ids": ids[:, :3], "attention_mask": torch.ones(1, 3)}
    kept = {"with_ids": True, "suppress_tokens": None, **Decoding().arguments()}
    (penalty,) = rowwise_options(answerer.model, **prompt, **kept)["logits_processor"]
    changed = penalty(ids, scores.clone()) != scores
    assert changed.nonzero()[:, 1].tolist() == [3]
    assert not (penalty(ids[:, :3], scores.clone()) != scores).any()


def test_published_decoding_is_the_default() -> None:
    arguments = Decoding().arguments()
    assert (arguments["num_beams"], arguments["do_sample"], arguments["repetition_penalty"]) == (5, False, 1.5)


@pytest.mark.parametrize(
    ("name", "value"), [("max_new_tokens", 0), ("num_beams", 0), ("temperature", -1.0), ("top_p", 0.0), ("top_p", 1.5)]
)
def test_decoding_that_makes_no_sense(name: str, value: float) -> None:
    with pytest.raises(InvalidValueError, match=f"^{name}: must be"):
        Decoding()._replace(**{name: value}).check()


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4])
def test_the_timeline_accounts_for_all_attention(answerer: Answerer, conversations: Any, number: int) -> None:
    messages = conversations[number]
    inputs = answerer.inputs([messages])
    found = attention_timeline(answerer.model, inputs)
    embeddings = int((inputs["input_ids"] == answerer.model.config.media_token_id).sum())
    assert found.attention.shape == (embeddings, len(found.spans))
    assert torch.allclose(found.attention.sum(1), torch.ones(embeddings))
    assert torch.allclose(found.kinds.sum(), torch.tensor(float(len(found.windows.unique()))))
    seen, both, heard = (found.kinds.sum(0) > 0).tolist()
    assert (seen or both) == (number != 2)
    assert (heard or both) == (number in (0, 2, 4))
    assert both == (number in (0, 4))
    outside = found.spans[:, 0] >= found.window_spans[:, 1:]
    assert not found.attention[outside].any()
    picture = draw_timeline(found, answerer.processor.load_clip(messages))
    assert [axis.get_ylabel() for axis in picture.axes][:2] == {
        1: ["seen", "embedding"],
        2: ["heard", "embedding"],
    }.get(number, ["seen", "embedding"] if number == 3 else ["seen", "heard"])


def test_each_visitor_gets_the_timeline_of_their_own_clip(
    answerer: Answerer, conversations: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once, of whom the second is in the middle of it while the first goes through all of it."""
    inputs = [answerer.inputs([conversations[number]]) for number in (0, 2)]
    alone = [attention_timeline(answerer.model, given) for given in inputs]
    met, first_is_done, encode = threading.Barrier(2), threading.Event(), answerer.model.encode

    def meet(**given: Any) -> Any:
        met.wait(timeout=60)
        if "pixel_values_videos" not in given:  # the second clip is sound alone
            assert first_is_done.wait(timeout=60)
        return encode(**given)

    def visit(number: int) -> Any:
        try:
            return attention_timeline(answerer.model, inputs[number])
        finally:
            if number == 0:
                first_is_done.set()

    monkeypatch.setattr(answerer.model, "encode", meet)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(visit, range(2)))
    for ours, theirs in zip(together, alone, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert not answerer.model.connector.projector._forward_pre_hooks


def test_threads_give_what_one_gives(conversations: Any) -> None:
    """Answers and timelines of many visitors at once, from the first call on."""
    model, processor = tiny()
    answerer = Answerer(model=model, processor=processor, decoding=GREEDY)
    tasks = [(number, picture) for number in range(5) for picture in (False, True)] * 2

    def visit(task: tuple[int, bool]) -> Any:
        number, picture = task
        messages = conversations[number]
        if picture:
            return attention_timeline(model, answerer.inputs([messages])).attention.tolist()
        return "".join(answerer.stream(messages))

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(visit, tasks))
    assert together == [visit(task) for task in tasks]


def test_there_is_no_timeline_of_text_alone(answerer: Answerer) -> None:
    with pytest.raises(InvalidValueError, match="inputs: must hold one clip, found 0"):
        attention_timeline(answerer.model, answerer.inputs([conversation("hello")]))
