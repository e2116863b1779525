"""Packing: which documents share a row, planned from their lengths alone. It must not know what is in them."""

from collections.abc import Sequence

from transfusion.data.limit import too_long

CAPACITY_TRIALS = 16


def plan_rows(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Pack documents into rows that waste few slots when all are padded to the longest.

    First-fit decreasing at several capacities up to the row's (the idea of MULTIFIT, Coffman et al. 1978), of which
    the plan with the smallest rectangle is kept.

    Args:
        lengths: Slots that each document takes.
        row_length: Most slots of a row.

    Returns:
        Rows of indices into ``lengths``; a pure function of the arguments.

    Raises:
        ValueError: A document is longer than a row.

    Example:
        >>> plan_rows([5, 3, 6, 2], 8)
        [[2, 3], [0, 1]]
    """
    longest = max(lengths, default=0)
    if longest > row_length:
        raise ValueError(too_long("a document", longest, row_length))
    lowest = max(longest, row_length * 3 // 4)
    stride = -(-(row_length - lowest + 1) // CAPACITY_TRIALS)
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    plans = [_first_fit(order, lengths, capacity) for capacity in range(row_length, lowest - 1, -stride)]
    return min(plans, key=lambda rows: rectangle(rows, lengths))


def rectangle(rows: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """Return the slots of all rows when they are padded to the fullest."""
    return len(rows) * max((sum(lengths[index] for index in row) for row in rows), default=0)


def _first_fit(order: Sequence[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put each document, in order, into the first row with room."""
    rows: list[list[int]] = []
    free: list[int] = []
    for index in order:
        place = next((row for row, space in enumerate(free) if space >= lengths[index]), len(rows))
        if place == len(rows):
            rows.append([])
            free.append(capacity)
        rows[place].append(index)
        free[place] -= lengths[index]
    return rows
