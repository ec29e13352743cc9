import itertools
import math
import re
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import Cache, TextStreamer

from avfusion import (
    DiversityLoss,
    Frames,
    InvalidTypeError,
    InvalidValueError,
    LLMEmbeddings,
    PlaceholderError,
    TokenStream,
    Video,
    Waveform,
)
from avfusion.models import AudioVisualOutput, EmbeddingsOutput, prepare_inputs

FAMILIES = ["llama", "gpt2", "qwen3"]
# Video with sound, silent video, sound alone, neither, and a clip whose sound outlasts its pictures.
FRAMES, SAMPLES = [6, 5, 0, 0, 3], [200, 0, 330, 0, 390]


def inputs_for(model: Any, tokenizer: Any, clips: dict[str, Any], *, answers: bool = False) -> dict[str, torch.Tensor]:
    """A prompt for each clip, of different lengths."""
    counts = model.num_placeholders(**clips)
    texts = ["which colour", "on screen", "which", "which colour was on screen", "on"]
    prompts = [f"<av> {text}" if count else text for text, count in zip(texts, counts.tolist(), strict=False)]
    replies = ["red", "blue", "red blue", "blue", "blue red"][: len(prompts)]
    return prepare_inputs(tokenizer, prompts, counts, answers=replies if answers else None)


def gradients(model: nn.Module) -> dict[str, torch.Tensor | None]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("llm", FAMILIES)
def test_row_of_a_batch_is_the_row_alone(make_model: Any, tokenizer: Any, media: Any, llm: str) -> None:
    model = make_model(llm)
    batch = media(FRAMES, SAMPLES, filler=float("nan"))
    inputs = inputs_for(model, tokenizer, batch.batch())
    together = model(**inputs, **batch.batch())
    answers = model.generate(**inputs, **batch.batch(), max_new_tokens=5, min_new_tokens=5)
    assert together.logits.isfinite().all()
    for row in range(5):
        real = inputs["attention_mask"][row].bool()
        alone = {name: value[row][real][None] for name, value in inputs.items()}
        clip = batch.batch([row])
        logits = model(**alone, **clip).logits
        torch.testing.assert_close(together.logits[row][real], logits[0], rtol=1e-4, atol=1e-5)
        answer = model.generate(**alone, **clip, max_new_tokens=5, min_new_tokens=5)
        assert torch.equal(answers[row], answer[0])


@pytest.mark.parametrize("llm", FAMILIES)
def test_media_is_seen_and_its_padding_is_not(make_model: Any, tokenizer: Any, media: Any, llm: str) -> None:
    model = make_model(llm)
    clips = media(FRAMES, SAMPLES).batch()
    inputs = inputs_for(model, tokenizer, clips)
    logits = model(**inputs, **clips).logits
    dirty = media(FRAMES, SAMPLES, filler=float("nan")).batch()
    assert torch.equal(model(**inputs, **dirty).logits, logits)
    clips["video"].pixels[0, 0] = 9.0
    clips["waveform"].samples[2, 0] = 9.0
    changed = (model(**inputs, **clips).logits - logits).abs().amax((1, 2)) > 1e-6
    assert changed.tolist() == [True, False, True, False, False]


