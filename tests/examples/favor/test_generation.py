"""Generation as transformers' own tests check it: every way of decoding, cache or none, ids or embeddings."""

from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import pytest
import torch
from transformers import Cache, CompileConfig, set_seed

from avfusion import InvalidValueError
from examples.favor import FavorForConditionalGeneration, towers
from examples.favor.output import CACHE
from examples.favor.presets import PRESETS
from tests.examples.favor.model_tester import FavorModelTester
from tests.examples.favor.parts import inside

FOUR = {"max_new_tokens": 4, "min_new_tokens": 4}


KINDS = ("favor-vicuna-7b", "video-salmonn-13b", "modern", "real-tiny")


@pytest.fixture(params=KINDS)
def ready(request: pytest.FixtureRequest) -> tuple[FavorForConditionalGeneration, dict[str, Any]]:
    set_seed(0)
    config, inputs = FavorModelTester(preset=request.param).prepare_config_and_inputs_for_common()
    config.get_text_config().eos_token_id = None
    model = FavorForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 2
    return model, inputs


def test_every_preset_is_tested_under_some_name() -> None:
    alike = {"favor-vicuna-13b": "favor-vicuna-7b", "small": "modern"}
    assert {alike.get(preset, preset) for preset in PRESETS} == set(KINDS)


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": False},
        {"do_sample": False, "repetition_penalty": 1.2, "bad_words_ids": [[1, 0]]},
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": False, "cache_implementation": "static"},
    ],
)
def test_the_cache_changes_nothing(ready: Any, options: dict[str, Any]) -> None:
    model, inputs = ready
    plain = {name: value for name, value in options.items() if name != "cache_implementation"}
    with_cache = model.generate(**inputs, **options, **FOUR)
    assert with_cache.shape[1] == inputs["input_ids"].shape[1] + 4
    assert torch.equal(with_cache, model.generate(**inputs, **plain, use_cache=False, **FOUR))


@pytest.mark.parametrize(
    "options", [{"do_sample": False}, {"num_beams": 3}, {"do_sample": False, "cache_implementation": "static"}]
)
def test_later_steps_read_a_token_and_the_cache(ready: Any, options: dict[str, Any]) -> None:
    model, inputs = ready
    seen: list[tuple[int, int]] = []

    def look(_: Any, __: Any, given: dict[str, Any]) -> None:
        cached = [value.get_seq_length() for value in given.values() if isinstance(value, Cache)]
        seen.append((given["inputs_embeds"].shape[1], int(*cached)))

    model.language_model.register_forward_pre_hook(look, with_kwargs=True)
    model.generate(**inputs, **options, **FOUR)
    length = inputs["input_ids"].shape[1]
    assert seen == [(length, 0), (1, length), (1, length + 1), (1, length + 2)]


@torch.no_grad()
def test_the_cache_has_either_name_but_not_both(ready: Any) -> None:
    model, inputs = ready
    begun = model(**inputs, use_cache=True)
    token = inputs["input_ids"][:, :1]
    warned = pytest.warns(FutureWarning, match="past_key_values") if CACHE == "cache" else nullcontext()
    with warned:
        first = model(token, past_key_values=deepcopy(begun[CACHE])).logits
    assert torch.equal(model(token, cache=deepcopy(begun[CACHE])).logits, first)
    assert not torch.equal(model(token).logits, first)
    with pytest.raises(InvalidValueError, match="cache, past_key_values: must not come together"):
        model(token, cache=begun[CACHE], past_key_values=begun[CACHE])


def test_sampling_gives_as_many_as_asked_for(ready: Any) -> None:
    model, inputs = ready
    assert len(model.generate(**inputs, do_sample=True, num_return_sequences=3, **FOUR)) == 3 * len(inputs["input_ids"])


def test_a_static_cache_compiles_to_one_graph_for_all_tokens_and_batches(ready: Any) -> None:
    model, inputs = ready
    torch._dynamo.reset()
    graphs, calls = [], []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)

        def run(*args: Any) -> Any:
            calls.append(1)
            return graph(*args)

        return run

    compiled = CompileConfig(fullgraph=True, backend=backend, mode=None)
    compiled._compile_all_devices = True  # CPUs too
    options = {"do_sample": False, "max_new_tokens": 8, "min_new_tokens": 8}
    text = {name: inputs[name].clone() for name in ("input_ids", "attention_mask")}
    text["input_ids"][text["input_ids"] == model.config.media_token_id] = 7
    padded = {**inputs, "attention_mask": inputs["attention_mask"].clone()}
    padded["attention_mask"][1, :1] = 0  # a row with padding on its left, which is no media token
    for number, given in enumerate((inputs, text, padded), start=1):
        expected = model.generate(**given, **options)
        found = model.generate(**given, **options, cache_implementation="static", compile_config=compiled)
        assert torch.equal(found, expected)
        assert len(graphs) == 1
        assert len(calls) == 7 * number  # every token but the first
    assert len({tuple(row) for row in expected.tolist()}) > 1


