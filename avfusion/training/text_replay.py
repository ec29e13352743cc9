"""Text that the language model wrote itself, as rows of training: they keep its answers without a clip."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from avfusion.errors import InvalidTypeError, InvalidValueError


@torch.no_grad()
def base_answers(
    model: Any,
    processor: Any,
    questions: Sequence[str | Sequence[Any]],
    *,
    max_new_tokens: int = 64,
    batch_size: int = 16,
    **options: Any,
) -> list[list[Any]]:
    """Lets the base model answer questions without a clip, with its adapters switched off.

    Training on the answers beside clips (:class:`TextReplay`) keeps the adapted language model near the base model on
    text without a clip.

    Args:
        model: an :class:`~avfusion.models.AudioVisualLanguageModel` whose language model is frozen or has adapters of
            peft.
        processor: its processor.
        questions: texts, or conversations that end with a question.
        max_new_tokens: longest answer. One that has not ended by then is left out: its end would be learned.
        batch_size: questions to answer at once.
        **options: of ``generate``; greedy by default.

    Returns:
        The conversations with their answers, in order, as the processor takes them.

    Raises:
        InvalidTypeError: one string instead of a list.
        InvalidValueError: no question was answered within ``max_new_tokens``, or the language model has no end token.

    Example:
        >>> import torch
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
        >>> from avfusion import AudioVisualConnector
        >>> from avfusion.models import AudioVisualLanguageModel, AudioVisualProcessor
        >>> from avfusion.training import base_answers
        >>> words = ["<unk>", "</s>", "<av>", "USER:", "ASSISTANT:", "Who?", "Me"]
        >>> rule = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
        >>> rule.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rule, eos_token="</s>", unk_token="<unk>")
        >>> llm = LlamaForCausalLM(LlamaConfig(
        ...     vocab_size=7, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        ...     eos_token_id=1,
        ... ))
        >>> _ = torch.nn.init.zeros_(llm.lm_head.weight)
        >>> llm.generation_config.suppress_tokens = [0]  # so that it ends at once
        >>> connector = AudioVisualConnector.from_dims(audio=8, llm=16, num_queries=2, hidden_size=16)
        >>> model = AudioVisualLanguageModel(language_model=llm, connector=connector, placeholder_token_id=2)
        >>> base_answers(model.eval(), AudioVisualProcessor.from_model(model, tokenizer), ["Who?"])
        [[{'role': 'user', 'content': 'Who?'}, {'role': 'assistant', 'content': ''}]]
    """
    if isinstance(questions, str):
        raise InvalidTypeError("questions: must be a list of questions, found one string")
    rows = [[{"role": "user", "content": one}] if isinstance(one, str) else list(one) for one in questions]
    options = {"do_sample": False, **options, "max_new_tokens": max_new_tokens}
    if model.generation_config.eos_token_id is None:
        raise InvalidValueError("generation_config: must have an end token (eos_token_id), found None")
    device = model.language_model.get_input_embeddings().weight.device
    was_training = model.training
    model.eval()
    answered = []
    try:
        for first in range(0, len(rows), batch_size):
            part = rows[first : first + batch_size]
            ids = model.generate(**processor.apply_chat_template(part).to(device), text_only="base", **options)
            ends = torch.as_tensor(model.generation_config.eos_token_id, device=ids.device)
            for row, said, ended in zip(part, ids, torch.isin(ids, ends), strict=True):
                if ended.any():  # what follows is padding
                    text = processor.tokenizer.decode(said[: int(ended.int().argmax())], skip_special_tokens=True)
                    answered.append([*row, {"role": "assistant", "content": text}])
    finally:
        model.train(was_training)
    if not answered:
        raise InvalidValueError(
            f"max_new_tokens: must be long enough for an answer to end, found {max_new_tokens}: none of {len(rows)} did"
        )
    return answered


class TextReplay:
    """Adds rows of text to every batch; a ``collate_fn``, or Trainer's ``data_collator``.

    The rows are drawn without replacement by torch's random generator, which data loaders seed for each worker.

    Args:
        collate: makes a batch of conversations, such as ``processor.collate``.
        conversations: with answers, without clips, such as :func:`base_answers` returns.
        rows: number of conversations to add to a batch.

    Raises:
        InvalidValueError: ``rows`` is not from 1 to the number of conversations.

    Example:
        >>> from avfusion.training import TextReplay
        >>> collate = TextReplay(list, [["text"]], rows=1)  # in your code collate is processor.collate
        >>> collate([["clip 1"], ["clip 2"]])
        [['clip 1'], ['clip 2'], ['text']]
    """

    def __init__(self, collate: Callable[[list[Any]], Any], conversations: Sequence[Any], *, rows: int) -> None:
        if not 1 <= rows <= len(conversations):
            raise InvalidValueError(f"rows: must be from 1 to {len(conversations)}, found {rows}")
        self.collate = collate
        self.conversations = list(conversations)
        self.rows = rows

    def __call__(self, rows: Sequence[Any]) -> Any:
        """Collates the rows and some of the conversations, which come last."""
        drawn = torch.randperm(len(self.conversations))[: self.rows].tolist()
        return self.collate([*rows, *(self.conversations[number] for number in drawn)])
