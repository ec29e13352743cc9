"""A row of a batch under every logits processor is the row alone; text alone is what the language model gives."""

import inspect
import random
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GenerationConfig,
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    WatermarkingConfig,
)

from avfusion import (
    AudioVisualConnector,
    CausalQFormer,
    FrameSynchroniser,
    InvalidValueError,
    SlidingWindowProjector,
    TokenStream,
)
from avfusion.models import AudioVisualLanguageModel, rowwise_options
from avfusion.models._processors import _BUILD
from tests.models.conftest import LANGUAGE_MODELS, LLM_DIM, PLACEHOLDER, VOCAB

PAD = 1


def gemma3() -> Any:
    return Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=VOCAB,
            hidden_size=LLM_DIM,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            sliding_window=4,
            pad_token_id=PAD,
            bos_token_id=None,
            eos_token_id=PAD,
        )
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": LANGUAGE_MODELS["llama"],
    "gpt2": LANGUAGE_MODELS["gpt2"],
    "gemma3": gemma3,
}
PROCESSORS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.4},
    {"repetition_penalty": 0.7},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"encoder_repetition_penalty": 1.5},
    {"encoder_no_repeat_ngram_size": 2},
    {"sequence_bias": {(4, 5): 6.0, (9,): -4.0}},
    {"bad_words_ids": [[4, 5], [9]]},
    {"min_new_tokens": 4},
    {"min_length": 11},
    {"max_length": 17},
    {"max_length": 17, "min_length": 16, "forced_eos_token_id": PAD},
    {"forced_bos_token_id": 6},
    {"forced_eos_token_id": 7},
    {"exponential_decay_length_penalty": (2, 1.7)},
    {"suppress_tokens": [7, 8]},
    {"begin_suppress_tokens": [4, 5, 6, 7, 8]},
    {"remove_invalid_values": True, "renormalize_logits": True},
    {"watermarking_config": WatermarkingConfig(bias=5.0)},
    {"guidance_scale": 1.5},
    {"prefix_allowed_tokens_fn": lambda row, ids: [3 + len(ids) % 20, 3 + int(ids.sum()) % 20]},
    {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "min_new_tokens": 3, "bad_words_ids": [[5]]},
]
MODES: list[dict[str, Any]] = [
    {},
    {"num_beams": 2},
    {"num_beams": 3, "num_return_sequences": 2},
    {"do_sample": True, "top_k": 1},
]


@pytest.fixture(scope="module")
def assemblies() -> dict[str, AudioVisualLanguageModel]:
    """A model of each family, with weights so large that answers differ."""
    found = {}
    for name, make in FAMILIES.items():
        torch.manual_seed(3)
        qformer = CausalQFormer(
            input_dim=8, hidden_size=8, num_heads=2, num_queries=2, window_frames=3, tokens_per_frame=8
        )
        connector = AudioVisualConnector(
            synchroniser=FrameSynchroniser(visual_dim=None, stream_dims={"audio": 8}, slots=8),
            projector=SlidingWindowProjector(window_encoder=qformer, window_frames=3, llm_dim=LLM_DIM),
        )
        llm = make()
        for parameter in llm.parameters():
            parameter.data.mul_(4)
        model = AudioVisualLanguageModel(language_model=llm, connector=connector, placeholder_token_id=PLACEHOLDER)
        found[name] = model.eval()
    return found


class Row(NamedTuple):
    """A prompt's text before and behind its clip, and the clip's tokens: none for text alone."""

    before: list[int]
    behind: list[int]
    tokens: int


words = st.lists(st.sampled_from([0, 3, 4, 5, 6, 7]), max_size=4)
rows_of_a_batch = st.lists(
    st.builds(Row, words, words.filter(bool), st.sampled_from([0, 0, 3, 20])), min_size=3, max_size=4
)


def answers(model: AudioVisualLanguageModel, rows: list[Row], places: list[int], options: dict[str, Any]) -> list[Any]:
    """The tokens of each row's answers, without what pads them."""
    noise = torch.randn(8, 24, 8, generator=torch.Generator().manual_seed(0))[places]
    features = {"audio": TokenStream.from_rate(noise, 8.0, lengths=[row.tokens for row in rows])}
    counts = model.num_placeholders(features=features).tolist()
    prompts = [[*row.before, *[PLACEHOLDER] * count, *row.behind] for row, count in zip(rows, counts, strict=True)]
    longest = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return trimmed(model.generate(ids, mask, features=features, **options), len(rows))


