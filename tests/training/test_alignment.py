"""Alignment: who says what, the loss against its equation in float64, what trains, Trainer, twins of clips."""

import math
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from avfusion import AudioVisualConnector, InvalidTypeError, InvalidValueError, LLMEmbeddings, TokenStream
from avfusion.models import AudioVisualLanguageModel, AudioVisualProcessor, Clip, MediaBatch, conversation
from avfusion.training import AlignmentCollator, AlignmentLoss, ConnectorAlignment, TimedText, assign_texts
from tests.models.templates import tokenizer_of

WORDS = ("dog", "sun", "rain", "tea")


def language_model(width: int = 16) -> tuple[LlamaForCausalLM, Any]:
    tokenizer = tokenizer_of("qwen3")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    return LlamaForCausalLM(config), tokenizer


def drawn_output(batch: int, windows: int, queries: int, width: int = 16, seed: int = 0) -> LLMEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    starts = 2.0 * torch.arange(windows, dtype=torch.float64).repeat_interleave(queries)
    spans = torch.stack([starts, starts + 2.0], 1).expand(batch, -1, -1)
    embeddings = torch.randn(batch, windows * queries, width, generator=generator, dtype=torch.float64)
    return LLMEmbeddings(embeddings, torch.ones(batch, windows * queries, dtype=torch.bool), spans, embeddings)


texts = st.lists(
    st.tuples(st.floats(-1, 7), st.floats(0, 2), st.sampled_from(WORDS)).map(
        lambda one: TimedText(one[0], one[0] + one[1], one[2])
    ),
    max_size=7,
)


@settings(max_examples=200, deadline=None)
@given(queries=st.integers(1, 5), given_texts=texts)
def test_each_text_is_said_in_its_window_and_in_order(queries: int, given_texts: list[TimedText]) -> None:
    spans = [(2.0 * window, 2.0 * window + 2.0) for window in range(3) for _ in range(queries)]
    said = assign_texts(spans, given_texts)
    centre = {id(text): (text.start + text.end) / 2 for text in given_texts}
    for window in range(3):
        own = said[window * queries : (window + 1) * queries]
        inside = sorted(
            (text for text in given_texts if 2 * window <= centre[id(text)] < 2 * window + 2),
            key=lambda text: centre[id(text)],
        )
        flat = [text for some in own for text in some]
        assert [key for key, _ in groupby(map(id, flat))] == [id(one) for one in inside]  # all of them, in order
        if inside:
            assert all(own)
            sizes = [len(some) for some in own]
            times = [flat.count(text) for text in inside]
            assert max(sizes) - min(sizes) <= 1
            assert max(times) - min(times) <= 1
        else:
            assert not any(own)


@settings(max_examples=50, deadline=None)
@given(
    queries=st.integers(1, 4),
    given_texts=st.lists(texts, min_size=2, max_size=2).filter(lambda rows: any(0 <= t.start < 3 for t in rows[0])),
    temperature=st.sampled_from([1.0, 8.0]),
    weight=st.sampled_from([0.0, 0.5, 1.0]),
    extra=st.lists(st.sampled_from([*WORDS, "fog"]), unique=True),
    seed=st.integers(0, 9),
)
def test_the_loss_is_its_equation(
    queries: int, given_texts: list[list[TimedText]], temperature: float, weight: float, extra: list[str], seed: int
) -> None:
    llm, tokenizer = language_model()
    out = drawn_output(2, 3, queries, seed=seed)
    table = llm.get_input_embeddings().weight.detach().double()

    def embedding(text: str | Tensor) -> Tensor:
        return table[tokenizer(f" {text}")["input_ids"]].mean(0)

    norm = table.norm(dim=1).median().item()
    names = list(dict.fromkeys([*extra, *(str(text.text) for row in given_texts for text in row)]))
    distances, entropies = [], []
    rows = [(row, place, some) for row in range(2) for place, some in enumerate(
        assign_texts([tuple(span) for span in out.spans[row].tolist()], given_texts[row])) if some]  # fmt: skip
    if not rows:
        with pytest.raises(InvalidValueError, match="must have a text in some window, found none"):
            AlignmentLoss(llm, tokenizer)(out, given_texts)
        return
    used = {str(text.text) for *_, some in rows for text in some}
    names = [name for name in names if name in extra or name in used]
    for row, place, some in rows:
        said = out.embeddings[row, place]
        target = torch.stack([embedding(text.text) for text in some]).mean(0)
        distances.append(((said - target) ** 2).sum().item() / norm**2)
        scores = [-temperature * ((said - embedding(name)) ** 2).sum().item() / norm**2 for name in names]
        top = max(scores)
        log_sum = top + math.log(sum(math.exp(score - top) for score in scores))
        entropies.append(sum(log_sum - scores[names.index(str(text.text))] for text in some) / len(some))
    loss = AlignmentLoss(llm, tokenizer, candidates=extra, temperature=temperature, cross_entropy_weight=weight)
    found = loss(out, given_texts)
    expected = sum(distances) / len(rows)
    assert found.distance.item() == pytest.approx(expected, rel=1e-5)
    assert found.cross_entropy.item() == pytest.approx(sum(entropies) / len(rows), rel=1e-5, abs=1e-4)
    assert found.loss.item() == pytest.approx(expected + weight * sum(entropies) / len(rows), rel=1e-5, abs=1e-4)
    shuffled = [row[::-1] if len({(t.start + t.end) for t in row}) == len(row) else row for row in given_texts]
    assert loss(out, shuffled).loss.item() == pytest.approx(found.loss.item(), rel=1e-9)


