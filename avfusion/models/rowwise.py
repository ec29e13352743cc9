"""Logits processors that see each row of a batch as if it stood alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from avfusion._shapes import Int
from avfusion.errors import InvalidValueError
from avfusion.models._processors import NEUTRAL, Call, PerRowWatermark, RowGroup, active, build
from avfusion.models._wrappers import unwrap


def rowwise_options(
    model: Any,
    input_ids: Int[Tensor, "row length"],
    attention_mask: Int[Tensor, "row length"],
    *,
    placeholder_token_id: int | None = None,
    with_ids: bool = False,
    count_prompt: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Options for transformers' ``generate`` under which each row of a padded batch is generated as if alone.

    ``generate`` passes the padding of a batch to its logits processors, or no prompt at all if it is given embeddings.
    With these options, each processor that depends on the text or its length, from the call or from the model's
    ``generation_config``, receives a row's own text: the prompt without padding and placeholders, then the new tokens.
    It is called once for all rows of the same length. ``max_length`` and ``min_length`` count a row's own positions.

    Args:
        model: a model of transformers, possibly with adapters or wrapped, whose ``generate`` will be called.
        input_ids: ``(row, length)``: the prompts.
        attention_mask: ``(row, length)``, 1 for real tokens.
        placeholder_token_id: id of the placeholder token, which is not text.
        with_ids: whether ``generate`` is given ``input_ids`` too, not only embeddings.
        count_prompt: pass the prompt to the processors; ``False`` passes only new tokens.
        **options: options of ``generate``. Own ``logits_processor`` receive the same text.

    Returns:
        The options to pass to ``generate`` besides its inputs.

    Raises:
        InvalidValueError: a row's prompt is as long as ``max_length``.

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from avfusion.models import rowwise_options
        >>> config = LlamaConfig(
        ...     vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        ...     bos_token_id=None, eos_token_id=1, pad_token_id=0,
        ... )
        >>> model = LlamaForCausalLM(config).eval()
        >>> inputs = {
        ...     "input_ids": torch.tensor([[0, 0, 5, 6], [7, 8, 9, 2]]),
        ...     "attention_mask": torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]),
        ... }
        >>> options = rowwise_options(model, **inputs, with_ids=True, no_repeat_ngram_size=2, max_new_tokens=3)
        >>> model.generate(**inputs, **options).shape
        torch.Size([2, 7])
    """
    model = unwrap(model)
    settings = _settings(model.generation_config, options)
    names, own = active(settings), list(options.get("logits_processor") or [])
    limits = _limits(settings, attention_mask)
    if not names and not own and "max_length" not in settings:
        return options
    groups = _groups(input_ids, attention_mask, placeholder_token_id, count_prompt, limits)
    columns = input_ids.shape[1] if with_ids else 0

    def rows(names: Sequence[str], own: Sequence[Any] = ()) -> Any:
        return _RowProcessor(model, settings, groups, columns, names, own)

    marks = [name for name in names if name == "watermarking_config"]
    names = [name for name in names if name not in marks]
    options = _flat(options)
    for name in _ARGUMENTS:
        options.pop(name, None)
    options |= {name: NEUTRAL.get(name) for name in names if name not in _ARGUMENTS}
    options |= {name: PerRowWatermark(rows(marks)) for name in marks}
    options["logits_processor"] = LogitsProcessorList([rows(names, own)] if names or own else [])
    if limits and settings.get("max_new_tokens") is None:
        stops = [*(options.get("stopping_criteria") or []), _RowLimit(limits, columns)]
        options |= {"max_length": None, "max_new_tokens": max(limits), "stopping_criteria": StoppingCriteriaList(stops)}
    return options


_ARGUMENTS = ("prefix_allowed_tokens_fn", "negative_prompt_ids", "negative_prompt_attention_mask")


