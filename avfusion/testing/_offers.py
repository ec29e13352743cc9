"""Whether what a window encoder offers beyond the Protocol that all satisfy is as promised."""

from collections.abc import Callable

import torch
from torch import Tensor

from avfusion.testing._exam import Exam
from avfusion.types import ConditionedWindowEncoder, QuerySetWindowEncoder, SharedFrameWindowEncoder


def _check_shared_frames(exam: Exam, tokens: Tensor, mask: Tensor, states: Tensor) -> None:
    name = "shared frames"

    def compare(rule: str, hint: str, found: Tensor, wanted: Tensor) -> None:
        difference = exam.difference(found, wanted)
        if difference is not None:
            exam.fail(name, rule, f"a difference of {difference:.2g}", hint)

    rule, hint = "masked places may hold anything", "clear them first: torch.where(mask, tokens, 0)"
    spoilt = torch.where(mask[..., None], tokens, torch.nan)
    compare(rule, hint, exam.run(name, rule, hint, exam.part, spoilt, mask), states)
    rule, hint = "the mask None must mean that all is real", "take mask=None"
    compare(rule, hint, exam.run(name, rule, hint, exam.part, tokens[:1], None), states[:1])
    rule, hint = (
        "frame_index must give what the windows spelled out give",
        "gather tokens[frame_index] where it is given",
    )
    index = torch.arange(mask[..., 0].numel(), device=mask.device).view(mask.shape[:2])
    index, rows, kept = index.flip(0), tokens.flatten(0, 1), mask.flip(0)
    found = exam.run(name, rule, hint, exam.part, rows, kept, frame_index=index)
    compare(rule, hint, found, states.flip(0))


def _check_query_sets(exam: Exam, tokens: Tensor, mask: Tensor, states: Tensor) -> None:
    name, hint = "query sets", "let queries take the place of the module's own"
    count, width = exam.part.num_queries + 1, exam.part.output_dim
    draw = torch.Generator().manual_seed(1)
    others = torch.randn(count, width, generator=draw).to(states)
    wanted = (len(tokens), count, width)
    rule = f"{count} queries must give states of shape {wanted}"
    found = exam.run(name, rule, hint, exam.part, tokens, mask, queries=others)
    if found.shape != wanted:
        exam.fail(name, rule, f"shape {tuple(found.shape)}", hint)
    alone = exam.part(tokens[:1], mask[:1], queries=others)
    difference = exam.difference(found[:1], alone)
    if difference is not None:
        rule = "a window must give beside others what it gives alone, for other queries too"
        exam.fail(name, rule, f"a difference of {difference:.2g}", hint)


def _check_conditioning(exam: Exam, tokens: Tensor, mask: Tensor, states: Tensor) -> None:
    name, hint = "conditioning", "mask the instruction's tokens, and mix no windows"
    draw = torch.Generator().manual_seed(2)
    words = torch.randn(len(tokens), 3, exam.part.instruction_dim, generator=draw).to(states)
    real = torch.ones(words.shape[:2], dtype=torch.bool, device=words.device)
    real[0, 1:] = False
    rule = "masked tokens of an instruction must not matter"
    said = exam.run(name, rule, hint, exam.part, tokens, mask, instruction=words, instruction_mask=real)
    spoilt = torch.where(real[..., None], words, torch.nan)
    found = exam.part(tokens, mask, instruction=spoilt, instruction_mask=real)
    difference = exam.difference(found, said)
    if difference is not None:
        exam.fail(name, rule, f"a difference of {difference:.2g}", hint)
    rule = "a window's instruction must reach no other window"
    one = slice(0, 1)
    alone = exam.run(name, rule, hint, exam.part, tokens[one], mask[one], instruction=words[one, :1])
    difference = exam.difference(said[one], alone)
    if difference is not None:
        exam.fail(name, rule, f"a difference of {difference:.2g}", hint)


OFFERS: tuple[tuple[str, type, Callable[[Exam, Tensor, Tensor, Tensor], None]], ...] = (
    ("shared frames", SharedFrameWindowEncoder, _check_shared_frames),
    ("query sets", QuerySetWindowEncoder, _check_query_sets),
    ("conditioning", ConditionedWindowEncoder, _check_conditioning),
)
