"""Conversations and files to what the model takes: every template, its labels, shared clips, Trainer, workers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from avfusion import InvalidTypeError, InvalidValueError, MediaError, Video, Waveform
from avfusion.media import write_video
from avfusion.models import AudioVisualProcessor, Clip, MediaBatch, conversation
from tests.models.templates import STYLES, tokenizer_of


@pytest.fixture
def make(make_model: Any) -> Any:
    """A model and its processor, for a style of template."""

    def build(style: str | None = "qwen3", **options: Any) -> tuple[Any, AudioVisualProcessor]:
        tokenizer = tokenizer_of(style)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=0,
        )
        placeholder = tokenizer.convert_tokens_to_ids("<av>")
        torch.manual_seed(0)
        model = make_model(language_model=LlamaForCausalLM(config), placeholder_token_id=placeholder)
        return model, AudioVisualProcessor.from_model(model, tokenizer, sample_rate=80, **options)

    return build


def sound(samples: int = 200, seed: int = 0) -> Waveform:
    return Waveform.from_samples([torch.randn(samples, generator=torch.Generator().manual_seed(seed))], 80)


def film(frames: int = 5) -> Video:
    return Video.from_rate(torch.rand(1, frames, 3, 2, 2, generator=torch.Generator().manual_seed(1)), 2.0)


def answered(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


words = st.text("abc é.", min_size=1, max_size=6).filter(lambda text: text.strip() == text)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    style=st.sampled_from([*STYLES, None]),
    turns=st.lists(st.tuples(words, words), min_size=1, max_size=3),
    system=st.none() | words,
    heard=st.booleans(),
    where=st.integers(0, 2),
)
def test_answers_and_their_ends_are_learned_after_the_very_prompt_that_is_asked(
    make: Any, style: str | None, turns: list[tuple[str, str]], system: str | None, heard: bool, where: int
) -> None:
    made = make.__dict__.setdefault("made", {})
    if style not in made:
        made[style] = make(style)
    model, processor = made[style]
    tokenizer, own = processor.tokenizer, STYLES[style] if style else None
    messages: list[dict[str, Any]] = []
    if system is not None:
        messages.append({"role": "system", "content": system})
    for number, (asked, said) in enumerate(turns):
        part = [{"type": "audio", "audio": sound()}] if heard and number == where % len(turns) else []
        messages += [{"role": "user", "content": [*part, {"type": "text", "text": asked}]}, answered(said)]
    taught = processor.apply_chat_template([messages], return_labels=True)
    ids, labels = taught["input_ids"][0], taught["labels"][0]
    end, opening, within = (own.end, own.opening, own.within) if own else ("</s>", "", "")
    learned = [within + said + end for _, said in turns[:-1]] + [opening + turns[-1][1] + end]
    assert tokenizer.decode(labels[labels != -100]) == "".join(learned)
    assert torch.equal(ids[labels != -100], labels[labels != -100])
    asked_inputs = processor.apply_chat_template([messages[:-1]], return_labels=True)
    asked_ids, known = asked_inputs["input_ids"][0], asked_inputs["labels"][0]
    assert torch.equal(ids[: len(asked_ids)], asked_ids)
    assert tokenizer.decode(known[known != -100]) == "".join(learned[:-1])
    assert system is None or system in tokenizer.decode(ids)
    places = (ids == processor.placeholder_id).sum()
    assert places == (model.num_placeholders(waveform=sound()).item() if heard else 0)
    if style and own and own.bos and own.bos not in own.special:
        assert (ids == tokenizer.bos_token_id).sum() <= 1
    if own and not heard and (system is None or own.own_system):  # the template's own text, no more and no less
        flat = [
            {**one, "content": one["content"] if isinstance(one["content"], str) else one["content"][0]["text"]}
            for one in messages[:-1]
        ]
        expected = tokenizer.apply_chat_template(flat, add_generation_prompt=True, return_dict=False)
        assert asked_ids.tolist() == expected


def test_the_text_shows_the_clip_once(make: Any) -> None:
    _, processor = make("llama3")
    text = processor.apply_chat_template(conversation("What?", audio=sound()), tokenize=False)
    assert text == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<av>\nWhat?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


@pytest.mark.parametrize("style", ["gemma2", "mistral"])
def test_a_system_prompt_joins_the_first_question_where_the_template_has_no_place_for_it(make: Any, style: str) -> None:
    _, processor = make(style)
    messages = [{"role": "system", "content": "Be short."}, *conversation("What?", audio=sound()), answered("This.")]
    for some in (messages[:-1], messages, [*messages, *conversation("And then?")]):
        text = processor.apply_chat_template(some, tokenize=False)
        assert text.count("Be short.\n\n<av>\nWhat?") == text.count("Be short.") == 1


def test_generation_tags_say_what_is_learned(make: Any) -> None:
    _, processor = make("smollm2")
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}A: {%- generation -%} {{ m.content }}!"
        "{% endgeneration %};{% else %}Q: {{ m.content }} {% endif %}{% endfor %}"
    )
    messages = [*conversation("a?"), answered("b"), *conversation("c?"), answered("d")]
    inputs = processor.apply_chat_template(messages, template, return_labels=True)
    labels = inputs["labels"][0]
    decode = processor.tokenizer.decode
    assert decode(labels[labels != -100]) == "b!d!"
    assert decode(inputs["input_ids"][0]).endswith("Q: a? A:b!;Q: c? A:d!;")


def test_a_thinking_model_learns_the_empty_thought_unless_it_is_given(make: Any) -> None:
    _, processor = make("qwen3")
    messages = [*conversation("a?"), answered("b")]
    decode = processor.tokenizer.decode
    for options, learned in (({}, "<think>\n\n</think>\n\nb<|im_end|>"), ({"enable_thinking": False}, "b<|im_end|>")):
        labels = processor.apply_chat_template(messages, return_labels=True, **options)["labels"][0]
        assert decode(labels[labels != -100]) == learned


def test_a_tokenizer_without_a_template_gets_a_plain_one(make: Any) -> None:
    _, processor = make(None)
    messages = [*conversation("What?", audio=sound()), answered("This.")]
    assert processor.apply_chat_template(messages, tokenize=False) == "USER: <av>\nWhat?\nASSISTANT: This.</s>"
    ids = processor.apply_chat_template(messages)["input_ids"][0]
    assert ids[0] == processor.tokenizer.bos_token_id


def mixed() -> list[Any]:
    noise = sound()
    return [
        conversation("a?", video=film(), audio=noise),
        conversation("b?", audio=noise),
        conversation("c?"),
        conversation("d?", image=Video.from_image(film(1).pixels[:, 0]), audio=noise),
        conversation("e?", audio=noise),
    ]


def test_a_batch_gives_what_each_gives_alone_and_clips_are_shared(make: Any) -> None:
    model, processor = make()
    inputs = processor.apply_chat_template(mixed())
    assert inputs["media_index"].tolist() == [0, 1, -1, 2, 1]
    with torch.no_grad():
        together = model(**inputs).logits
        for row, messages in enumerate(mixed()):
            alone = processor.apply_chat_template(messages)
            real = inputs["attention_mask"][row].bool()
            torch.testing.assert_close(together[row][real], model(**alone).logits[0])


def test_kept_features_stand_for_media(make: Any) -> None:
    model, processor = make()
    with torch.no_grad():
        features = [model.encode(film(frames), sound(samples)) for frames, samples in ((5, 200), (2, 333))]
    kept = [conversation("a?", video=Clip(features=one)) for one in features]
    given_media = [
        conversation("a?", video=film(frames), audio=sound(samples)) for frames, samples in ((5, 200), (2, 333))
    ]
    ours, theirs = processor.apply_chat_template(kept), processor.apply_chat_template(given_media)
    with torch.no_grad():
        torch.testing.assert_close(model(**ours).logits, model(**theirs).logits)
    with pytest.raises(InvalidValueError, match="features for all clips or for none, found 1 of 2"):
        processor.apply_chat_template([kept[0], given_media[0]])


def test_call_takes_text_videos_and_audio(make: Any) -> None:
    model, processor = make()
    tracks = {"videos": [film(), None], "audio": [None, sound()]}
    inputs = processor(text=["<av> a", "b", "<av> c"], **tracks, media_index=[0, -1, 1])
    counts = [int(model.num_placeholders(video=film())), 0, int(model.num_placeholders(waveform=sound()))]
    assert (inputs["input_ids"] == processor.placeholder_id).sum(1).tolist() == counts
    assert model.generate(**inputs, max_new_tokens=2, min_new_tokens=2).shape == (3, 2)
    assert "media" not in processor(text="b")


def test_files_are_read_once_at_the_models_rates(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = make(size=2)
    path = tmp_path / "clip.mp4"
    write_video(path, torch.zeros(30, 3, 32, 32), frame_rate=10.0, samples=torch.randn(48_000) / 9)
    reads: list[Any] = []
    read = type(processor).read
    monkeypatch.setattr(
        type(processor), "read", lambda self, *args, **kw: reads.append(args) or read(self, *args, **kw)
    )
    inputs = processor.apply_chat_template([conversation(text, video=str(path)) for text in ("a?", "b?")])
    assert len(reads) == 1
    media = inputs["media"]
    assert media.video.pixels.shape == (1, 6, 3, 2, 2)
    assert media.waveform.sample_rate == 80
    assert inputs["media_index"].tolist() == [0, 0]
    model.generate(**inputs, max_new_tokens=1)
    silent = processor.apply_chat_template(conversation("a?", video=str(path)), use_audio_in_video=False)
    assert silent["media"].waveform is None
    assert processor.load_clip(conversation("a?", video=str(path))).waveform.mask.any()
    with pytest.raises(InvalidValueError, match="must last at most 1 s"):
        processor.apply_chat_template(conversation("a?", video=str(path)), media_options={"longest": 1.0})


def test_trainer_takes_it_as_it_is(make: Any, tmp_path: Path) -> None:
    model, processor = make("llama3")
    data = [[*messages, answered("yes")] for messages in mixed() + mixed()[:3]]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=4, report_to="none", save_strategy="no",
        disable_tqdm=True, use_cpu=True, eval_strategy="steps", eval_steps=2, prediction_loss_only=True,
    )  # fmt: skip
    before = model.connector.projector.proj.weight.clone()
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=[{"messages": messages} for messages in data[:2]],
        data_collator=processor.collate,
        processing_class=processor,
    )
    trainer.args.remove_unused_columns = False  # rows that are dictionaries have columns
    assert trainer.train().global_step == 2
    assert not torch.equal(model.connector.projector.proj.weight, before)
    trainer.save_model()
    again = AudioVisualProcessor.from_pretrained(tmp_path).with_model(model)
    ours, theirs = processor.collate(data), again.collate(data)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if name != "media")


def test_workers_of_a_loader_count(make: Any) -> None:
    _, processor = make()
    loader = DataLoader(
        [[*messages, answered("yes")] for messages in mixed()],
        batch_size=5,
        collate_fn=processor.collate,
        num_workers=1,
    )
    (batch,) = loader
    assert isinstance(batch["media"], MediaBatch)
    whole = processor.collate([[*messages, answered("yes")] for messages in mixed()])
    assert torch.equal(batch["input_ids"], whole["input_ids"])


def test_times_are_not_cast_with_the_rest(make: Any) -> None:
    _, processor = make()
    inputs = processor.apply_chat_template(mixed()).to("cpu", dtype=torch.bfloat16)
    assert inputs["media"].video.spans.dtype == inputs["media"].to("cpu").waveform.start.dtype == torch.float64


def test_an_encoder_without_a_timeline_and_another_connector_are_run(make_model: Any, slow_ear: Any) -> None:
    tokenizer = tokenizer_of(None)
    llm = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                    num_attention_heads=2)
    )  # fmt: skip
    model = make_model(
        language_model=llm,
        audio_encoders={"audio": slow_ear()},
        placeholder_token_id=tokenizer.convert_tokens_to_ids("<av>"),
    )
    processor = AudioVisualProcessor.from_model(model, tokenizer, sample_rate=80)
    ids = processor.apply_chat_template(conversation("a?", audio=sound()))["input_ids"]
    assert (ids == processor.placeholder_id).sum() == model.num_placeholders(waveform=sound()).item()


def test_what_is_wrong_is_said(make: Any, tmp_path: Path) -> None:
    model, processor = make("gemma2")
    say = processor.apply_chat_template
    with pytest.raises(MediaError, match="nowhere"):
        say(conversation("a?", video=str(tmp_path / "nowhere.mp4")))
    with pytest.raises(InvalidTypeError, match="audio: must be a file"):
        say(conversation("a?", audio=3))
    with pytest.raises(InvalidValueError, match="roles must alternate"):
        say([*conversation("a?"), *conversation("b?")])
    for messages in (conversation("a\x00b"), [*conversation("a"), answered("\x00")]):
        with pytest.raises(InvalidValueError, match="must not hold the character NUL"):
            say(messages)
    outside = "{% for m in messages %}{% generation %}{% endgeneration %}{{ m.content }}{% endfor %}"
    with pytest.raises(InvalidValueError, match="between its generation tags, found one outside"):
        say([*conversation("a?"), answered("b")], outside)
    with pytest.raises(InvalidValueError, match=r"chat_template: must write each answer once, found 0 of 1"):
        say([*conversation("a?"), answered("b")], "{{ messages[0].content }}")
    with pytest.raises(InvalidValueError, match="videos, audio: must be of one length"):
        processor(text=["a"], videos=[film()], audio=[sound(), sound()])
    with pytest.raises(InvalidValueError, match="placeholder: must be one token of the tokenizer"):
        AudioVisualProcessor(processor.tokenizer, placeholder="<none>")
    with pytest.raises(InvalidValueError, match="must be the model's placeholder token"):
        AudioVisualProcessor(processor.tokenizer, placeholder="<eos>").with_model(model)
    with pytest.raises(InvalidValueError, match="call with_model"):
        AudioVisualProcessor(processor.tokenizer).apply_chat_template(conversation("a?", audio=sound()))
    inputs = say(conversation("a?", audio=sound()))
    with pytest.raises(InvalidValueError, match="media: must not come with video, waveform or features"):
        model(**inputs, waveform=sound())
    with pytest.raises(InvalidTypeError, match="media: must be a MediaBatch"):
        model(**{**inputs, "media": sound()})