@pytest.mark.parametrize("sharded", [True, False])
def test_only_the_first_step_looks_at_media(ready: Any, sharded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = ready
    monkeypatch.setattr(towers, "is_sharded", lambda *_: sharded)  # then a batch without media runs towers too
    seen: list[str] = []
    for name in ("vision", "audio"):
        inside(model)[name].register_forward_pre_hook(lambda *_, name=name: seen.append(name))
    text = {"input_ids": torch.full_like(inputs["input_ids"], 7), "attention_mask": inputs["attention_mask"]}
    model.generate(**inputs, **FOUR)
    assert sorted(seen) == ["audio", "vision"]
    seen.clear()
    model.generate(**text, **FOUR)
    assert sorted(seen) == (["audio", "vision"] if sharded else [])


def test_beams_encode_each_clip_once(ready: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = ready
    seen = []
    inside(model)["vision"].register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    model.generate(**inputs, num_beams=3, **FOUR)
    assert seen == [inputs["pixel_values_videos"].shape[:2].numel()]


def test_embeddings_instead_of_ids(ready: Any) -> None:
    model, inputs = ready
    ids = inputs["input_ids"]
    rest = {name: value for name, value in inputs.items() if name != "input_ids"}
    embeds = model.get_input_embeddings()(ids)
    whole = model.generate(**inputs, do_sample=False, **FOUR)
    assert torch.equal(model.generate(input_ids=ids, inputs_embeds=embeds, **rest, do_sample=False, **FOUR), whole)
    assert torch.equal(model.generate(inputs_embeds=embeds, **rest, do_sample=False, **FOUR), whole[:, ids.shape[1] :])


def test_going_on_from_a_cache(ready: Any) -> None:
    model, inputs = ready
    begun = model.generate(**inputs, do_sample=False, max_new_tokens=3, return_dict_in_generate=True)
    longer = {**inputs, "input_ids": begun.sequences, "attention_mask": torch.ones_like(begun.sequences)}
    on = model.generate(**longer, **{CACHE: begun[CACHE]}, do_sample=False, max_new_tokens=1)
    assert torch.equal(on, model.generate(**inputs, do_sample=False, **FOUR))


@pytest.mark.parametrize("how", ["prompt_lookup", "assistant"])
@pytest.mark.filterwarnings("ignore")
def test_speculative_decoding_gives_the_same(ready: Any, how: str) -> None:
    model, inputs = ready
    one = {name: value[:1] for name, value in inputs.items()}
    options = {"prompt_lookup_num_tokens": 2} if how == "prompt_lookup" else {"assistant_model": model}
    plain = model.generate(**one, do_sample=False, max_new_tokens=6)
    assert torch.equal(model.generate(**one, do_sample=False, max_new_tokens=6, **options), plain)


def test_scores_hidden_states_and_attentions(ready: Any) -> None:
    model, inputs = ready
    model.set_attn_implementation("eager")
    out = model.generate(
        **inputs,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        output_hidden_states=True,
        output_attentions=True,
        **FOUR,
    )
    rows, length = inputs["input_ids"].shape
    assert len(out.scores) == len(out.attentions) == len(out.hidden_states) == 4
    assert out.attentions[0][0].shape == (rows, 2, length, length)
    assert out.attentions[1][0].shape == (rows, 2, 1, length + 1)
    assert out.hidden_states[1][0].shape == (rows, 1, 32)


def test_left_padding_moves_nothing(ready: Any) -> None:
    model, inputs = ready
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    padded = {
        **inputs,
        "input_ids": torch.cat([torch.full((len(ids), 5), 2), ids], 1),
        "attention_mask": torch.cat([torch.zeros(len(ids), 5, dtype=torch.long), mask], 1),
    }
    with torch.no_grad():
        torch.testing.assert_close(model(**padded).logits[:, -1], model(**inputs).logits[:, -1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            model(**inputs, logits_to_keep=1).logits, model(**inputs).logits[:, -1:], atol=1e-6, rtol=1e-6
        )


def test_the_media_token_is_never_said(ready: Any) -> None:
    model, inputs = ready
    head = model.get_output_embeddings()
    with torch.no_grad():
        head.weight.zero_()
        head.weight[model.config.media_token_id] = 100 * model.get_input_embeddings().weight.mean(0)
    new = model.generate(**inputs, do_sample=False, **FOUR)[:, inputs["input_ids"].shape[1] :]
    assert not (new == model.config.media_token_id).any()


def test_labels_already_shifted_replace_labels(ready: Any) -> None:
    model, inputs = ready
    ids = torch.randint(5, 250, inputs["input_ids"].shape)
    shifted = torch.randint(5, 250, ids.shape)
    first = model(**inputs, labels=ids, shift_labels=shifted).loss
    assert torch.equal(first, model(**inputs, labels=torch.randint(5, 250, ids.shape), shift_labels=shifted).loss)
    assert not torch.equal(first, model(**inputs, labels=ids, shift_labels=shifted.flip(1)).loss)