def test_cached_steps_are_the_whole_text(make_model: Any, tokenizer: Any, media: Any) -> None:
    model = make_model()
    clips = media(FRAMES, SAMPLES).batch()
    inputs = inputs_for(model, tokenizer, clips, answers=True)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    whole = model(ids, mask, **clips).logits
    start = model(ids[:, :-2], mask[:, :-2], **clips, use_cache=True)
    step = model(ids[:, -2:], mask, cache=start.cache)
    assert step.embeddings is None
    torch.testing.assert_close(step.logits, whole[:, -2:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("llm", FAMILIES)
def test_later_steps_read_a_token_and_the_cache(make_model: Any, tokenizer: Any, media: Any, llm: str) -> None:
    model = make_model(llm)
    clips = media(FRAMES, SAMPLES).batch()
    inputs = inputs_for(model, tokenizer, clips)
    seen: list[tuple[int, int]] = []

    def look(_: Any, __: Any, given: dict[str, Any]) -> None:
        text = given["input_ids"] if given.get("inputs_embeds") is None else given["inputs_embeds"]
        cached = [value.get_seq_length() for value in given.values() if isinstance(value, Cache)]
        seen.append((text.shape[1], int(*cached)))

    model.language_model.register_forward_pre_hook(look, with_kwargs=True)
    model.generate(**inputs, **clips, max_new_tokens=3, min_new_tokens=3)
    length = inputs["input_ids"].shape[1]
    assert seen == [(length, 0), (1, length), (1, length + 1)]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frames=st.lists(st.integers(0, 8), min_size=1, max_size=3),
    data=st.data(),
    rate=st.sampled_from([2.0, 3.0, 1.3, 29.97]),
    start=st.sampled_from([0.0, 0.31, -0.5, 4.0]),
    absent=st.booleans(),
)
def test_placeholders_are_counted_without_encoding(
    make_model: Any, make_connector: Any, frames: list[int], data: Any, rate: float, start: float, absent: bool
) -> None:
    model = make_model(connector=make_connector(learn_absent_tokens=absent))
    samples = data.draw(st.lists(st.integers(0, 400), min_size=len(frames), max_size=len(frames)))
    clips = {
        "video": Video.from_rate(torch.rand(len(frames), max(frames), 3, 2, 2), rate, lengths=frames),
        "waveform": Waveform.from_samples([torch.randn(count) for count in samples], 80, start=start),
    }
    for names in (["video"], ["waveform"], ["video", "waveform"]):
        given_clips = {name: clips[name] for name in names}
        model.audio_encoders["audio"].calls = 0
        counts = model.num_placeholders(**given_clips)
        assert model.audio_encoders["audio"].calls == 0
        features = model.encode(**given_clips)
        assert torch.equal(counts, model.connect(features).mask.sum(1))
        assert torch.equal(counts, model.num_placeholders(features=features))


def test_still_image_is_counted(make_model: Any) -> None:
    model = make_model()
    clips = {
        "video": Video.from_image(torch.rand(2, 3, 2, 2)),
        "waveform": Waveform.from_samples([torch.randn(400), torch.randn(0)], 80),
    }
    counts = model.num_placeholders(**clips)
    assert counts.tolist() == [2 * 5, 2]  # 10 frames: windows of 3 every 2
    assert torch.equal(counts, model.connect(model.encode(**clips)).mask.sum(1))


def test_encoder_without_a_timeline_is_run(make_model: Any, slow_ear: Any, media: Any) -> None:
    slow = slow_ear()
    clips = media(FRAMES, SAMPLES).batch()
    counts = make_model(audio_encoders={"audio": slow}).num_placeholders(**clips)
    assert slow.calls == 1
    assert torch.equal(counts, make_model().num_placeholders(**clips))


def test_features_are_what_the_media_give(make_model: Any, tokenizer: Any, media: Any) -> None:
    model = make_model()
    clips = media(FRAMES, SAMPLES).batch()
    inputs = inputs_for(model, tokenizer, clips, answers=True)
    features = model.encode(**clips)
    assert {name: type(value) for name, value in features.items()} == {"visual": Frames, "audio": TokenStream}
    model.audio_encoders["audio"].calls = 0
    cached = model(**inputs, features={"visual": features["visual"], "audio": features["audio"]})
    assert model.audio_encoders["audio"].calls == 0
    fresh = model(**inputs, **clips)
    assert torch.equal(cached.logits, fresh.logits)
    assert torch.equal(cached.loss, fresh.loss)
    half = {name: value._replace(tokens=value.tokens.half()) for name, value in features.items()}
    torch.testing.assert_close(model(**inputs, features=half).logits, fresh.logits, rtol=1e-2, atol=1e-2)


def test_frozen_encoders_keep_no_graph(make_model: Any, media: Any) -> None:
    model = make_model()
    clips = media(FRAMES, SAMPLES).batch()
    model.visual_encoder.requires_grad_(False)
    features = model.encode(**clips)
    assert not features["visual"].tokens.requires_grad
    assert features["audio"].tokens.requires_grad


def test_loss_is_next_token_loss_plus_diversity(make_model: Any, tokenizer: Any, media: Any) -> None:
    model = make_model(diversity_loss=DiversityLoss(weight=0.5))
    clips = media(FRAMES, SAMPLES).batch()
    inputs = inputs_for(model, tokenizer, clips, answers=True)
    out = model(**inputs, **clips)
    assert isinstance(out, AudioVisualOutput)
    assert isinstance(out.embeddings, EmbeddingsOutput)
    next_token = nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten())
    torch.testing.assert_close(out.language_model_loss, next_token)
    torch.testing.assert_close(
        out.diversity_loss, DiversityLoss(weight=0.5)(out.embeddings.query_states, out.embeddings.window_mask)
    )
    assert out.diversity_loss != 0
    torch.testing.assert_close(out.loss, out.language_model_loss + out.diversity_loss)
    learned = int((inputs["labels"] != -100).sum())
    shared = model(**inputs, **clips, num_items_in_batch=2 * learned)  # of a batch that Trainer cut in two
    torch.testing.assert_close(shared.language_model_loss, next_token / 2)
    model.diversity_loss = None
    plain = model(**inputs, **clips)
    assert plain.diversity_loss is None
    assert torch.equal(plain.loss, plain.language_model_loss)
    assert model(inputs["input_ids"], inputs["attention_mask"], **clips).loss is None


