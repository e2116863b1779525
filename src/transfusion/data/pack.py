"""Packing: which documents share a row, planned from their lengths alone. It must not know what is in them."""

from collections.abc import Sequence


def plan_rows(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Pack documents into rows by first-fit decreasing.

    Args:
        lengths: Slots that each document takes.
        row_length: Slots of a row.

    Returns:
        Rows of indices into ``lengths``; a pure function of the arguments.

    Raises:
        ValueError: A document is longer than a row.

    Example:
        >>> plan_rows([5, 3, 6, 2], 8)
        [[2, 3], [0, 1]]
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        length = lengths[index]
        if length > row_length:
            raise ValueError(
                f"a document takes {length} slots, more than a row (train.row_length {row_length}); raise "
                f"train.row_length to at least {length}, shorten the text or use larger patches"
            )
        place = next((row for row, space in enumerate(free) if space >= length), len(rows))
        if place == len(rows):
            rows.append([])
            free.append(row_length)
        rows[place].append(index)
        free[place] -= length
    return rows
