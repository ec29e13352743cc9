"""The connector at its published size against what one would use instead."""

from benchmarks import against_released, against_transformers
from benchmarks.suite import Result, Settings


def run(settings: Settings) -> Result:
    released, transformers = against_released.run(settings), against_transformers.run(settings)
    return Result(
        {**released.settings, **transformers.settings},
        released.measurements + transformers.measurements,
        released.targets + transformers.targets,
    )
