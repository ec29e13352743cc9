"""Whatever comes in, and however: a session answers what the model answers for the same content offline."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avfusion.models import LiveSession
from tests.models.live import tiny

GREEDY = {"max_new_tokens": 6, "min_new_tokens": 6}
FAMILIES = ["llama", "mistral", "gemma3", "gpt2", "lora"]
QUESTIONS = ["e", "f g h", ""]


def last_spans(session: LiveSession) -> list[list[float]]:
    spans: list[list[float]] = session.kept.spans[0].tolist()
    return spans


@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty` with `inputs_embeds`:UserWarning")
@pytest.mark.parametrize("llm", FAMILIES)
def test_answers_at_every_moment(llm: str) -> None:
    """With every kind of layer: positions that turn, slide or are learned, and an adapter."""
    model, clip = tiny.model(llm), tiny.Clip(13)
    session = tiny.session(model)
    assert session.answer("e", **GREEDY) == tiny.offline(model, {}, "e", **GREEDY)
    answers = set()
    for number, part in enumerate(clip.parts()):
        seen = session.watch(**part).watermark
        if number % 4 == 2:
            now = clip.until(max(seen, 0.0))
            for question, options in zip(QUESTIONS, ({}, {"repetition_penalty": 1.7}, {"num_beams": 3}), strict=True):
                wanted = tiny.offline(model, now, question, **GREEDY, **options)
                assert session.answer(question, **GREEDY, **options) == wanted
                answers.add(wanted)
            assert "".join(session.ask("f g h", **GREEDY)) == tiny.offline(model, now, "f g h", **GREEDY)
    session.watch(ended=True)
    assert session.keeps_cache
    assert session.answer("e", **GREEDY) == tiny.offline(model, clip.until(99), "e", **GREEDY)
    assert len(answers) > 3  # what it sees and what it is asked matter


@pytest.mark.parametrize("llm", ["mamba", "static"])
def test_models_with_other_caches_read_anew(llm: str) -> None:
    """Of which it is not known that they can be forked."""
    model, clip = tiny.model(llm), tiny.Clip(7)
    session = tiny.session(model)
    for part in clip.parts():
        seen = session.watch(**part).watermark
    assert not session.keeps_cache
    assert session.answer("e", **GREEDY) == tiny.offline(model, clip.until(seen), "e", **GREEDY)


@settings(max_examples=20)
@given(st.data(), st.sampled_from(["llama", "gemma3"]), st.integers(0, 9), st.integers(0, 400))
def test_however_the_clip_is_cut(data: st.DataObject, llm: str, frames: int, samples: int) -> None:
    model, clip = tiny.model(llm), tiny.Clip(frames, samples)
    session = tiny.session(model)
    at: dict[str, int] = {"frames": 0, "samples": 0}
    for _ in range(data.draw(st.integers(0, 6))):
        begin = dict(at)
        at["frames"] = data.draw(st.integers(at["frames"], frames))
        at["samples"] = data.draw(st.integers(at["samples"], samples))
        watermark = {}
        if at["frames"] == frames and data.draw(st.booleans()):
            watermark["visual"] = torch.inf
        if at["samples"] == samples and data.draw(st.booleans()):
            watermark["audio"] = torch.inf
        chunk = {
            "video": clip.video(begin["frames"], at["frames"]),
            "waveform": clip.waveform(begin["samples"], at["samples"]),
        }
        session.watch(**chunk, watermark=watermark)
        if data.draw(st.booleans()):
            question = data.draw(st.sampled_from(QUESTIONS))
            known = [session.kept.embeddings.flatten(1, 2)]
            partial = data.draw(st.booleans())
            if partial:
                out, _ = model.connector.step({}, session._state.encoder.connector, partial=True)
                known.append(out.partial.embeddings[out.partial.mask][None])
            wanted = tiny.on_embeddings(model, torch.cat(known, 1), question, **GREEDY)
            assert session.answer(question, partial=partial, **GREEDY) == wanted
    rest = {"video": clip.video(at["frames"], frames), "waveform": clip.waveform(at["samples"], samples)}
    session.watch(**rest, ended=True)
    whole = {name: value for name, value in clip.until(99).items() if value is not None}
    if whole:
        embeddings = model.connect(model.encode(**whole))
        torch.testing.assert_close(
            session.kept.embeddings.flatten(1, 2), embeddings.embeddings[embeddings.mask][None], rtol=0, atol=1e-10
        )
        spans = embeddings.spans[embeddings.mask].unflatten(0, (-1, tiny.QUERIES))[:, 0]
        assert torch.equal(session.kept.spans[0], spans)
    assert session.answer("e", **GREEDY) == tiny.offline(model, whole, "e", **GREEDY)


def test_a_camera_without_a_microphone() -> None:
    model, clip = tiny.model(), tiny.Clip(7, 0)
    session = tiny.session(model, streams=["visual"])
    for part in clip.parts():
        seen = session.watch(part["video"]).watermark
    assert seen == 3.5
    assert session.answer("e", **GREEDY) == tiny.offline(model, clip.until(99), "e", **GREEDY)


def test_a_microphone_that_fails_is_not_waited_for() -> None:
    model, clip = tiny.model(), tiny.Clip(9, 100)
    waiting, impatient = tiny.session(model), tiny.session(model, max_wait=1.0)
    for part in clip.parts():
        assert waiting.watch(**part).watermark <= 1.5
        impatient.watch(**part)
    told = waiting.watch(watermark={"audio": 4.5})
    assert told.watermark == 4.5
    assert waiting.answer("e", **GREEDY) == tiny.offline(model, clip.until(4.5), "e", **GREEDY)
    again = tiny.Waveform.from_samples(torch.randn(1, 80, dtype=torch.float64), tiny.RATE, start=4.5)
    late = impatient.watch(waveform=again)  # which ends what it had heard of half a second
    assert late.late == {"visual": 0, "audio": 2}
    assert late.watermark == 4.5


def test_a_standing_instruction() -> None:
    model, clip = tiny.model(instruction_dim=4), tiny.Clip(7)
    words = torch.randn(1, 3, 4, dtype=torch.float64)
    session = tiny.session(model, instruction=words)
    for part in clip.parts(2):
        session.watch(**part)
    session.watch(ended=True)
    plain = tiny.session(model)
    plain.watch(**clip.until(99), ended=True)
    whole = model.connect(model.encode(**clip.until(99)), instruction=words)
    found = session.kept.embeddings.flatten(1, 2)
    torch.testing.assert_close(found, whole.embeddings[whole.mask][None], rtol=0, atol=1e-10)
    assert not torch.allclose(found, plain.kept.embeddings.flatten(1, 2), atol=1e-3)
    assert session.answer("e", **GREEDY) == tiny.offline(model, clip.until(99), "e", instruction=words, **GREEDY)


def test_nothing_is_left_to_read() -> None:
    """A question of no words, behind windows that are in the cache."""
    model, clip = tiny.model("gpt2"), tiny.Clip(7)
    session = tiny.session(model, prompt="a <av> {question}")
    session.watch(**clip.until(99), ended=True)
    count = session.kept.embeddings.flatten(1, 2).shape[1]
    ids = tiny.prepare_inputs(tiny.tokenizer(), ["a <av>"], [count])
    wanted = model.generate(**ids, **clip.until(99), **GREEDY)
    assert session.answer("", **GREEDY) == tiny.tokenizer().decode(wanted[0], skip_special_tokens=True)


def test_long_reads_in_parts_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip = tiny.model("gemma3"), tiny.Clip(13)
    monkeypatch.setattr("avfusion.models.live.prefill.AT_ONCE", 5)
    session = tiny.session(model)
    session.watch(**clip.until(99), ended=True)
    assert session.answer("e", **GREEDY) == tiny.offline(model, clip.until(99), "e", **GREEDY)


def test_half_precision_and_no_graph() -> None:
    clip: Any = tiny.Clip(9)
    model = tiny.model("gemma3").to(torch.bfloat16)
    model.connector.float()
    session = tiny.session(model)
    for part in clip.parts():
        session.watch(**part)
    assert session.kept.embeddings.dtype == torch.bfloat16
    assert not session.kept.embeddings.requires_grad
    cache = session._prefilled.cache
    assert not any(layer.keys.requires_grad for layer in cache.layers)
    assert not any(value.requires_grad for value in session.snapshot().values())
    with torch.inference_mode():
        session.watch(ended=True)
        assert "".join(session.ask("e", **GREEDY)) == session.answer("e", **GREEDY)
    assert session.answer("e", **GREEDY)