class _RowProcessor(LogitsProcessor):
    """Shows processors the text of each row; rows of the same length go together."""

    def __init__(
        self,
        model: Any,
        settings: Mapping[str, Any],
        groups: Sequence[RowGroup],
        columns: int,
        names: Sequence[str],
        own: Sequence[Any],
    ) -> None:
        self.model, self.settings, self.groups = model, settings, groups
        self.columns, self.names, self.own = columns, names, own
        self.built: list[tuple[Tensor, Tensor, LogitsProcessorList]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores of the next token of each sequence."""
        if not self.built:
            copies = len(scores) // sum(len(group.rows) for group in self.groups)
            self.built = [self._build(group, copies, scores.device) for group in self.groups]
        new = input_ids[:, self.columns :]
        if len(self.built) == 1:
            _, text, processors = self.built[0]
            return processors(torch.cat([text, new], 1), scores)
        found = scores.clone()
        for places, text, processors in self.built:
            found[places] = processors(torch.cat([text, new[places]], 1), scores[places])
        return found

    def _build(self, group: RowGroup, copies: int, device: torch.device) -> tuple[Tensor, Tensor, LogitsProcessorList]:
        call = Call(self.model, self.settings, group, copies, device)
        found = [processor for name in self.names if (processor := build(name, call)) is not None]
        kinds = {type(processor) for processor in self.own}  # a processor of the caller replaces one of its kind
        processors = [*(processor for processor in found if type(processor) not in kinds), *self.own]
        rows = torch.tensor(group.rows, device=device)
        places = (rows[:, None] * copies + torch.arange(copies, device=device)).flatten()
        return places, call.expand(group.text), LogitsProcessorList(processors)


class _RowLimit(StoppingCriteria):
    """Ends each row after its own number of new tokens."""

    def __init__(self, limits: Sequence[int], columns: int) -> None:
        self.limits, self.columns = limits, columns

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Whether each sequence is over."""
        limits = torch.tensor(self.limits, device=input_ids.device)
        return input_ids.shape[1] - self.columns >= limits.repeat_interleave(len(input_ids) // len(limits))


def _settings(defaults: GenerationConfig, options: Mapping[str, Any]) -> dict[str, Any]:
    """What holds for the call: its options before its ``generation_config`` before the model's."""
    return {**_set(defaults), **_set(options.get("generation_config")), **options}


def _set(config: GenerationConfig | None) -> dict[str, Any]:
    given = {} if config is None else vars(config)
    return {name: value for name, value in given.items() if value is not None and not name.startswith("_")}


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the settings of their ``generation_config`` beside them: transformers takes either."""
    config, known = options.get("generation_config"), vars(GenerationConfig())
    found = _set(config)
    if config is None or not set(found) <= set(known):
        return dict(options)
    found.pop("transformers_version", None)
    return {**found, **{name: value for name, value in options.items() if name != "generation_config"}}


def _limits(settings: Mapping[str, Any], attention_mask: Tensor) -> list[int] | None:
    """New tokens that each row may have; ``None`` where no length is set."""
    positions = attention_mask.sum(1).tolist()
    if (new := settings.get("max_new_tokens")) is not None:
        return [int(new)] * len(positions)
    if (longest := settings.get("max_length")) is None:
        return None
    if max(positions) >= longest:
        raise InvalidValueError(
            f"max_length: must be above the {max(positions)} positions of row {positions.index(max(positions))}, "
            f"found {longest}; max_new_tokens counts new tokens alone"
        )
    return [int(longest - count) for count in positions]


def _groups(
    input_ids: Tensor,
    attention_mask: Tensor,
    placeholder_token_id: int | None,
    count_prompt: bool,
    limits: Sequence[int] | None,
) -> list[RowGroup]:
    """The rows by length of text and by positions."""
    real = attention_mask.bool()
    text = real & count_prompt
    if placeholder_token_id is not None:
        text = text & (input_ids != placeholder_token_id)
    members: dict[tuple[int, int], list[int]] = {}
    for row, key in enumerate(zip(text.sum(1).tolist(), real.sum(1).tolist(), strict=True)):
        members.setdefault(key, []).append(row)
    return [
        RowGroup(
            rows,
            torch.stack([input_ids[row][text[row]] for row in rows]),
            positions,
            limits[rows[0]] if limits else None,
        )
        for (_, positions), rows in members.items()
    ]