def test_embeddings_that_say_their_texts_lose_nothing_and_padding_does_not_count() -> None:
    llm, tokenizer = language_model()
    loss = AlignmentLoss(llm, tokenizer, cross_entropy_weight=0.0)
    out = drawn_output(1, 2, 1)
    said = torch.stack([loss.embed("dog"), loss.embed("sun")])[None].double()
    rows = [[TimedText(0.5, 1, "dog"), TimedText(2.5, 3, "sun")]]
    found = loss(out._replace(embeddings=said), rows)
    assert (found.loss.item(), found.accuracy.item()) == (0.0, 1.0)
    wrong = said.clone()
    wrong[0, 1] = 9e9
    masked = out._replace(embeddings=wrong, mask=torch.tensor([[True, False]]))
    assert loss(masked, rows).loss.item() == 0.0


def test_captions_can_be_embeddings() -> None:
    llm, tokenizer = language_model()
    loss = AlignmentLoss(llm, tokenizer)
    out, caption = drawn_output(1, 1, 2), torch.randn(16, dtype=torch.float64)
    found = loss(out, [[TimedText(0, 2, caption)]])
    expected = (out.embeddings[0] - caption).square().sum(-1).mean() / loss.norm**2
    torch.testing.assert_close(found.loss, expected)
    both = loss(out, [[TimedText(0, 1, caption), TimedText(1, 2, "dog")]])
    assert both.cross_entropy.item() == 0.0  # of one candidate
    with pytest.raises(InvalidValueError, match="connector's width 16, found 3"):
        loss(out, [[TimedText(0, 2, torch.zeros(3)), TimedText(0, 2, "dog")]])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    llm, tokenizer = language_model()
    loss, out = AlignmentLoss(llm, tokenizer), drawn_output(1, 2, 2)
    half = out.embeddings.to(dtype)
    rows = [[TimedText(0.5, 1, "dog"), TimedText(2.5, 3, "sun")]]
    found = loss(out._replace(embeddings=half), rows)
    assert found.loss.dtype == torch.float32
    torch.testing.assert_close(found.loss, loss(out._replace(embeddings=half.float()), rows).loss)


def test_autocast_changes_nothing() -> None:
    llm, tokenizer = language_model()
    loss, out = AlignmentLoss(llm, tokenizer, candidates=WORDS), drawn_output(2, 2, 2)
    out = out._replace(embeddings=out.embeddings.float())
    rows = [[TimedText(0.5, 1, "dog"), TimedText(0.6, 1.2, "sun"), TimedText(0.7, 1.3, "tea")], []]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(out, rows)
    assert all(torch.equal(a, b) for a, b in zip(found, loss(out, rows), strict=True))


@pytest.fixture
def aligned() -> tuple[Any, AudioVisualProcessor, ConnectorAlignment]:
    llm, tokenizer = language_model()
    connector = AudioVisualConnector.from_dims(
        audio=6, llm=16, num_queries=2, hidden_size=16, window_seconds=2.0, audio_rate=10.0, dropout=0.0
    )
    model = AudioVisualLanguageModel(
        language_model=llm, connector=connector, placeholder_token_id=tokenizer.convert_tokens_to_ids("<av>")
    )
    processor = AudioVisualProcessor.from_model(model, tokenizer, sample_rate=80)
    loss = AlignmentLoss(model.language_model, tokenizer, candidates=WORDS)
    return model, processor, ConnectorAlignment(model, loss)


