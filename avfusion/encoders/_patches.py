"""The tokens of a picture: some before the patches, then a grid of these, which may be averaged to fewer."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from avfusion.errors import InvalidValueError
from avfusion.functional.pooling import pool_patches, pooled_grid


class Patches(NamedTuple):
    """How the tokens of a picture lie, and which of them are kept.

    Attributes:
        prefix: class and register tokens before the patches.
        number: patches.
        grid: rows and columns of patches, ``None`` where they form no grid.
        keep_prefix: keep the tokens before the patches.
        pool: rows and columns that the grid is averaged to, ``None`` for all patches.
    """

    prefix: int
    number: int
    grid: tuple[int, int] | None
    keep_prefix: bool
    pool: tuple[int, int] | None = None

    @property
    def tokens(self) -> int:
        """Tokens that are kept."""
        kept = self.number if self.pool is None else self.pool[0] * self.pool[1]
        return kept + self.prefix * self.keep_prefix

    def pooled(self, pool: int | tuple[int, int] | None) -> Self:
        """The same tokens averaged to fewer.

        Raises:
            InvalidValueError: a ``pool`` larger than the grid, or patches that form none.
        """
        if pool is None:
            return self
        if self.grid is None:
            raise InvalidValueError(f"pool: must be None for a model whose {self.number} patches form no grid")
        return self._replace(pool=pooled_grid(pool, self.grid))

    def select(self, tokens: Tensor) -> Tensor:
        """``(picture, token, dim)`` as the model gives them to those that are kept."""
        prefix, patches = tokens[:, : self.prefix], tokens[:, self.prefix :]
        if self.pool is not None and self.grid is not None:
            patches = pool_patches(patches, self.grid, self.pool)
        return torch.cat([prefix, patches], 1) if self.keep_prefix else patches


def merged_grid(tokens: int, size: tuple[int, int], patch: int | tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches among the tokens of a picture of ``size``; those that are left over come first."""
    height, width = (patch, patch) if isinstance(patch, int) else patch
    while size[0] // height * (size[1] // width) > tokens:  # from stage to stage, 2 × 2 patches are merged
        height, width = 2 * height, 2 * width
    return size[0] // height, size[1] // width
