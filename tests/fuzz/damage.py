"""Random damage to files: a few bytes changed, lost, added, repeated, cut off, or taken from another file; in text also
a value made another.
"""

import random
import re
from collections.abc import Sequence

Case = dict[str, bytes]  # files by name
NUM_CHANGES = (1, 1, 1, 2, 4)
VALUE = re.compile(rb'"[^"]*"|-?\d[\d.eE+-]*|\btrue\b|\bfalse\b|\bnull\b')  # of JSON, keys too
OTHER_VALUES = (
    b"0",
    b"-1",
    b"1",
    b"4294967295",
    b"1e400",
    b"NaN",
    b"0.5",
    b"null",
    b"true",
    b'""',
    b'"x"',
    b"[]",
    b"{}",
)


def damaged(seeds: Sequence[Case], draw: random.Random) -> Case:
    """Damage a drawn seed in one file, or give one file the content of another."""
    case = dict(draw.choice(seeds))
    name = draw.choice(sorted(case))
    if len(case) > 1 and draw.random() < 0.1:
        other = draw.choice(sorted(case.keys() - {name}))
        case[name], case[other] = case[other], case[name]
        return case
    if len(case) > 1 and draw.random() < 0.05:
        del case[name]
        return case
    data = bytearray(case[name])
    for _ in range(draw.choice(NUM_CHANGES)):
        _change(data, draw, draw.choice(seeds))
    case[name] = bytes(data)
    return case


def _change(data: bytearray, draw: random.Random, other: Case) -> None:
    """Damage bytes in place; headers oftener than what follows."""
    place = draw.randrange(min(len(data), draw.choice((64, 256, 2**30))) + 1)
    length = draw.choice((1, 1, 2, 4, 8, 64))
    match draw.choice(
        ("flip", "flip", "flip", "set", "set", "delete", "insert", "repeat", "truncate", "splice", "value", "value")
    ):
        case "flip" if place < len(data):
            data[place] ^= 1 << draw.randrange(8)
        case "set":
            data[place : place + length] = bytes(
                draw.choice((0, 1, 127, 255, draw.randrange(256))) for _ in range(length)
            )
        case "delete":
            del data[place : place + length]
        case "insert":
            data[place:place] = draw.randbytes(length)
        case "repeat":
            data[place:place] = data[place : place + length] * draw.choice((1, 2, 50, 6000))
        case "truncate":
            del data[place:]
        case "splice":
            source = other[draw.choice(sorted(other))]
            start = draw.randrange(len(source) + 1)
            data[place : place + length] = source[start : start + draw.choice((length, 2**30))]
        case "value":
            if found := list(VALUE.finditer(data)):
                value = draw.choice(found)
                data[value.start() : value.end()] = draw.choice((*OTHER_VALUES, draw.choice(found).group()))
        case _:
            pass