def test_every_modality_combination_trains_the_same_parameters(make_model: Any, tokenizer: Any, media: Any) -> None:
    """Whether a modality lacks in some rows or in the whole batch, in each of the 2ⁿ ways."""
    clips = media([6, 5, 0, 0], [200, 0, 330, 0], filler=float("nan"))
    batches = [clips.batch([row]) for row in range(4)]
    batches += [clips.batch(list(rows)) for rows in itertools.combinations(range(4), 3)]
    batches += [clips.batch()]
    batches += [{name: value} for name, value in clips.batch([0, 0, 0]).items()]
    for batch in batches:
        model = make_model().train()
        model.requires_grad_(False)
        model.connector.requires_grad_(True)
        model.language_model.requires_grad_(True)
        model(**inputs_for(model, tokenizer, batch, answers=True), **batch).loss.backward()
        for name, grad in gradients(model).items():
            assert (grad is not None) == name.startswith(("connector", "language_model")), name
            assert grad is None or grad.isfinite().all(), name


@pytest.mark.parametrize("features", [None, {}, {"audio": None}])
def test_text_alone_gives_the_connector_zero_gradients(make_model: Any, tokenizer: Any, features: Any) -> None:
    model = make_model().train()
    inputs = prepare_inputs(tokenizer, ["which colour", "on"], [0, 0], answers=["red", "blue"])
    out = model(**inputs, features=features)
    out.loss.backward()
    assert out.diversity_loss == 0
    found = {name: grad for name, grad in gradients(model.connector).items() if grad is not None}
    assert set(found) == set(dict(model.connector.named_parameters()))
    assert not any(grad.any() for grad in found.values())
    plain = model.language_model(**inputs)
    torch.testing.assert_close(out.language_model_loss, plain.loss)
    asked = prepare_inputs(tokenizer, ["which"], [0])
    assert model.generate(**asked, max_new_tokens=2, min_new_tokens=2).shape == (1, 2)


def test_questions_share_a_clip(make_model: Any, tokenizer: Any, media: Any) -> None:
    model = make_model()
    clips = media(FRAMES, SAMPLES)
    index = torch.tensor([2, 0, 2, -1, 4])
    counts = torch.where(index >= 0, model.num_placeholders(**clips.batch())[index], 0)
    prompts = ["<av> which", "<av> on screen", "<av> was", "which", "<av> colour"]
    inputs = prepare_inputs(tokenizer, prompts, counts)
    model.audio_encoders["audio"].calls = 0
    shared = model(**inputs, **clips.batch(), media_index=index)
    assert model.audio_encoders["audio"].calls == 1
    assert shared.embeddings.mask.shape[0] == 5
    repeated = model(**inputs, **clips.batch([2, 0, 2, 3, 4]))
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(shared.logits[real], repeated.logits[real], rtol=1e-4, atol=1e-5)
    options = {"max_new_tokens": 4, "min_new_tokens": 4}
    assert torch.equal(
        model.generate(**inputs, **clips.batch(), media_index=index, **options),
        model.generate(**inputs, **clips.batch([2, 0, 2, 3, 4]), **options),
    )


