"""Answers to conversations: many at once, or one while it is being written."""

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import BatchFeature, StoppingCriteriaList
from transformers.generation.stopping_criteria import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from avfusion import InvalidValueError
from avfusion.models import rowwise_options
from examples.favor.processing_favor import FavorProcessor


class Decoding(NamedTuple):
    """How answers are found; as published without arguments.

    Attributes:
        max_new_tokens: length of an answer at most.
        num_beams: of beam search; 1 for greedy decoding or sampling.
        repetition_penalty: against what the answer holds already; no logits processor counts the prompt's tokens.
        temperature: sample at this temperature; 0 takes the likeliest.
        top_p: sample from the likeliest tokens that have this much probability together.
    """

    max_new_tokens: int = 256
    num_beams: int = 5
    repetition_penalty: float = 1.5
    temperature: float = 0.0
    top_p: float = 1.0

    def check(self) -> "Decoding":
        """Itself.

        Raises:
            InvalidValueError: a value that makes no sense.
        """
        for name, low, high in (
            ("max_new_tokens", 1, torch.inf),
            ("num_beams", 1, torch.inf),
            ("temperature", 0, torch.inf),
        ):
            if not low <= getattr(self, name) < high:
                raise InvalidValueError(f"{name}: must be at least {low}, found {getattr(self, name)}")
        if not 0 < self.top_p <= 1:
            raise InvalidValueError(f"top_p: must be above 0 and at most 1, found {self.top_p}")
        if not 0 < self.repetition_penalty < torch.inf:
            raise InvalidValueError(f"repetition_penalty: must be above 0, found {self.repetition_penalty}")
        return self

    def arguments(self) -> dict[str, Any]:
        """For :meth:`avfusion.models.LiveSession.ask` and :func:`avfusion.models.rowwise_options`."""
        sampling = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p}
        return {
            "max_new_tokens": self.max_new_tokens,
            "num_beams": self.num_beams,
            "repetition_penalty": self.repetition_penalty,
            "count_prompt": False,
            **(sampling if self.temperature > 0 else {"do_sample": False}),
        }


class Answerer:
    """Model and processor, which answer together, in as many threads at once as ask them.

    Args:
        model: in evaluation mode.
        processor: its own.
        decoding: how answers are found.
    """

    def __init__(self, *, model: Any, processor: FavorProcessor, decoding: Decoding | None = None) -> None:
        self.model = model
        self.processor = processor
        self.decoding = (decoding or Decoding()).check()
        processor.prepare_for_threads()

    def answer(self, conversations: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
        """The answer to each conversation, as :meth:`FavorProcessor.apply_chat_template` takes them."""
        return [self._text(tokens) for tokens in self.tokens(conversations)]

    def answer_inputs(self, inputs: Mapping[str, Tensor]) -> list[str]:
        """The answer to each row of what the processor gave, wherever it is."""
        placed = {name: value.to(self.model.device, non_blocking=True) for name, value in inputs.items()}
        return [self._text(self._cut(row)) for row in self._generate(placed, self.decoding)]

    def tokens(self, conversations: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[int]]:
        """The tokens of each answer, up to the end token and without it."""
        inputs = self.inputs(conversations)
        return [self._cut(row) for row in self._generate(inputs, self.decoding)]

    def stream(
        self,
        conversation: Sequence[Mapping[str, Any]],
        *,
        seconds: float | None = None,
        longest: float | None = None,
    ) -> Generator[str, None, None]:
        """The answer in pieces, as it is being written. Beams have no such order: it is found without them.

        A piece is empty where a token shows nothing yet. Whoever stops listening stops the model too.

        Args:
            conversation: as :meth:`FavorProcessor.apply_chat_template` takes it.
            seconds: within which it must be ready, the reading of its media included.
            longest: seconds that its media may last.

        Raises:
            TimeoutError: it was not ready in time; what had been written has been given.
        """
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        options = {} if seconds is None else {"timeout": seconds}
        inputs = self.inputs([conversation], media_options={**options, "longest": longest})
        streamer, stop = _Tokens(), _Stop(deadline)
        with ThreadPoolExecutor(max_workers=1) as pool:
            found = pool.submit(
                self._generate,
                inputs,
                self.decoding._replace(num_beams=1),
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([stop]),
            )
            found.add_done_callback(lambda _: streamer.end())  # after an error too
            written: list[int] = []
            shown = ""
            try:
                for tokens in streamer:
                    written += tokens
                    # What may still change waits: characters of which bytes are missing, and space at the end.
                    text = self._text(self._cut(written)).rstrip("\ufffd").rstrip()
                    new = text[len(shown) :] if text.startswith(shown) else ""
                    shown += new
                    yield new
                rest = self._text(self._cut(found.result()[0].tolist())).removeprefix(shown)
                if rest:
                    yield rest
                if stop.late:
                    raise TimeoutError(f"The answer was not ready within {seconds:g} s and ends here.")
            finally:
                stop.asked.set()

    def inputs(self, conversations: Sequence[Sequence[Mapping[str, Any]]], **options: Any) -> BatchFeature:
        """What the model takes for them, where it is; options of :meth:`FavorProcessor.apply_chat_template`."""
        return self.processor.apply_chat_template(conversations, **options).to(self.model.device)

    @torch.no_grad()
    def _generate(self, inputs: Mapping[str, Tensor] | BatchFeature, decoding: Decoding, **options: Any) -> Tensor:
        options = rowwise_options(
            self.model,
            inputs["input_ids"],
            inputs["attention_mask"],
            placeholder_token_id=self.model.config.media_token_id,
            with_ids=True,
            **decoding.arguments(),
            **options,
        )
        return self.model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]

    def _cut(self, tokens: Tensor | list[int]) -> list[int]:
        found: list[int] = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends]) | {self.processor.tokenizer.eos_token_id}
        return found[: next((place for place, token in enumerate(found) if token in ends), None)]

    def _text(self, tokens: list[int]) -> str:
        text: str = self.processor.tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text.strip()


class _Tokens(BaseStreamer):
    """New tokens, handed from the thread that makes them to the one that reads."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[list[int] | None] = SimpleQueue()
        self.prompt_passed = False

    def put(self, value: Tensor) -> None:
        if self.prompt_passed:
            self.queue.put(value.flatten().tolist())
        self.prompt_passed = True

    def end(self) -> None:
        self.queue.put(None)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.queue.get, None)


class _Stop(StoppingCriteria):
    """Stops when asked to, or when it is late."""

    def __init__(self, deadline: float) -> None:
        self.asked, self.deadline, self.late = Event(), deadline, False

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        self.late = self.late or time.monotonic() > self.deadline
        done = self.late or self.asked.is_set()
        return torch.full((len(input_ids),), done, dtype=torch.bool, device=input_ids.device)
