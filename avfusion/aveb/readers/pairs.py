"""Pictures and sounds that match and that do not, out of data sets in which all of them match."""

from collections.abc import Hashable, Sequence

from avfusion.aveb.records import stable_hash


def partners(kinds: Sequence[Hashable | None], seed: int) -> list[int | None]:
    """For each of several items the place of another of a different kind, or ``None`` where it stays with itself.

    Half of them stay, by a hash of the seed and the place. The kinds are what must differ: pictures, or sound classes.
    An item of kind ``None`` is nobody's partner and has none.
    """
    order = sorted((p for p, kind in enumerate(kinds) if kind is not None), key=lambda p: stable_hash(seed, "order", p))
    rank = {place: number for number, place in enumerate(order)}
    found: list[int | None] = []
    for place, kind in enumerate(kinds):
        if kind is None or stable_hash(seed, "stays", place) % 2:
            found.append(None)
            continue
        others = (order[(rank[place] + step) % len(order)] for step in range(1, len(order)))
        found.append(next((other for other in others if kinds[other] != kind), None))
    return found
