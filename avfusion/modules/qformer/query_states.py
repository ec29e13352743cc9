"""The states that the layers update: those of the queries, then those of the instruction."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from avfusion.modules.qformer.instruction_embedding import InstructionEmbedding


class QueryStates(NamedTuple):
    """States of queries and instruction.

    Attributes:
        states: ``(window, query + instruction, hidden)``, or of one window where they are the same in all.
        mask: ``(window, query + instruction)`` bool, or ``None``: all real.
        num_queries: how many of them are queries.
    """

    states: Tensor
    mask: Tensor | None
    num_queries: int


def first_states(
    queries: Tensor,
    instruction: Tensor | None,
    instruction_mask: Tensor | None,
    *,
    windows: int,
    norm: nn.LayerNorm,
    dropout: nn.Dropout,
    embedding: InstructionEmbedding | None,
) -> QueryStates:
    """The states before the first layer.

    Args:
        queries: ``(query, hidden)``.
        instruction: ``(window, length, instruction_dim)``, if ``embedding`` takes one.
        instruction_mask: ``(window, length)`` bool.
        windows: how many there are.
        norm: of queries and instruction.
        dropout: of both.
        embedding: of the instruction.
    """
    states = norm(queries)[None]
    if embedding is None:
        if dropout.training and dropout.p:  # dropout differs between windows
            states = states.expand(windows, -1, -1)
        return QueryStates(dropout(states), None, len(queries))
    if instruction is None:  # no tokens, so that the embedding's parameters still get a (zero) gradient
        instruction = queries.new_empty(windows, 0, embedding.input_dim)
    embedded = norm(embedding(instruction, instruction_mask))
    states = dropout(torch.cat([states.expand(windows, -1, -1), embedded], 1))
    mask = None if instruction_mask is None else pad(instruction_mask, (len(queries), 0), value=True)
    return QueryStates(states, mask, len(queries))
