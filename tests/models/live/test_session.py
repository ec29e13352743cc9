"""What a session costs, that questions leave it as it was, that failures lose nothing, and what it refuses."""

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from avfusion import AlignmentError, CheckpointError, InvalidTypeError, InvalidValueError, PlaceholderError, Video
from avfusion.models import KeepEveryNth, KeepNewest, LiveSession, prepare_inputs
from tests.models.live import tiny

GREEDY = {"max_new_tokens": 5, "min_new_tokens": 5}


def same(one: LiveSession, two: LiveSession) -> bool:
    """The same state, bit for bit, and caches that hold the same."""
    left, right = one.snapshot(), two.snapshot()
    assert left.keys() == right.keys()
    tensors = [(left[name], right[name]) for name in left]
    if one._prefilled.cache is not None:
        for pair in zip(one._prefilled.cache.layers, two._prefilled.cache.layers, strict=True):
            tensors += [(pair[0].keys, pair[1].keys), (pair[0].values, pair[1].values)]
            assert pair[0].get_seq_length() == pair[1].get_seq_length() == one._prefilled.length
    return all(torch.equal(*pair) for pair in tensors)


def reads(session: LiveSession) -> list[int]:
    """How many positions each call of the language model reads, from now on."""
    counts: list[int] = []

    def look(_: Any, __: Any, given: dict[str, Any]) -> None:
        text = given.get("inputs_embeds")
        counts.append((given["input_ids"] if text is None else text).shape[1])

    session.model.language_model.register_forward_pre_hook(look, with_kwargs=True)
    return counts


@pytest.mark.parametrize("llm", ["llama", "mistral", "gemma3", "lora"])
def test_questions_leave_the_session_as_it_was(llm: str) -> None:
    """Whether they are answered, dropped half way, never begun, closed or forgotten, and whatever comes meanwhile."""
    before = set(threading.enumerate())
    model, clip = tiny.model(llm), tiny.Clip(12)
    asked, quiet = tiny.session(model), tiny.session(model)
    open_ends = []
    for number, part in enumerate(clip.parts()):
        asked.watch(**part)
        quiet.watch(**part)
        if number == 5:
            first = asked.ask("e f", **GREEDY)
            wanted = asked.answer("e f", **GREEDY)
            found = [next(first)]
        if number == 7:
            asked.answer("e", max_new_tokens=40, min_new_tokens=40)  # beyond the sliding window
            dropped = asked.ask("e", **GREEDY)
            next(dropped)
            open_ends.append(dropped)
            asked.ask("g")
            closed = asked.ask("h", **GREEDY)
            next(closed)
            closed.close()
            forgotten = asked.ask("h", **GREEDY)
            next(forgotten)
            del forgotten
        if number == 9:
            found += first
        assert same(asked, quiet)
    assert "".join(found) == wanted  # as things stood when it was asked
    assert llm == "gemma3" or wanted != asked.answer("e f", **GREEDY)  # one of them sees no difference
    assert asked.answer("e", **GREEDY) == quiet.answer("e", **GREEDY)
    del open_ends, dropped, closed, first
    gc.collect()
    assert set(threading.enumerate()) <= before  # other tests' may have ended meanwhile


def test_nothing_is_read_or_encoded_twice() -> None:
    model, clip = tiny.model(), tiny.Clip(13)
    session = tiny.session(model)
    counts = reads(session)
    for part in clip.parts():
        session.watch(**part)
    finished = session.kept.numbers.shape[1]
    assert counts == [2 + tiny.QUERIES, *[tiny.QUERIES] * (finished - 1)]  # the prompt's beginning is read once
    eye, ear = model.visual_encoder, model.audio_encoders["audio"].encoder
    calls, counts[:] = (eye.calls, ear.calls), []
    session.answer("e f g", **GREEDY)
    assert (eye.calls, ear.calls) == calls
    assert counts == [tiny.QUERIES + 5, 1, 1, 1, 1]  # a partial window, five words, and what it says
    counts.clear()
    session.answer("e f g", partial=False, **GREEDY)
    assert counts == [5, 1, 1, 1, 1]