def rows_of(count: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(count):
        tokens = torch.randn(1, 20 + 5 * number, 6, generator=generator)
        clip = Clip(features={"audio": TokenStream.from_rate(tokens, 10.0)})
        rows.append(
            {"messages": conversation("a?", video=clip), "targets": [TimedText(0.1, 0.3, WORDS[number % len(WORDS)])]}
        )
    return rows


def test_only_the_connector_trains_and_trainer_takes_it(
    aligned: tuple[Any, AudioVisualProcessor, ConnectorAlignment], tmp_path: Path
) -> None:
    model, processor, alignment = aligned
    assert {name.split(".")[0] for name, _ in alignment.named_parameters()} == {"connector"}
    rows, collate = rows_of(4), AlignmentCollator(processor)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = alignment.eval()(**collate(rows)).loss.item()
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=30, per_device_train_batch_size=4, learning_rate=1e-2, report_to="none",
        save_strategy="no", disable_tqdm=True, use_cpu=True, remove_unused_columns=False, label_names=[],
    )  # fmt: skip
    Trainer(model=alignment, args=arguments, train_dataset=rows, data_collator=collate).train()
    assert alignment.eval()(**collate(rows)).loss.item() < 0.9 * start
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("connector.") for name in changed)


def test_a_clip_gives_what_it_gives_alone(aligned: tuple[Any, AudioVisualProcessor, ConnectorAlignment]) -> None:
    _, processor, alignment = aligned
    collate, rows = AlignmentCollator(processor), rows_of(3)
    alignment.eval()
    with torch.no_grad():
        together = alignment(**collate(rows))
        alone = [alignment(**collate([row])) for row in rows]
    # Each clip has one text, said by the two queries of its first window.
    torch.testing.assert_close(together.distance, torch.stack([one.distance for one in alone]).mean())


def test_features_in_half_precision_are_taken(aligned: tuple[Any, AudioVisualProcessor, ConnectorAlignment]) -> None:
    _, processor, alignment = aligned
    batch = AlignmentCollator(processor)(rows_of(2))
    kept = {name: value._replace(tokens=value.tokens.half()) for name, value in batch["media"].features.items()}
    found = alignment.eval()(MediaBatch(features=kept), batch["targets"]).loss
    torch.testing.assert_close(found, alignment(**batch).loss, rtol=1e-2, atol=1e-2)


def test_rows_of_one_clip_join(aligned: tuple[Any, AudioVisualProcessor, ConnectorAlignment]) -> None:
    _, processor, _ = aligned
    (row,) = rows_of(1)
    more = {"messages": row["messages"], "targets": [TimedText(0.5, 0.6, "rain")]}
    batch = AlignmentCollator(processor)([row, more])
    assert [[text.text for text in some] for some in batch["targets"]] == [["dog", "rain"]]
    with pytest.raises(InvalidValueError, match="each row must have a clip, found none in row 1"):
        AlignmentCollator(processor)([row, {"messages": conversation("a?"), "targets": []}])


def test_what_is_wrong_is_said() -> None:
    llm, tokenizer = language_model()
    with pytest.raises(InvalidValueError, match="start, end: must be finite and in order, found 2 and 1"):
        TimedText(2, 1, "dog")
    with pytest.raises(InvalidValueError, match="start, end: must be finite"):
        TimedText(float("nan"), 1, "dog")
    with pytest.raises(InvalidValueError, match="text: must not be empty"):
        TimedText(0, 1, " ")
    with pytest.raises(InvalidTypeError, match="text: must be a string or an embedding, found int"):
        TimedText(0, 1, 3)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match=r"must be \(llm_dim,\) floating-point, found \(1, 3\)"):
        TimedText(0, 1, torch.zeros(1, 3))
    with pytest.raises(InvalidValueError, match="temperature: must be positive"):
        AlignmentLoss(llm, tokenizer, temperature=0.0)
    with pytest.raises(InvalidValueError, match="cross_entropy_weight: must be finite"):
        AlignmentLoss(llm, tokenizer, cross_entropy_weight=-1.0)
    with pytest.raises(InvalidValueError, match="must be one list for each of 1 clips, found 2"):
        AlignmentLoss(llm, tokenizer)(drawn_output(1, 1, 1), [[], []])
