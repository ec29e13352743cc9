"""Instruction tokens as states next to the queries."""

import torch
from torch import Tensor, nn

from avfusion._shapes import Bool, Float
from avfusion.errors import InvalidTypeError, InvalidValueError


class InstructionEmbedding(nn.Module):
    """Maps instruction tokens to the queries' width and adds a learned position embedding.

    Args:
        input_dim: width of the tokens.
        hidden_size: width of the queries.
        max_tokens: longest instruction.

    Example:
        >>> import torch
        >>> embed = InstructionEmbedding(input_dim=6, hidden_size=8, max_tokens=16)
        >>> embed(torch.randn(2, 5, 6)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, *, input_dim: int, hidden_size: int, max_tokens: int) -> None:
        super().__init__()
        self.input_dim = input_dim
        self.proj = nn.Linear(input_dim, hidden_size)
        self.position_embedding = nn.Parameter(torch.empty(max_tokens, hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises the position embedding."""
        nn.init.normal_(self.position_embedding, std=0.02)

    def forward(
        self, tokens: Float[Tensor, "window length input_dim"], mask: Bool[Tensor, "window length"] | None = None
    ) -> Float[Tensor, "window length hidden"]:
        """Embeds the tokens; masked values are never read.

        Args:
            tokens: ``(window, length, input_dim)``.
            mask: ``(window, length)`` bool; all real by default.

        Raises:
            InvalidValueError: shapes that do not fit.
            InvalidTypeError: a mask that is not boolean.
        """
        longest = self.position_embedding.shape[0]
        if tokens.ndim != 3 or tokens.shape[2] != self.input_dim or tokens.shape[1] > longest:
            raise InvalidValueError(
                f"instruction: must be (window, at most {longest} tokens, {self.input_dim}), "
                f"found shape {tuple(tokens.shape)}"
            )
        if mask is not None:
            if mask.dtype != torch.bool:
                raise InvalidTypeError(f"instruction_mask: must be boolean (True = real), found {mask.dtype}")
            if mask.shape != tokens.shape[:2]:
                raise InvalidValueError(
                    f"instruction_mask: must be (window, length) = {tuple(tokens.shape[:2])}, "
                    f"found shape {tuple(mask.shape)}"
                )
            tokens = torch.where(mask[..., None], tokens, 0)
        return self.proj(tokens) + self.position_embedding[: tokens.shape[1]]