POLICIES: dict[str, Callable[[], Any]] = {
    "newest": lambda: KeepNewest(seconds=4.0, slack=0.5),
    "every second": lambda: KeepEveryNth(2, seconds=3.0, limit=12.0, slack=0.4),
    "last but one": lambda: lambda numbers, spans: torch.arange(len(numbers)) != len(numbers) - 2,
    "none": lambda: lambda numbers, spans: torch.zeros_like(numbers, dtype=torch.bool),
}


@pytest.mark.parametrize("llm", ["llama", "gemma3"])
@pytest.mark.parametrize("name", POLICIES)
def test_answers_are_from_what_is_remembered(name: str, llm: str) -> None:
    retention = POLICIES[name]()
    model, clip = tiny.model(llm), tiny.Clip(40)
    session, every = tiny.session(model, retention=retention), tiny.session(model)
    forgotten = 0
    for number, part in enumerate(clip.parts(2)):
        watched = session.watch(**part)
        every.watch(**part)
        forgotten += watched.forgotten
        numbers = session.kept.numbers[0]
        assert torch.equal(session.kept.embeddings, every.kept.embeddings[:, numbers])
        assert torch.equal(session.kept.spans, every.kept.spans[:, numbers])
        assert len(numbers) == every.kept.numbers.shape[1] - forgotten
        if number % 4 == 3:
            wanted = tiny.on_embeddings(model, session.kept.embeddings.flatten(1, 2), "e", **GREEDY)
            assert session.answer("e", partial=False, **GREEDY) == wanted
    assert forgotten
    assert session.kept.numbers.shape[1] < every.kept.numbers.shape[1]


def test_forgetting_costs_little_over_time() -> None:
    """Each embedding is read about ``1 / slack`` times in all, and what is read at once is bounded."""
    session = tiny.session(tiny.model(), retention=KeepNewest(seconds=20.0, slack=0.25))
    counts, clip = reads(session), tiny.Clip(800)
    for part in clip.parts(4):
        session.watch(**part)
        assert session.kept.numbers.shape[1] <= 20
    read = sum(counts) / (int(session.kept.finished) * tiny.QUERIES)
    assert 2 < read <= 4.2
    assert max(counts) <= 20 * tiny.QUERIES + 2


