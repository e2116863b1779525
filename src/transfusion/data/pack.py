"""Packing: which documents share a row, planned from their lengths alone. It must not know what is in them."""

from collections.abc import Sequence

import numpy as np

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
    longest = _longest(lengths, row_length)
    lowest = max(longest, row_length * 3 // 4)
    stride = -(-(row_length - lowest + 1) // CAPACITY_TRIALS)
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    plans = [_first_fit(order, lengths, capacity) for capacity in range(row_length, lowest - 1, -stride)]
    return min(plans, key=lambda rows: rectangle(rows, lengths))


def best_fit(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Pack documents into rows of a fixed length: best fit, the longest first (Johnson 1974), in about a microsecond
    for each.

    Args:
        lengths: Slots that each document takes, > 0.
        row_length: Slots of a row.

    Returns:
        Rows of indices into ``lengths``; a pure function of the arguments.

    Raises:
        ValueError: A document is longer than a row.

    Example:
        >>> best_fit([5, 3, 6, 2], 8)
        [[2, 3], [0, 1]]
    """
    _longest(lengths, row_length)
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(row_length + 1)]  # rows by their free slots
    are_some = 0  # bit n: rows with n free slots
    for index in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        length = lengths[index]
        enough = are_some >> length
        if enough:
            free = length + (enough & -enough).bit_length() - 1
            row = with_room[free].pop()
            if not with_room[free]:
                are_some ^= 1 << free
        else:
            free, row = row_length, len(rows)
            rows.append([])
        rows[row].append(index)
        with_room[free - length].append(row)
        are_some |= 1 << (free - length)
    return rows


def rectangle(rows: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """Return the slots of all rows when they are padded to the fullest."""
    return len(rows) * max((sum(lengths[index] for index in row) for row in rows), default=0)


def _longest(lengths: Sequence[int], row_length: int) -> int:
    """Return the slots of the longest document.

    Raises:
        ValueError: It is longer than a row.
    """
    longest = max(lengths, default=0)
    if longest > row_length:
        raise ValueError(too_long("a document", longest, row_length))
    return longest


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
