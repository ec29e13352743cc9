"""The tokens of an image: prefix tokens, then a grid of patches, which may be pooled."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from avfusion.errors import InvalidValueError
from avfusion.functional.pooling import pool_patches, pooled_grid


class Patches(NamedTuple):
    """The layout of an image's tokens, and which of them are returned.

    Attributes:
        prefix: class and register tokens before the patches.
        number: patches.
        grid: rows and columns of patches, ``None`` if they form no grid.
        keep_prefix: return the prefix tokens too.
        pool: rows and columns of the pooled grid, ``None`` for all patches.
    """

    prefix: int
    number: int
    grid: tuple[int, int] | None
    keep_prefix: bool
    pool: tuple[int, int] | None = None

    @property
    def tokens(self) -> int:
        """Number of returned tokens."""
        kept = self.number if self.pool is None else self.pool[0] * self.pool[1]
        return kept + self.prefix * self.keep_prefix

    def pooled(self, pool: int | tuple[int, int] | None) -> Self:
        """The layout with a pooled grid.

        Raises:
            InvalidValueError: a ``pool`` larger than the grid, or patches that form none.
        """
        if pool is None:
            return self
        if self.grid is None:
            raise InvalidValueError(f"pool: must be None for a model whose {self.number} patches form no grid")
        return self._replace(pool=pooled_grid(pool, self.grid))

    def select(self, tokens: Tensor) -> Tensor:
        """Selects and pools the model's ``(image, token, dim)``."""
        prefix, patches = tokens[:, : self.prefix], tokens[:, self.prefix :]
        if self.pool is not None and self.grid is not None:
            patches = pool_patches(patches, self.grid, self.pool)
        return torch.cat([prefix, patches], 1) if self.keep_prefix else patches


def merged_grid(tokens: int, size: tuple[int, int], patch: int | tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches among the tokens of an image of ``size``; the remaining tokens come first."""
    height, width = (patch, patch) if isinstance(patch, int) else patch
    while size[0] // height * (size[1] // width) > tokens:  # from stage to stage, 2 × 2 patches are merged
        height, width = 2 * height, 2 * width
    return size[0] // height, size[1] // width