class Failing(torch.nn.Module):
    """Fails when its turn has come."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.fails = inner, False
        self.output_dim, self.tokens_per_frame = inner.output_dim, getattr(inner, "tokens_per_frame", 0)

    def forward(self, value: Any) -> Any:
        if self.fails:
            raise RuntimeError("out of order")
        return self.inner(value)


def fails_to_read(session: LiveSession, fails: Callable[[], bool]) -> None:
    def refuse(*_: Any) -> None:
        if fails():
            raise RuntimeError("out of order")

    session.model.language_model.get_output_embeddings().register_forward_hook(refuse)


@pytest.mark.parametrize("part", ["eye", "ear", "language model", "retention"])
def test_failures_lose_nothing(part: str) -> None:
    broken = [False]
    eye, ear = Failing(tiny.Eye()), Failing(tiny.Ear())
    ears = {"audio": tiny.BlockwiseAudioEncoder(encoder=ear, block=0.5)}
    model, clip = tiny.model("gemma3", visual_encoder=eye, audio_encoders=ears), tiny.Clip(10)

    def retention(numbers: Tensor, _: Tensor) -> Tensor:
        if part == "retention" and broken[0]:
            raise RuntimeError("out of order")
        return numbers >= 0

    session, whole = tiny.session(model, retention=retention), tiny.session(model)
    fails_to_read(session, lambda: part == "language model" and broken[0])
    failed = 0
    for chunk in clip.parts():
        whole.watch(**chunk)
        broken[0] = True
        eye.fails, ear.fails = part == "eye", part == "ear"
        try:
            session.watch(**chunk)
        except RuntimeError:
            failed += 1
            broken[0] = eye.fails = ear.fails = False
            session.watch(**chunk)
        broken[0] = eye.fails = ear.fails = False
    assert failed >= 4
    assert same(session, whole)


def test_an_error_while_answering_reaches_who_asked() -> None:
    model, clip = tiny.model(), tiny.Clip(8)
    session = tiny.session(model)
    session.watch(**clip.until(4.0))
    left = [3]

    def count() -> bool:
        left[0] -= 1
        return left[0] < 0

    fails_to_read(session, count)
    pieces = session.ask("e", **GREEDY)
    found = []
    with pytest.raises(RuntimeError, match="out of order"):
        found.extend(pieces)
    assert 1 <= len(found) <= 3  # some releases hold the last token back
    assert list(pieces) == []


@settings(max_examples=8)
@given(st.integers(0, 10), st.sampled_from([None, 3.0]))
def test_a_snapshot_goes_on_in_another_process(tmp_path_factory: Any, cut: int, seconds: float | None) -> None:
    model, clip = tiny.model("gemma3"), tiny.Clip(10)
    options = {"retention": None if seconds is None else KeepNewest(seconds)}
    session, other = tiny.session(model, **options), tiny.session(model, **options)
    parts = list(clip.parts())
    for part in parts[:cut]:
        session.watch(**part)
    path = tmp_path_factory.mktemp("snapshot") / "session.safetensors"
    save_file(session.snapshot(), path)
    other.restore(load_file(path))
    assert session.answer("e", **GREEDY) == other.answer("e", **GREEDY)
    for part in parts[cut:]:
        session.watch(**part)
        other.watch(**part)
    session.watch(ended=True)
    other.watch(ended=True)
    again = tiny.session(model, **options)
    again.restore(other.snapshot())
    left, right = session.snapshot(), again.snapshot()
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=0, atol=0)
    assert session.answer("e f", **GREEDY) == again.answer("e f", **GREEDY)
    with pytest.raises(InvalidValueError, match="ended: the stream has ended"):
        again.watch()


def test_a_snapshot_of_something_else_is_refused() -> None:
    session = tiny.session(tiny.model())
    session.watch(**tiny.Clip(8).until(4.0))
    before = session.snapshot()
    lacking = {name: value for name, value in before.items() if name != "kept.spans"}
    with pytest.raises(CheckpointError, match=r"found \['kept.spans'\] missing"):
        session.restore(lacking)
    with pytest.raises(CheckpointError, match=r"kept windows must be as many in every tensor"):
        session.restore({**before, "kept.spans": before["kept.spans"][:, 1:]})
    with pytest.raises(CheckpointError, match=r"kept.embeddings must have the language model's width 16, found 9"):
        session.restore({**before, "kept.embeddings": before["kept.embeddings"][..., :9]})
    after = session.snapshot()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_returned() -> None:
    session = tiny.session(tiny.model(), retention=KeepNewest(3.0, slack=0))
    clip = tiny.Clip(12)
    empty = session.watch()
    assert (empty.spans.shape, empty.late, empty.forgotten) == ((0, 2), {"visual": 0, "audio": 0}, 0)
    assert empty.watermark == -torch.inf
    watched = session.watch(**clip.until(4.0), watermark={"audio": 4.0, "visual": 2.0})
    assert watched.spans.tolist() == [[0.0, 1.5], [1.0, 2.5], [2.0, 3.5]]
    assert watched.watermark == 3.5  # the sound's last block waits for what comes after it
    watched = session.watch(clip.video(8, 12), clip.waveform(320, 480))
    assert watched.spans.tolist() == [[3.0, 4.5], [4.0, 5.5]]
    assert watched.forgotten == 2
    assert session.delay == 0.75


@pytest.mark.parametrize("frames", range(1, 8))
@pytest.mark.parametrize("last", ["with media", "alone", "alone, known of before"])
def test_the_watermark_stays_where_the_clip_ended(frames: int, last: str) -> None:
    """Whether the end finishes a window, a partial one, or none, because all frames were finalised before."""
    session, clip = tiny.session(tiny.model()), tiny.Clip(frames)
    seconds = frames / 2
    if last == "with media":
        watched = session.watch(**clip.until(seconds), ended=True)
    else:
        known = {"audio": torch.inf, "visual": torch.inf} if "known" in last else {}
        before = session.watch(**clip.until(seconds), watermark=known).watermark
        watched = session.watch(ended=True)
        assert watched.watermark >= before
    assert watched.watermark == seconds
    again = tiny.session(session.model)
    again.restore(session.snapshot())
    assert torch.equal(again.snapshot()["encoder.watermark"], torch.tensor([seconds], dtype=torch.float64))


REFUSED: dict[str, tuple[Callable[[LiveSession], Any], type[Exception], str]] = {
    "kind": (lambda s: s.watch(torch.rand(1, 1, 3, 2, 2)), InvalidTypeError, r"video: must be an avfusion.Video"),
    "batch": (
        lambda s: s.watch(Video.from_rate(torch.rand(2, 1, 3, 2, 2), 2.0)), InvalidValueError,
        r"video: must be one clip, found 2",
    ),
    "stream": (lambda s: s.watch(watermark={"speech": 1.0}), InvalidValueError, r"watermark: must .* \['speech'\]"),
    "nan": (lambda s: s.watch(watermark={"audio": torch.nan}), InvalidValueError, r"watermark: must be .*, found nan"),
    "back": (lambda s: s.watch(tiny.Clip(2).video(0, 1)), AlignmentError, r"visual: a frame must"),
    "placeholder": (lambda s: s.ask("a <av>"), PlaceholderError, r"question: must not hold the placeholder, found 2"),
    "question": (lambda s: s.answer(3), InvalidTypeError, r"question: must be a string, found int"),
    "options": (lambda s: s.ask("e", streamer=None), InvalidValueError, r"options: .*, found \['streamer'\]"),
    "beams": (lambda s: s.ask("e", num_beams=2), InvalidValueError, r"num_beams: must be 1 .* use answer\(\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_at_once_and_stays_as_it_was(name: str) -> None:
    call, error, message = REFUSED[name]
    model = tiny.model()
    session, other = tiny.session(model), tiny.session(model)
    for each in (session, other):
        each.watch(**tiny.Clip(8).until(4.0))
    with pytest.raises(error, match=message):
        call(session)
    assert same(session, other)


BUILT: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no model": (lambda: tiny.session(torch.nn.Linear(2, 2)), InvalidTypeError, r"model: must be an AudioVisualLang"),
    "training": (lambda: tiny.session(tiny.model().train()), InvalidValueError, r"model: must be in evaluation mode"),
    "encoder": (
        lambda: tiny.session(tiny.model(audio_encoders={"audio": tiny.Ear()})), InvalidTypeError,
        r"audio_encoders: 'audio' must be a streaming one, found Ear; .*BlockwiseAudioEncoder makes one",
    ),
    "stream": (lambda: tiny.session(tiny.model(), streams=["smell"]), InvalidValueError, r"streams: .*\['smell'\]"),
    "no stream": (lambda: tiny.session(tiny.model(), streams=[]), InvalidValueError, r"streams: .* found none"),
    "token": (
        lambda: tiny.session(tiny.model(placeholder_token_id=7)), InvalidValueError,
        r"placeholder: must be the model's placeholder token 7, found '<av>' = 2",
    ),
    "prompt": (lambda: tiny.session(tiny.model(), prompt="<av> c"), PlaceholderError, r"prompt: must hold '<av>' once"),
    "order": (
        lambda: tiny.session(tiny.model(), prompt="{question} <av>"), PlaceholderError, r"'{question}' once behind it"
    ),
    "twice": (
        lambda: tiny.session(tiny.model(), prompt="<av> <av> {question}"), PlaceholderError, r"prompt: must hold '<av>'"
    ),
    "retention": (
        lambda: tiny.session(tiny.model(), retention=lambda n, s: n).watch(**tiny.Clip(8).until(4.0)), InvalidTypeError,
        r"retention: must give a boolean tensor, found torch.int64",
    ),
    "choice": (
        lambda: tiny.session(tiny.model(), retention=lambda n, s: n[:1] > 0).watch(**tiny.Clip(8).until(4.0)),
        InvalidValueError, r"retention: must give \(window,\) = \(3,\), found shape \(1,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BUILT)
def test_refuses_parts_that_do_not_fit(name: str) -> None:
    call, error, message = BUILT[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("special", [True, False])
@given(st.text("abc defg\n.,{}question<>é", max_size=12))
def test_prompts_are_those_of_prepare_inputs(special: bool, question: str) -> None:
    """With a tokenizer whose words are not made apart, and that begins every text."""
    model = tiny.model()
    tokenizer = tiny.pieces()
    prompt = "USER: <av>\n{question}\nASSISTANT:"
    session = LiveSession(model, tokenizer, prompt=prompt, add_special_tokens=special)
    suffix = session._prompt.suffix(question)
    text = prompt.replace("{question}", question, 1)
    wanted = prepare_inputs(tokenizer, [text], [3], add_special_tokens=special)["input_ids"][0].tolist()
    assert [*session._prompt.prefix, *[tiny.PLACEHOLDER] * 3, *suffix] == wanted