def trimmed(found: torch.Tensor, rows: int) -> list[Any]:
    def end(sequence: list[int]) -> list[int]:
        return end(sequence[:-1]) if sequence[-1:] == [PAD] else sequence

    return [[end(sequence) for sequence in row] for row in found.unflatten(0, (rows, -1)).tolist()]


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")
@pytest.mark.parametrize("processor", PROCESSORS, ids=",".join)
@settings(deadline=None, max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=rows_of_a_batch,
    family=st.sampled_from(list(FAMILIES)),
    mode=st.sampled_from(MODES),
    saved=st.booleans(),
)
def test_a_row_is_what_it_is_alone(
    assemblies: Any, processor: dict[str, Any], rows: list[Row], family: str, mode: dict[str, Any], saved: bool
) -> None:
    model, llm = assemblies[family], assemblies[family].language_model
    options = {"pad_token_id": PAD, **mode, **({} if "max_length" in processor else {"max_new_tokens": 5})}
    own = llm.generation_config
    if saved and "prefix_allowed_tokens_fn" not in processor:
        llm.generation_config = GenerationConfig(**{**own.to_diff_dict(), **processor})
    else:
        options |= processor
    try:
        together = answers(model, rows, list(range(len(rows))), options)
        for place, row in enumerate(rows):
            beams = "encoder_repetition_penalty" in processor and "num_beams" in mode
            if row.tokens or beams:  # transformers before 5.24 penalises some beams alone
                assert together[place] == answers(model, [row], [place], options)[0]
            else:
                ids = torch.tensor([[*row.before, *row.behind]])
                said = llm.generate(ids, attention_mask=torch.ones_like(ids), **options)[:, ids.shape[1] :]
                assert together[place] == trimmed(said, 1)[0]
    finally:
        llm.generation_config = own


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("penalty", [1.05, 1.5])
def test_repetition_penalty_does_not_see_the_batch(assemblies: Any, penalty: float, saved: bool) -> None:
    """The example: a left-padded row's first new tokens were taken for padding and not penalised."""
    drawn = random.Random(0)
    batches = [
        [
            Row(
                drawn.choices(range(3, 8), k=drawn.randrange(4)), drawn.choices(range(3, 8), k=drawn.randrange(1, 5)), n
            )
            for n in drawn.choices([0, 3, 12, 20], k=4)
        ]
        for _ in range(3)
    ]
    model, options = assemblies["llama"], {"max_new_tokens": 10, "min_new_tokens": 10}
    own = model.language_model.generation_config
    if saved:
        model.language_model.generation_config = GenerationConfig(**own.to_diff_dict(), repetition_penalty=penalty)
    else:
        options["repetition_penalty"] = penalty
    try:
        for rows in batches:
            alone = [answers(model, [row], [place], options)[0] for place, row in enumerate(rows)]
            assert answers(model, rows, [0, 1, 2, 3], options) == alone
    finally:
        model.language_model.generation_config = own


def test_prefix_function_is_told_the_row_of_the_batch(assemblies: Any) -> None:
    rows = [Row([3], [4], 20), Row([3], [4], 3), Row([], [4], 0)]
    options = {"prefix_allowed_tokens_fn": lambda row, ids: [10 + row], "max_new_tokens": 2}
    assert answers(assemblies["llama"], rows, [0, 1, 2], options) == [[[10, 10]], [[11, 11]], [[12, 12]]]


def test_processors_of_ones_own_see_text(assemblies: Any) -> None:
    seen = []

    class Look(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            seen.append(input_ids.tolist())
            return scores

    options = {"logits_processor": [Look()], "max_new_tokens": 1}
    answers(assemblies["llama"], [Row([3], [4], 20), Row([6, 5], [7, 8], 0)], [0, 1], options)
    assert seen == [[[3, 4]], [[6, 5, 7, 8]]]
    answers(assemblies["llama"], [Row([3], [4], 20)], [0], {**options, "count_prompt": False})
    assert seen[2:] == [[[]]]
    for own in ([RepetitionPenaltyLogitsProcessor(1.5)], LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.5)])):
        found = rowwise_options(
            assemblies["llama"].language_model,
            torch.tensor([[3, 4]]),
            torch.ones(1, 2),
            logits_processor=own,
            repetition_penalty=9.0,  # the caller's own takes its place, as in transformers
        )["logits_processor"][0](torch.empty(1, 0, dtype=torch.int64), torch.ones(1, VOCAB))
        assert found[0, 3] == pytest.approx(1 / 1.5)


def test_max_length_counts_a_rows_own_positions(assemblies: Any) -> None:
    rows = [Row([3], [4], 20), Row([], [5], 0)]
    options = {"max_length": 12, "min_length": 12}
    found = answers(assemblies["llama"], rows, [0, 1], options)
    positions = [2 + int(assemblies["llama"].num_placeholders(features=stream(20))), 1]
    assert [len(row[0]) for row in found] == [12 - count for count in positions]
    with pytest.raises(InvalidValueError, match="max_length: must be above the 6 positions of row 0, found 6"):
        answers(assemblies["llama"], rows, [0, 1], {"max_length": 6})


def stream(tokens: int) -> dict[str, TokenStream]:
    return {"audio": TokenStream.from_rate(torch.zeros(1, tokens, 8), 8.0)}


def test_every_setting_of_transformers_is_known() -> None:
    """A processor that a later transformers adds is decided on here, not overlooked."""
    source = inspect.getsource(GenerationMixin._get_logits_processor)
    used = set(re.findall(r"generation_config\.([a-z]\w*)", source))
    of_the_scores_alone = {"do_sample", "num_beams", "num_return_sequences", "use_cache", "max_length"}
    of_the_scores_alone |= {"temperature", "top_k", "top_p", "top_h", "min_p", "typical_p", "epsilon_cutoff"}
    of_the_scores_alone |= {"eta_cutoff", "renormalize_logits"}
    assert used - of_the_scores_alone == {*_BUILD, "watermarking_config"} - {"prefix_allowed_tokens_fn"}
