"""Average pooling of patch grids."""

import torch.nn.functional as F
from torch import Tensor

from avfusion._shapes import Float
from avfusion.errors import InvalidValueError


def pooled_grid(pool: int | tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the pooled grid; a number of tokens is split into the squarest grid.

    Raises:
        InvalidValueError: more rows or columns than ``grid`` has, or none.

    Example:
        >>> pooled_grid(32, (16, 16)), pooled_grid((1, 4), (16, 16))
        ((4, 8), (1, 4))
    """
    if isinstance(pool, int):
        rows = next((rows for rows in range(int(max(pool, 0) ** 0.5), 0, -1) if pool % rows == 0), 0)
        pool = (rows, pool // rows if rows else 0)
    if not (1 <= pool[0] <= grid[0] and 1 <= pool[1] <= grid[1]):
        raise InvalidValueError(f"pool: must be a grid of at most {grid[0]} × {grid[1]} patches, found {pool}")
    return pool


def pool_patches(
    patches: Float[Tensor, "image patch dim"], grid: tuple[int, int], pool: int | tuple[int, int]
) -> Float[Tensor, "image token dim"]:
    """Averages neighbouring patches of images.

    Args:
        patches: ``(image, rows × columns, dim)``, row by row.
        grid: rows and columns of the patches.
        pool: tokens, split into the squarest grid, or rows and columns of the result.

    Returns:
        ``(image, token, dim)``, row by row.

    Raises:
        InvalidValueError: a grid that the patches do not fill, or that is smaller than the result.

    Example:
        >>> import torch
        >>> pool_patches(torch.randn(2, 256, 24), grid=(16, 16), pool=32).shape
        torch.Size([2, 32, 24])
    """
    if patches.shape[1] != grid[0] * grid[1]:
        raise InvalidValueError(f"grid: {grid[0]} × {grid[1]} must be the number of patches, found {patches.shape[1]}")
    maps = patches.transpose(1, 2).unflatten(2, grid)
    return F.adaptive_avg_pool2d(maps, pooled_grid(pool, grid)).flatten(2).transpose(1, 2)
