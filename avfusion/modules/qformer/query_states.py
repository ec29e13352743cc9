"""The states that the first layer gets: the queries, with the instruction behind them."""

import torch
from torch import Tensor, nn

from avfusion.errors import InvalidValueError
from avfusion.modules.qformer.instruction_embedding import InstructionEmbedding


def first_states(
    queries: Tensor,
    windows: int,
    instruction: Tensor | None,
    instruction_mask: Tensor | None,
    *,
    norm: nn.LayerNorm,
    dropout: nn.Dropout,
    embedding: InstructionEmbedding | None,
) -> tuple[Tensor, Tensor | None]:
    """States ``(windows or 1, query + instruction, hidden)``, one where they are the same for all, and their mask.

    Args:
        queries: ``(query, hidden)``.
        windows: how many there are.
        instruction: ``(window, length, instruction_dim)``.
        instruction_mask: ``(window, length)`` bool.
        norm: of queries and instruction.
        dropout: of the states.
        embedding: of the instruction; ``None`` in a module that takes none.
    """
    if instruction is None and instruction_mask is not None:
        raise InvalidValueError("instruction_mask: must come with an instruction, found none")
    if embedding is None and instruction is not None:
        raise InvalidValueError("instruction: this CausalQFormer was built without instruction_dim")
    states, state_mask = norm(queries)[None], None
    if embedding is None:
        if dropout.training and dropout.p:  # each window drops other parts of its queries
            states = states.expand(windows, -1, -1)
        return dropout(states), None
    if instruction is None:  # no tokens, so that the embedding's parameters still get a (zero) gradient
        instruction = queries.new_empty(windows, 0, embedding.input_dim)
    if instruction.shape[0] != windows:
        raise InvalidValueError(f"instruction: must be of {windows} windows, found shape {tuple(instruction.shape)}")
    states = states.expand(windows, -1, -1)
    states = torch.cat([states, norm(embedding(instruction, instruction_mask))], 1)
    if instruction_mask is not None:
        state_mask = torch.cat([instruction_mask.new_ones(windows, len(queries)), instruction_mask], 1)
    return dropout(states), state_mask