def test_instruction_belongs_to_the_row(make_model: Any, make_connector: Any, tokenizer: Any, media: Any) -> None:
    model = make_model(connector=make_connector(instruction_dim=4))
    clips = media(FRAMES, SAMPLES)
    words = torch.randn(3, 2, 4)
    words[1, 1] = float("nan")
    guide = {"instruction": words, "instruction_mask": torch.tensor([[True, True], [True, False], [True, True]])}
    index = torch.tensor([0, 0, 2])
    counts = model.num_placeholders(**clips.batch())[index]
    inputs = prepare_inputs(tokenizer, ["<av> which"] * 3, counts)
    shared = model(**inputs, **clips.batch(), media_index=index, **guide).logits
    repeated = model(**inputs, **clips.batch([0, 0, 2]), **guide).logits
    torch.testing.assert_close(shared, repeated, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(shared[0, -1], shared[1, -1], atol=1e-5)


class Collect:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ended = False

    def put(self, value: torch.Tensor) -> None:
        self.tokens += value.flatten().tolist()

    def end(self) -> None:
        self.ended = True


@pytest.mark.parametrize("llm", FAMILIES)
def test_generation_as_in_transformers(
    make_model: Any, tokenizer: Any, media: Any, llm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model(llm)
    clips = media(FRAMES, SAMPLES)
    inputs = inputs_for(model, tokenizer, clips.batch())
    wide = model.generate(**inputs, **clips.batch(), num_beams=3, max_new_tokens=4, min_new_tokens=4)
    assert wide.shape == (5, 4)
    alone = {name: value[4][inputs["attention_mask"][4].bool()][None] for name, value in inputs.items()}
    beam = model.generate(**alone, **clips.batch([4]), num_beams=3, max_new_tokens=4, min_new_tokens=4)
    assert torch.equal(wide[4], beam[0])
    drawn = [
        model.generate(**inputs, **clips.batch(), do_sample=True, temperature=5.0, max_new_tokens=8, min_new_tokens=8)
        for _ in range(2)
    ]
    assert not torch.equal(*drawn)
    collect = Collect()
    said = model.generate(**alone, **clips.batch([4]), streamer=collect, max_new_tokens=4, min_new_tokens=4)
    assert (collect.tokens, collect.ended) == (said[0].tolist(), True)
    streamer = TextStreamer(tokenizer, skip_prompt=False)
    model.generate(**alone, **clips.batch([4]), streamer=streamer, max_new_tokens=4, min_new_tokens=4)
    assert capsys.readouterr().out.split() == tokenizer.decode(said[0]).split()
    full = model.generate(**inputs, **clips.batch(), max_new_tokens=2, return_dict_in_generate=True, output_scores=True)
    assert len(full.scores) == full.sequences.shape[1]


def test_generation_ends_each_row_for_itself(make_model: Any, tokenizer: Any, media: Any) -> None:
    model = make_model()
    clips = media(FRAMES, SAMPLES)
    inputs = inputs_for(model, tokenizer, clips.batch())
    free = model.generate(**inputs, **clips.batch(), max_new_tokens=6, eos_token_id=-1)
    end = int(free[0, 2])
    ended = model.generate(**inputs, **clips.batch(), max_new_tokens=6, eos_token_id=end, pad_token_id=23)
    for row, whole in zip(ended.tolist(), free.tolist(), strict=True):
        kept = whole[: whole.index(end) + 1] if end in whole else whole
        assert row == (kept + [23] * 6)[: len(row)]


@pytest.mark.parametrize("mask", [[[1, 1, 1, 0]], [[1, 0, 1, 1]], [[0, 0, 0, 0]]])
def test_generation_refuses_padding_after_text(make_model: Any, mask: list[list[int]]) -> None:
    with pytest.raises(InvalidValueError, match=r"must be on the left .* in rows \[0\]"):
        make_model().generate(torch.tensor([[4, 5, 6, 7]]), torch.tensor(mask))


def test_placeholder_may_lie_outside_the_vocabulary(make_model: Any, media: Any) -> None:
    inside, clips = make_model(), media([3], [0]).batch()
    outside = make_model(language_model=inside.language_model, connector=inside.connector, placeholder_token_id=99)
    outside.visual_encoder.load_state_dict(inside.visual_encoder.state_dict())
    ids = torch.tensor([[4, 2, 2, 5]])
    logits = outside(torch.where(ids == 2, 99, ids), video=clips["video"]).logits
    assert torch.equal(logits, inside(ids, video=clips["video"]).logits)


@pytest.mark.parametrize("llm", FAMILIES)
def test_gradient_checkpointing_computes_the_same(make_model: Any, tokenizer: Any, media: Any, llm: str) -> None:
    model = make_model(llm).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    clips = media(FRAMES, SAMPLES).batch()
    inputs = inputs_for(model, tokenizer, clips, answers=True)
    runs = []
    for switch in (model.gradient_checkpointing_disable, model.gradient_checkpointing_enable):
        switch()
        model.zero_grad()
        model(**inputs, **clips, use_cache=False).loss.backward()
        runs.append({name: grad.clone() for name, grad in gradients(model).items() if grad is not None})
    assert model.connector.projector.window_encoder.gradient_checkpointing
    assert set(runs[0]) == set(runs[1])
    for name, grad in runs[0].items():
        torch.testing.assert_close(runs[1][name], grad, rtol=1e-4, atol=1e-6)


def test_attention_backends_agree(make_model: Any, tokenizer: Any, media: Any) -> None:
    model = make_model()
    clips = media(FRAMES, SAMPLES).batch()
    inputs = inputs_for(model, tokenizer, clips)
    real = inputs["attention_mask"].bool()
    logits = []
    for name in ("sdpa", "eager"):
        model.set_attn_implementation(name)
        assert model.language_model.config._attn_implementation == name
        logits.append(model(**inputs, **clips).logits[real])
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(InvalidValueError, match="flash"):
        model.set_attn_implementation("flash_attention_2")
    assert model.language_model.config._attn_implementation == "eager"


def test_parts_may_have_different_dtypes(make_model: Any, tokenizer: Any, media: Any) -> None:
    model = make_model()
    clips = media(FRAMES, SAMPLES).batch()
    inputs = inputs_for(model, tokenizer, clips, answers=True)
    expected = model(**inputs, **clips).logits
    model.language_model.bfloat16()
    model.visual_encoder.double()
    out = model(**inputs, **clips)
    assert out.logits.dtype == torch.bfloat16
    assert out.embeddings.embeddings.dtype == torch.float32
    out.loss.backward()
    torch.testing.assert_close(out.logits.float(), expected, rtol=0.1, atol=0.1)


class Mean(nn.Module):
    """A connector of another kind: one embedding for each frame or token."""

    def __init__(self) -> None:
        super().__init__()
        self.llm_dim = 16
        self.proj = nn.Linear(5, 16)

    def forward(self, visual: Frames) -> LLMEmbeddings:
        states = self.proj(torch.where(visual.mask[..., None], visual.tokens, 0).mean(2))
        return LLMEmbeddings(states, visual.frame_mask, visual.spans, states.flatten(0, 1)[:, None])


def test_connector_of_another_class(make_model: Any, tokenizer: Any, media: Any) -> None:
    model = make_model(connector=Mean(), audio_encoders=None).train()
    clips = {"video": media([2, 3], [0, 0]).batch()["video"]}
    assert model.num_placeholders(**clips).tolist() == [2, 3]
    model(**inputs_for(model, tokenizer, clips, answers=True), **clips).loss.backward()
    assert model.connector.proj.weight.grad.any()
    model.zero_grad()
    model(**prepare_inputs(tokenizer, ["which"], [0], answers=["red"])).loss.backward()
    assert model.connector.proj.weight.grad is not None


def test_misfitting_parts_are_refused(make_model: Any, make_connector: Any, language_models: Any) -> None:
    ear = next(iter(make_model().audio_encoders.values()))
    wide = make_connector()
    wide.projector.llm_dim = 20
    for parts, error, message in [
        ({"connector": wide}, InvalidValueError, "connector: llm_dim must be the language model's 16, found 20"),
        ({"audio_encoders": {"speech": ear}}, InvalidValueError, r"among the connector's \['audio', 'visual'\]"),
        ({"audio_encoders": {"visual": ear}}, InvalidValueError, "use visual_encoder"),
        (
            {"audio_encoders": {"audio": type(ear)(4)}},
            InvalidValueError,
            "must be the connector's 6, found 4",
        ),
        ({"visual_encoder": len}, InvalidTypeError, "visual: must be an nn.Module, found builtin"),
        ({"diversity_loss": nn.Identity()}, InvalidTypeError, "must be a DiversityLoss, found Identity"),
        ({"diversity_loss": DiversityLoss(reduction="none")}, InvalidValueError, "reduction must be"),
    ]:
        with pytest.raises(error, match=message):
            make_model(**parts)


class Regular(nn.Module):
    """An encoder of sound that tells its rate."""

    def __init__(self, rate: float, tokens_per_step: int = 1, output_dim: int = 6) -> None:
        super().__init__()
        self.rate, self.tokens_per_step, self.output_dim = rate, tokens_per_step, output_dim

    def forward(self, waveform: Waveform) -> TokenStream:
        raise AssertionError("only what it tells of itself is looked at")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rate=st.floats(0.5, 60.0), steps=st.integers(1, 4), first=st.integers(3, 6))
def test_an_encoder_is_refused_exactly_where_clips_would_fail(
    make_model: Any, make_connector: Any, rate: float, steps: int, first: int
) -> None:
    """8 slots a frame: an encoder that is refused fails on some clip of its own rate, wherever its first token is."""
    connector, ear = make_connector(), Regular(rate, steps)
    if math.ceil(rate / 2 - 1e-9) * steps <= 8:
        make_model(connector=connector, audio_encoders={"audio": ear})
        return
    with pytest.raises(InvalidValueError, match="audio: must have at most the connector's 8 tokens a frame"):
        make_model(connector=connector, audio_encoders={"audio": ear})
    count = math.ceil(rate * 40)
    times = ((torch.arange(count, dtype=torch.float64) + first / 7) / rate).repeat_interleave(steps)[None]
    stream = TokenStream(torch.zeros(1, count * steps, 6), torch.ones(1, count * steps, dtype=torch.bool), times)
    with pytest.raises(InvalidValueError, match="audio: "):
        connector(audio=stream)


def test_every_misfit_is_in_one_error(make_model: Any, make_connector: Any) -> None:
    eye = make_model().visual_encoder
    eye.output_dim, eye.tokens_per_frame = 7, 49
    wide = make_connector()
    wide.projector.llm_dim = 20
    with pytest.raises(InvalidValueError) as caught:
        make_model(connector=wide, visual_encoder=eye, audio_encoders={"audio": Regular(50.0, output_dim=4)})
    for part in ("llm_dim must be .* 16, found 20", "visual: output_dim must be .* 5, found 7", "found 49", "found 25"):
        assert re.search(part, str(caught.value)), part
    with pytest.raises(InvalidValueError, match=r"visual: must have output_dim.* found Linear without"):
        make_model(visual_encoder=nn.Linear(2, 2))


@pytest.mark.parametrize("features", [None, {}, {"audio": None}])
def test_text_alone_runs_no_connector_that_is_not_trained(make_model: Any, tokenizer: Any, features: Any) -> None:
    model, calls = make_model().train(), []
    model.connector.register_forward_hook(lambda *_: calls.append(1))
    asked = prepare_inputs(tokenizer, ["which", "on screen"], [0, 0])
    plain = model.eval().language_model.generate(**asked, max_new_tokens=2, min_new_tokens=2)[:, -2:]
    options = {"max_new_tokens": 2, "min_new_tokens": 2, "features": features}
    assert torch.equal(model.generate(**asked, **options), plain)
    assert torch.equal(model.generate(**asked, media_index=torch.tensor([-1, -1]), **options), plain)
    with torch.no_grad():
        assert model(**asked, features=features).embeddings is None
    model.train().connector.requires_grad_(False)
    inputs = prepare_inputs(tokenizer, ["which colour", "on"], [0, 0], answers=["red", "blue"])
    model(**inputs, features=features).loss.backward()
    assert not calls


def test_what_is_frozen_does_not_drop_out(make_model: Any, make_connector: Any, tokenizer: Any, media: Any) -> None:
    connector = make_connector()
    for module in connector.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    eye = nn.Sequential(make_model().visual_encoder, nn.Identity())
    eye.output_dim = 5
    model, clips = make_model(connector=connector, visual_encoder=eye), media([6, 5], [200, 330]).batch()
    inputs = inputs_for(model, tokenizer, clips, answers=True)
    model.train()
    assert connector.training
    assert eye.training
    assert model(**inputs, **clips).loss != model(**inputs, **clips).loss
    for part in (connector, eye):
        part.requires_grad_(False)
    model.train()
    assert not any(module.training for part in (connector, eye) for module in part.modules())
    assert model.training
    assert model.language_model.training
    assert model(**inputs, **clips).loss == model(**inputs, **clips).loss
    connector.requires_grad_(True)
    assert model.train().connector.training


def test_bad_input_is_refused(make_model: Any, media: Any) -> None:
    model = make_model()
    clips = media([3], [0]).batch()
    ids = torch.tensor([[4, 2, 2, 5]])
    silent = make_model(audio_encoders=None)
    blind = make_model(visual_encoder=None)
    for call, error, message in [
        (lambda: model(torch.tensor([[4, 2, 5]]), **clips), PlaceholderError, "row 0 has 1, needs 2"),
        (lambda: model(ids), PlaceholderError, "row 0 has 2, needs 0"),
        (lambda: model.generate(ids), PlaceholderError, "row 0 has 2, needs 0"),
        (lambda: model(ids.expand(2, -1), **clips), InvalidValueError, "must be given for 1 clips and 2 rows"),
        (lambda: model(ids, media_index=torch.tensor([0, 0]), **clips), InvalidValueError, r"found shape \(2,\)"),
        (lambda: model(ids, media_index=torch.tensor([1]), **clips), InvalidValueError, "one of 1 clips"),
        (lambda: model(ids, media_index=[0], **clips), InvalidTypeError, "int64 tensor, found list"),
        (lambda: model(ids, media_index=torch.tensor([0])), InvalidValueError, "one of 0 clips"),
        (lambda: model(ids, features={"smell": None, "sound": None}), PlaceholderError, "row 0 has 2, needs 0"),
        (
            lambda: model.num_placeholders(features={"smell": model.encode(**clips)["audio"]}),
            InvalidValueError,
            "smell",
        ),
        (lambda: model(ids, torch.ones(1, 5), **clips), InvalidValueError, r"attention_mask: .* found shape \(1, 5\)"),
        (lambda: model.generate(ids, torch.ones(1, 5), **clips), InvalidValueError, r"found shape \(1, 5\)"),
        (lambda: model(ids, torch.ones(1, 3), **clips), InvalidValueError, r"attention_mask: .* found shape \(1, 3\)"),
        (lambda: model(ids, labels=ids[:, :2], **clips), InvalidValueError, r"labels: .* found shape \(1, 2\)"),
        (lambda: model(ids, features={}, **clips), InvalidValueError, "features: must not come with"),
        (lambda: silent(ids, **clips), InvalidValueError, "waveform: this model has no audio_encoders"),
        (lambda: blind(ids, **clips), InvalidValueError, "video: this model has no visual_encoder"),
        (lambda: blind.num_placeholders(**clips), InvalidValueError, "video: this model has no visual_encoder"),
        (lambda: silent.num_placeholders(**clips), InvalidValueError, "waveform: this model has no audio_encoders"),
        (model.num_placeholders, InvalidValueError, "one must be given, found none"),
        (lambda: model.connect({}), InvalidValueError, "batch: must be given"),
    ]:
        with pytest.raises(error, match=message):
            call()
