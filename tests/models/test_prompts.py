from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from avfusion import InvalidTypeError, InvalidValueError, PlaceholderError
from avfusion.models import prepare_inputs

AV, EOS, RED, BLUE = 2, 1, 8, 9


@settings(deadline=None, max_examples=30)
@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=4), side=st.sampled_from(["left", "right"]), data=st.data()
)
def test_rows_are_what_they_are_alone_padded(counts: list[int], side: Any, data: Any) -> None:
    tokenizer = words()
    prompts = [
        ("<av> " if count else "") + "which colour was on"[: data.draw(st.sampled_from([5, 12]))] for count in counts
    ]
    answers = [data.draw(st.sampled_from(["red", "red blue"])) for _ in counts]
    batch = prepare_inputs(tokenizer, prompts, counts, answers=answers, padding_side=side)
    for row, count in enumerate(counts):
        alone = prepare_inputs(tokenizer, prompts[row : row + 1], [count], answers=answers[row : row + 1])
        real = batch["attention_mask"][row].bool()
        length = int(real.sum())
        assert torch.equal(
            real, torch.arange(len(real)) < length if side == "right" else torch.arange(len(real)) >= len(real) - length
        )
        assert all(torch.equal(batch[name][row][real], alone[name][0]) for name in alone)
        assert (batch["labels"][row][~real] == -100).all()
        assert int((alone["input_ids"] == AV).sum()) == count
        learned = alone["labels"][0] != -100
        assert alone["labels"][0][learned].tolist() == [*tokenizer(answers[row])["input_ids"], EOS]
        assert torch.equal(alone["labels"][0][learned], alone["input_ids"][0][learned])
        assert learned.tolist() == sorted(learned.tolist())  # the answer comes last


def words() -> PreTrainedTokenizerFast:
    names = ["<unk>", "</s>", "<av>", "which", "colour", "was", "on", "screen", "red", "blue", "<s>"]
    rule = Tokenizer(models.WordLevel({word: index for index, word in enumerate(names)}, unk_token="<unk>"))
    rule.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=rule, unk_token="<unk>", eos_token="</s>", pad_token="</s>", bos_token="<s>"
    )


def test_end_token_is_learned_though_it_pads(tokenizer: Any) -> None:
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    labels = prepare_inputs(tokenizer, ["which", "which colour was"], [0, 0], answers=["red", "red"])["labels"]
    assert labels.tolist() == [[-100, -100, -100, RED, EOS], [-100, -100, -100, RED, EOS]]


def test_prompt_alone_is_the_prompt_that_was_trained(tokenizer: Any) -> None:
    prompts, counts = ["<av> which colour", "on screen"], [3, 0]
    trained = prepare_inputs(tokenizer, prompts, counts, answers=["red", "blue blue"])
    asked = prepare_inputs(tokenizer, prompts, counts)
    assert set(asked) == {"input_ids", "attention_mask"}
    for row in range(2):
        prompt = trained["input_ids"][row][(trained["labels"][row] == -100) & trained["attention_mask"][row].bool()]
        assert torch.equal(asked["input_ids"][row][asked["attention_mask"][row].bool()], prompt)


@pytest.mark.parametrize(("add", "expected"), [(True, [10, 2, 2, 3]), (False, [2, 2, 3])])
def test_special_tokens_begin_a_prompt_but_do_not_end_it(add: bool, expected: list[int]) -> None:
    tokenizer = words()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 10), ("</s>", 1)]
    )
    inputs = prepare_inputs(tokenizer, ["<av> which"], [2], answers=["red"], add_special_tokens=add)
    assert inputs["input_ids"].tolist() == [[*expected, RED, EOS]]


@pytest.mark.parametrize("template", ["<s> $A", "<s> $A </s>"])
def test_end_token_in_the_prompt_itself_is_kept(template: str) -> None:
    tokenizer = words()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 10), ("</s>", 1)]
    )
    assert prepare_inputs(tokenizer, ["red </s>"], [0])["input_ids"].tolist() == [[10, RED, EOS]]


