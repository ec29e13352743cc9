import copy
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import (
    AdaptionPromptConfig,
    IA3Config,
    LoraConfig,
    MissConfig,
    OFTConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from avfusion import AudioVisualConnector, CheckpointError, InvalidTypeError, InvalidValueError, SlidingWindowProjector
from avfusion.models import AudioVisualLanguageModel, prepare_inputs
from avfusion.models._given import checksums, differs


@pytest.fixture
def lora(make_model: Any, language_models: Any) -> Any:
    """A model with an adapter that does something, and its base."""

    def make(llm: str = "llama") -> AudioVisualLanguageModel:
        target = ["c_attn"] if llm == "gpt2" else ["q_proj", "v_proj"]
        base = language_models[llm]()
        options = {"fan_in_fan_out": True} if llm == "gpt2" else {}
        peft = get_peft_model(base, LoraConfig(r=2, target_modules=target, task_type="CAUSAL_LM", **options))
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
        return make_model(language_model=peft)

    return make


def encoders(model: AudioVisualLanguageModel) -> dict[str, Any]:
    return {"audio_encoders": dict(model.audio_encoders.items()), "visual_encoder": model.visual_encoder}


def ask(model: AudioVisualLanguageModel, tokenizer: Any, clips: dict[str, Any]) -> tuple[Any, Any]:
    inputs = prepare_inputs(
        tokenizer, ["<av> which", "<av> on"], model.num_placeholders(**clips), answers=["red", "blue"]
    )
    out = model(**inputs, **clips)
    return out.logits, out.loss


@pytest.mark.parametrize("llm", ["llama", "gpt2", "qwen3"])
def test_adapter_and_connector_round_trip(
    lora: Any, language_models: Any, tokenizer: Any, media: Any, tmp_path: Path, llm: str
) -> None:
    model, clips = lora(llm), media([5, 3], [200, 0]).batch()
    for encoder in encoders(model)["audio_encoders"].values():
        encoder.requires_grad_(False)
    model.visual_encoder.requires_grad_(False)
    expected = ask(model, tokenizer, clips)
    model.save_pretrained(tmp_path)
    weights = [path for path in tmp_path.rglob("*") if path.suffix in {".safetensors", ".bin"}]
    saved = {path.relative_to(tmp_path).as_posix() for path in weights}
    assert saved == {"connector/model.safetensors", "adapter/adapter_model.safetensors"}
    assert all("lora" in name for name in load_file(tmp_path / "adapter/adapter_model.safetensors"))

    base = language_models[llm]()
    base.load_state_dict(model.language_model.unload().state_dict())
    loaded = AudioVisualLanguageModel.from_pretrained(tmp_path, language_model=base, **encoders(model))
    assert not loaded.training
    assert loaded.placeholder_token_id == model.placeholder_token_id
    for found, wanted in zip(ask(loaded, tokenizer, clips), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert not any(parameter.requires_grad for parameter in loaded.language_model.parameters())


def test_adapter_trains_and_can_be_trained_further(
    lora: Any, language_models: Any, tokenizer: Any, media: Any, tmp_path: Path
) -> None:
    model, clips = lora(), media([5, 3], [200, 0]).batch()
    ask(model.train(), tokenizer, clips)[1].backward()
    for name, parameter in model.language_model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == ("lora" in name), name
    model.save_pretrained(tmp_path)
    loaded = AudioVisualLanguageModel.from_pretrained(
        tmp_path, language_model=language_models["llama"](), is_trainable=True, **encoders(model)
    )
    trained = {name for name, value in loaded.language_model.named_parameters() if value.requires_grad}
    assert trained == {name for name, value in model.language_model.named_parameters() if value.requires_grad}
    inputs = prepare_inputs(tokenizer, ["<av> on"] * 2, loaded.num_placeholders(**clips))
    options = {"max_new_tokens": 3, "min_new_tokens": 3, "num_beams": 2}
    assert loaded.generate(**inputs, **clips, **options).shape == (2, 3)


def test_adapter_of_another_name(lora: Any, language_models: Any, tmp_path: Path) -> None:
    model = lora()
    model.language_model.add_adapter("second", LoraConfig(r=1, target_modules=["o_proj"], task_type="CAUSAL_LM"))
    model.language_model.set_adapter("second")
    model.save_pretrained(tmp_path)
    loaded = AudioVisualLanguageModel.from_pretrained(
        tmp_path, language_model=language_models["llama"](), **encoders(model)
    )
    assert loaded.language_model.active_adapter == "second"
    saved = {path.parent.name for path in (tmp_path / "adapter").rglob("*.safetensors")}
    assert saved == {"adapter", "second"}  # the first too, although it is not active


def test_trained_parts_are_saved_in_full(make_model: Any, tokenizer: Any, media: Any, tmp_path: Path) -> None:
    model, clips = make_model(), media([5, 3], [200, 0]).batch()
    model.visual_encoder.requires_grad_(False)
    expected = ask(model, tokenizer, clips)
    model.save_pretrained(tmp_path)
    assert {path.name for path in (tmp_path / "encoders").iterdir()} == {"audio.safetensors"}

    other = make_model()
    other.visual_encoder.load_state_dict(model.visual_encoder.state_dict())
    loaded = AudioVisualLanguageModel.from_pretrained(tmp_path, **encoders(other))
    assert type(loaded.language_model) is type(model.language_model)
    for found, wanted in zip(ask(loaded, tokenizer, clips), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_frozen_parts_are_saved_when_asked(
    make_model: Any, language_models: Any, tokenizer: Any, media: Any, tmp_path: Path
) -> None:
    model, clips = make_model().requires_grad_(False), media([5, 3], [200, 0]).batch()
    model.save_pretrained(tmp_path / "small")
    assert {path.name for path in (tmp_path / "small").iterdir()} == {"connector", "config.json"}
    base = language_models["llama"]()
    loaded = AudioVisualLanguageModel.from_pretrained(tmp_path / "small", language_model=base)
    assert loaded.language_model is base

    model.save_pretrained(tmp_path / "all", save_language_model=True, save_encoders=True)
    loaded = AudioVisualLanguageModel.from_pretrained(tmp_path / "all", **encoders(make_model()))
    for found, wanted in zip(ask(loaded, tokenizer, clips), ask(model, tokenizer, clips), strict=True):
        torch.testing.assert_close(found, wanted)


def test_diversity_weight_round_trip(make_model: Any, tmp_path: Path) -> None:
    for place, loss in ((tmp_path / "with", make_model().diversity_loss), (tmp_path / "without", None)):
        model = make_model(diversity_loss=loss)
        model.save_pretrained(place)
        loaded = AudioVisualLanguageModel.from_pretrained(place, **encoders(model))
        assert (loaded.diversity_loss and loaded.diversity_loss.weight) == (loss and loss.weight)


def test_connector_with_a_part_of_ones_own(make_model: Any, make_connector: Any, tmp_path: Path) -> None:
    class MeanOfWindow(torch.nn.Module):
        num_queries, output_dim = 1, 12

        def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return tokens.mean((1, 2))[:, None]

    def projector() -> SlidingWindowProjector:
        return SlidingWindowProjector(window_encoder=MeanOfWindow(), window_frames=3, llm_dim=16)

    connector = AudioVisualConnector(
        synchroniser=make_connector().synchroniser, projector=projector(), input_dims={"audio": 6}
    )
    model = make_model(connector=connector)
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="MeanOfWindow"):
        AudioVisualLanguageModel.from_pretrained(tmp_path, **encoders(model))
    own = AudioVisualConnector.from_pretrained(tmp_path / "connector", projector=projector())
    loaded = AudioVisualLanguageModel.from_pretrained(tmp_path, connector=own, **encoders(model))
    assert torch.equal(loaded.connector.projector.proj.weight, connector.projector.proj.weight)


def test_what_is_missing_is_named(make_model: Any, language_models: Any, lora: Any, tmp_path: Path) -> None:
    load = AudioVisualLanguageModel.from_pretrained
    full, frozen, adapted = make_model(), make_model().requires_grad_(False), lora()
    for name, model in (("full", full), ("frozen", frozen), ("adapted", adapted)):
        model.save_pretrained(tmp_path / name)
    base, parts = language_models["llama"](), encoders(full)
    other = {**encoders(frozen), "visual_encoder": torch.nn.Linear(2, 2)}
    other["visual_encoder"].output_dim = 5
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text('{"avfusion_class": "CausalQFormer"}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    config = json.loads((tmp_path / "full" / "config.json").read_text())
    for name, change in (("short", {"connector": ...}), ("unknown", {"connector": "Nothing"}), ("hollow", {})):
        (tmp_path / name).mkdir()
        changed = {key: value for key, value in {**config, **change}.items() if value is not ...}
        (tmp_path / name / "config.json").write_text(json.dumps(changed))

    for call, error, message in [
        (lambda: load(tmp_path / "nowhere"), CheckpointError, "nowhere/config.json: no such file"),
        (lambda: load(tmp_path / "foreign"), CheckpointError, "AudioVisualLanguageModel, found 'CausalQFormer'"),
        (lambda: load(tmp_path / "broken"), CheckpointError, "not JSON"),
        (lambda: load(tmp_path / "short"), CheckpointError, r"lacks \['connector'\]"),
        (lambda: load(tmp_path / "hollow", **parts), CheckpointError, "language_model: no such directory"),
        (lambda: load(tmp_path / "frozen"), InvalidValueError, "language_model: must be given"),
        (lambda: load(tmp_path / "adapted", **parts), InvalidValueError, "language_model: must be given"),
        (lambda: load(tmp_path / "full", language_model=base, **parts), InvalidValueError, "leave it out"),
        (
            lambda: load(tmp_path / "adapted", language_model=adapted.language_model, **parts),
            InvalidTypeError,
            "found a PeftModel",
        ),
        (lambda: load(tmp_path / "full"), InvalidValueError, r"holds weights for \['audio', 'visual'\]"),
        (lambda: load(tmp_path / "full", **other), CheckpointError, "visual.safetensors: does not fit Linear"),
    ]:
        with pytest.raises(error, match=message):
            call()
    (tmp_path / "unknown" / "language_model").symlink_to(tmp_path / "full" / "language_model")
    with pytest.raises(CheckpointError, match="class Nothing"):
        load(tmp_path / "unknown", **parts)
    (tmp_path / "full" / "encoders" / "audio.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load(tmp_path / "full", **parts)
    (tmp_path / "full" / "encoders" / "audio.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load(tmp_path / "full", **parts)
    full.connector = torch.nn.Linear(2, 2)
    with pytest.raises(InvalidTypeError, match="Component to be saved, found Linear"):
        full.save_pretrained(tmp_path / "again")
    with pytest.raises(InvalidValueError, match="found the file"):
        full.save_pretrained(tmp_path / "full" / "config.json")


PAST = ["trained, then frozen", "merged", "two adapters", "two active adapters", "head beside an adapter"]
PAST += ["base trained, then an adapter", "bias of an adapter", "tokens of an adapter", "merged in place", "untouched"]
PAST += ["edited while frozen", "few rows edited", "replaced", "in another dtype", "loaded, then frozen"]
PASTS = list(zip(PAST, itertools.cycle(["untouched", "trained, then frozen"]), strict=False))  # past of an encoder too


def nudge(module: Any) -> None:
    """As training does, whatever is trained."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)


def lora_of(llm: Any, **options: Any) -> Any:
    return get_peft_model(llm, LoraConfig(r=2, target_modules=["q_proj", "o_proj"], task_type="CAUSAL_LM", **options))


def after(past: str, model: AudioVisualLanguageModel, fresh: Any, folder: Path) -> AudioVisualLanguageModel:
    """The model after this past; ``fresh`` makes its language model anew."""
    model.language_model.requires_grad_(False)
    if past in ("trained, then frozen", "loaded, then frozen"):
        nudge(model.language_model.requires_grad_(True))
    elif past in ("edited while frozen", "in another dtype"):
        model.language_model.requires_grad_(True)
        nudge(model.language_model.lm_head) if past != "in another dtype" else model.language_model.double()
    elif past == "few rows edited":
        with torch.no_grad():
            table = model.language_model.get_input_embeddings().weight
            table[[4, 5]] = table[[5, 4]].clone()  # the same values in other places
    elif past == "replaced":
        nudge(other := fresh().requires_grad_(True))
        model.language_model = other
    elif past != "untouched":
        if past == "base trained, then an adapter":
            nudge(model.language_model.requires_grad_(True))
        options: dict[str, Any] = {
            "head beside an adapter": {"modules_to_save": ["lm_head"]},
            "bias of an adapter": {"bias": "all"},
            "tokens of an adapter": {"trainable_token_indices": [4, 5]},
        }.get(past, {})
        llm = lora_of(model.language_model, **options)
        if past.startswith("two"):
            llm.add_adapter("second", LoraConfig(r=1, target_modules=["v_proj", "q_proj"], task_type="CAUSAL_LM"))
            llm.base_model.set_adapter(["default", "second"])
            nudge(llm)
            if past == "two adapters":
                llm.set_adapter("second")
        nudge(llm)
        model.language_model = llm
        if past == "merged":
            model.language_model = llm.merge_and_unload()
        if past == "merged in place":
            llm.merge_adapter()
    model.requires_grad_(False)
    if past == "loaded, then frozen":
        model.language_model.requires_grad_(True)
        model.save_pretrained(folder / "stage")
        model = AudioVisualLanguageModel.from_pretrained(folder / "stage", **encoders(model))
        model.requires_grad_(False)
    return model


@pytest.mark.filterwarnings("ignore:language_model. was cast by itself")
@pytest.mark.parametrize(("past", "encoder"), PASTS)
def test_nothing_trained_is_lost(
    make_model: Any, language_models: Any, tokenizer: Any, media: Any, tmp_path: Path, past: str, encoder: str
) -> None:
    def fresh() -> Any:
        torch.manual_seed(0)
        return language_models["llama"]()

    model, clips = make_model(language_model=fresh()), media([5, 3], [200, 0]).batch()
    ears = copy.deepcopy(encoders(model))
    if encoder != "untouched":
        nudge(model.visual_encoder)
    model = after(past, model, fresh, tmp_path)
    expected = ask(model, tokenizer, clips)
    model.save_pretrained(tmp_path / "last")
    whole = (tmp_path / "last" / "language_model").is_dir()
    adapted = "adapter" in past or past == "merged in place"
    assert whole == (past != "untouched" and (not adapted or past == "base trained, then an adapter"))
    assert (tmp_path / "last" / "encoders" / "visual.safetensors").is_file() == (encoder != "untouched")
    assert not (tmp_path / "last" / "encoders" / "audio.safetensors").is_file()
    base = {} if whole else {"language_model": fresh()}
    loaded = AudioVisualLanguageModel.from_pretrained(tmp_path / "last", **base, **copy.deepcopy(ears))
    for found, wanted in zip(ask(loaded, tokenizer, clips), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    loaded.requires_grad_(False)
    loaded.save_pretrained(tmp_path / "again")  # and not by saving what was loaded, either
    assert (tmp_path / "again" / "language_model").is_dir() == whole
    base = {} if whole else {"language_model": fresh()}
    again = AudioVisualLanguageModel.from_pretrained(tmp_path / "again", **base, **ears)
    torch.testing.assert_close(ask(again, tokenizer, clips)[0], expected[0], rtol=1e-4, atol=1e-5)


def test_what_is_not_saved_is_said(make_model: Any, tmp_path: Path) -> None:
    model = make_model()
    with pytest.warns(UserWarning, match="language_model: is trained or not what was given"):
        model.save_pretrained(tmp_path, save_language_model=False)
    with pytest.warns(UserWarning, match=r"(audio|visual): is trained or not what was given") as caught:
        model.save_pretrained(tmp_path, save_encoders=False)
    assert len(caught) == 2
    model.requires_grad_(False)
    model.save_pretrained(tmp_path / "silent", save_language_model=False, save_encoders=False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("trained", [False, True])
def test_a_cast_is_no_change(make_model: Any, tmp_path: Path, dtype: torch.dtype, trained: bool) -> None:
    model = make_model()
    if trained:
        nudge(model.language_model.lm_head)
        nudge(model.visual_encoder)
    model.to(dtype).requires_grad_(False).to("cpu").float()
    model.save_pretrained(tmp_path / "whole")
    held = {path.name for path in (tmp_path / "whole").iterdir()}
    assert held == {"connector", "config.json"} | ({"language_model", "encoders"} if trained else set())
    if trained:
        assert {path.name for path in (tmp_path / "whole" / "encoders").iterdir()} == {"visual.safetensors"}
        return
    model.language_model.to(dtype)  # which the model cannot know of
    with pytest.warns(UserWarning, match="language_model: was cast by itself"):
        model.save_pretrained(tmp_path / "apart")
    assert (tmp_path / "apart" / "language_model").is_dir()


def test_what_had_no_values_is_said_to_be_left_out(make_model: Any, language_models: Any, tmp_path: Path) -> None:
    with torch.device("meta"):
        llm = language_models["llama"]()
    model = make_model(language_model=llm).requires_grad_(False)
    model.language_model.load_state_dict(language_models["llama"]().state_dict(), assign=True)
    model.requires_grad_(False)
    with pytest.warns(UserWarning, match="language_model: had no values when it was given"):
        model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path, save_language_model=False)
    model.save_pretrained(tmp_path, save_language_model=True)
    assert (tmp_path / "language_model").is_dir()


ADAPTERS: dict[str, Any] = {
    "DoRA": LoraConfig(use_dora=True),
    "PiSSA": LoraConfig(init_lora_weights="pissa"),
    "OLoRA": LoraConfig(init_lora_weights="olora"),
    "IA3": IA3Config(feedforward_modules=[]),
    "OFT": OFTConfig(oft_block_size=4),
    "MiSS": MissConfig(r=2),
}


@pytest.mark.parametrize("begun", ["before", "after"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_every_kind_of_adapter_comes_back(
    make_model: Any, language_models: Any, tokenizer: Any, media: Any, tmp_path: Path, kind: str, begun: str
) -> None:
    """Also of those that change the base model when they begin: before or after the assembly was put together."""

    def fresh() -> Any:
        torch.manual_seed(0)
        return language_models["llama"]()

    config = copy.deepcopy(ADAPTERS[kind])
    config.task_type, config.target_modules = "CAUSAL_LM", {"k_proj", "v_proj"}
    adapted = get_peft_model(fresh(), copy.deepcopy(config)) if begun == "before" else fresh()
    model, clips = make_model(language_model=adapted), media([5, 3], [200, 0]).batch()
    model.language_model.requires_grad_(begun == "before")
    if begun == "after":
        model.language_model = get_peft_model(model.language_model, config)
    with torch.no_grad():
        for name, value in model.language_model.named_parameters():
            if "lora_" in name or "ia3_" in name or "oft_" in name or "miss_" in name:
                value.add_(torch.randn_like(value), alpha=0.1)
    model.requires_grad_(False)
    expected = ask(model, tokenizer, clips)
    model.save_pretrained(tmp_path)
    whole = (tmp_path / "language_model").is_dir()
    assert whole == (begun == "after" and kind in ("PiSSA", "OLoRA"))
    base = {} if whole else {"language_model": fresh()}
    loaded = AudioVisualLanguageModel.from_pretrained(tmp_path, **base, **encoders(model))
    for found, wanted in zip(ask(loaded, tokenizer, clips), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning:bitsandbytes")
@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_base_under_an_adapter(make_model: Any, make_connector: Any, tmp_path: Path, bits: int) -> None:
    """Its first use repacks it on a CPU, which is no change; when asked it is saved under its own names."""
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=64, **size)).save_pretrained(tmp_path / "base")
    config = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", quantization_config=config, device_map="cpu")
    names = set(base.state_dict())
    connector = make_connector()
    qformer = connector.projector.window_encoder
    connector.projector = SlidingWindowProjector(window_encoder=qformer, window_frames=3, llm_dim=64)
    model = make_model(language_model=base.requires_grad_(False), connector=connector)
    model.language_model = lora_of(model.language_model).eval()
    with torch.no_grad():
        expected = model(torch.tensor([[3, 4]])).logits
    model.save_pretrained(tmp_path / "adapter alone")
    assert not (tmp_path / "adapter alone" / "language_model").exists()
    model.save_pretrained(tmp_path / "both", save_language_model=True)
    assert set(load_file(tmp_path / "both" / "language_model" / "model.safetensors")) == names
    again = AudioVisualLanguageModel.from_pretrained(tmp_path / "both", connector=connector, **encoders(model))
    with torch.no_grad():
        torch.testing.assert_close(again(torch.tensor([[3, 4]])).logits, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (PromptTuningConfig(num_virtual_tokens=3), "PROMPT_TUNING"),
        (PrefixTuningConfig(num_virtual_tokens=3), "PREFIX_TUNING"),
        (PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=8), "P_TUNING"),
        (AdaptionPromptConfig(adapter_layers=1, adapter_len=2), "ADAPTION_PROMPT"),
    ],
)
def test_adapters_with_tokens_of_their_own_are_refused(
    make_model: Any, language_models: Any, config: Any, kind: str
) -> None:
    config.task_type = "CAUSAL_LM"
    adapted = get_peft_model(language_models["llama"](), config)
    with pytest.raises(InvalidValueError, match=f"found {kind} in adapter 'default'"):
        make_model(language_model=adapted)
    model = make_model()
    model.language_model = adapted
    for call in (model, model.generate):
        with pytest.raises(InvalidValueError, match=kind):
            call(torch.tensor([[3, 4]]))


def test_adapters_that_cannot_come_back_are_refused(make_model: Any, tmp_path: Path) -> None:
    model = make_model()
    model.language_model._hf_peft_config_loaded = True  # as add_adapter of transformers does
    with pytest.raises(InvalidValueError, match="get_peft_model"):
        model.save_pretrained(tmp_path)
    assert not any(tmp_path.iterdir())


@settings(deadline=None, max_examples=200)
@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.bool]),
    start=st.integers(0, 3),
    data=st.data(),
)
def test_a_checksum_sees_every_change(shape: list[int], dtype: torch.dtype, start: int, data: Any) -> None:
    noise = torch.Generator().manual_seed(start)
    values = torch.randint(0, 2, (start + math.prod(shape),), generator=noise).to(dtype)[start:].view(shape)
    part = torch.nn.Module()
    part.register_buffer("values", values)
    given_sums = checksums(part)
    assert checksums(part) == given_sums
    assert not differs(part, given_sums)
    place = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    values[place] = ~values[place] if dtype == torch.bool else values[place] + 1
    assert differs(part, given_sums)
    values[place] = ~values[place] if dtype == torch.bool else values[place] - 1
    assert not differs(part, given_sums)
    assert differs(part, None)
    part.register_buffer("values", values.to(torch.float16))
    assert differs(part, given_sums)