def test_placeholder_inside_running_text() -> None:
    rule = Tokenizer(models.BPE({"a": 0, "b": 1, "</s>": 2}, []))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rule, eos_token="</s>")
    tokenizer.add_tokens([AddedToken("<av>", special=True)], special_tokens=True)
    inputs = prepare_inputs(tokenizer, ["a<av>b", "ab"], torch.tensor([2, 0]))
    assert inputs["input_ids"].tolist() == [[0, 3, 3, 1], [2, 2, 0, 1]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prompts": ["which"], "counts": [2]}, PlaceholderError, "found 0 in row 0, whose clip has 2"),
        ({"prompts": ["which", "<av> on <av>"], "counts": [0, 2]}, PlaceholderError, "found 2 in row 1"),
        ({"prompts": ["<av>"], "counts": [1], "answers": ["red <av>"]}, PlaceholderError, "found it in row 0"),
        ({"prompts": "<av>", "counts": [1]}, InvalidTypeError, "prompts: must be a list"),
        ({"prompts": ["<av>"], "counts": [1], "answers": "red"}, InvalidTypeError, "answers: must be a list"),
        ({"prompts": [], "counts": []}, InvalidValueError, "at least one prompt"),
        (
            {"prompts": ["<av>"], "counts": [1, 1]},
            InvalidValueError,
            "counts: must be one for each of 1 prompts, found 2",
        ),
        ({"prompts": ["<av>"], "counts": [1], "answers": []}, InvalidValueError, "answers: must be one for each of 1"),
        ({"prompts": ["<av>"], "counts": [-1]}, InvalidValueError, "counts: must be at least 0"),
        ({"prompts": ["<av>"], "counts": [1], "padding_side": "up"}, InvalidValueError, "found 'up'"),
        ({"prompts": ["<av>"], "counts": [1], "placeholder": "<video>"}, InvalidValueError, "'<video>', which is not"),
        ({"prompts": ["</s>"], "counts": [1], "placeholder": "</s>"}, InvalidValueError, "not be the token that pads"),
    ],
)
def test_bad_input_is_refused(tokenizer: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        prepare_inputs(tokenizer, **arguments)


def test_answers_need_an_end_token() -> None:
    rule = Tokenizer(models.WordLevel({"<unk>": 0, "<av>": 1}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rule, unk_token="<unk>")
    with pytest.raises(InvalidValueError, match="eos_token"):
        prepare_inputs(tokenizer, ["<av>"], [1], answers=["red"])
    assert prepare_inputs(tokenizer, ["<av>"], [2])["input_ids"].tolist() == [[1, 1]]


def test_a_dialogue_is_its_turns_one_after_the_other() -> None:
    tokenizer = words()
    asked, said = ["<av> which colour", "was on", "screen"], ["red", "blue blue", "red"]
    whole = prepare_inputs(tokenizer, [asked], [2], answers=[said])
    turns = [
        prepare_inputs(tokenizer, [prompt], [2 if "<av>" in prompt else 0], answers=[answer])
        for prompt, answer in zip(asked, said, strict=True)
    ]
    for name, value in whole.items():
        assert value[0].tolist() == [part for turn in turns for part in turn[name][0].tolist()]


def test_a_dialogue_may_end_with_a_question() -> None:
    tokenizer = words()
    asked = ["<av> which colour", "was on"]
    inputs = prepare_inputs(tokenizer, [asked, "screen"], [1, 0], answers=[["red"], "blue"])
    assert inputs["input_ids"][0].tolist() == [AV, 3, 4, RED, EOS, 5, 6]
    assert inputs["labels"][0].tolist() == [-100, -100, -100, RED, EOS, -100, -100]


def test_special_tokens_begin_a_dialogue_once() -> None:
    tokenizer = words()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 10)]
    )
    ids = prepare_inputs(tokenizer, [["which", "colour"]], [0], answers=[["red", "blue"]])["input_ids"]
    assert ids[0].tolist() == [10, 3, RED, EOS, 4, BLUE, EOS]


@pytest.mark.parametrize(
    ("prompts", "answers"),
    [
        ([["which", "colour"]], None),
        ([["which", "colour"]], [[]]),
        ([["which", "colour"]], ["red"]),
        (["which"], [["red", "red"]]),
        ([[]], [[]]),
    ],
)
def test_a_dialogue_of_unequal_sides_is_refused(prompts: Any, answers: Any) -> None:
    with pytest.raises(InvalidValueError, match="answers: a dialogue must have one for each prompt"):
        prepare_inputs(words(), prompts, [0], answers=answers)


def test_the_clip_stands_once_in_a_dialogue() -> None:
    with pytest.raises(PlaceholderError, match="found 2 in row 0"):
        prepare_inputs(words(), [["<av> which", "<av> colour"]], [1], answers=[["red", "red"]])
