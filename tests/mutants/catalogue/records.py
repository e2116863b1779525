"""Bugs in records of any format."""

from mutants.mutant import Mutant

ROWS, PIECES, SOURCE = "data/records/rows.py", "data/records/pieces.py", "data/records/source.py"
TESTS = "data/test_records.py"

MUTANTS = [
    Mutant(
        "rows: a byte order mark is part of the first",
        ROWS,
        "begin + skipped, end, number",
        "begin, end, number",
        f"{TESTS} -k whatever",
    ),
    Mutant(
        "rows: the last element is lost",
        ROWS,
        '    while text[place : place + 1] != "]":',
        '    while "]" not in text[place : place + 400]:',
        f"{TESTS} -k whatever",
    ),
    Mutant(
        "rows: what follows an array is passed over",
        ROWS,
        "if _skipped(text, place + 1) != len(text):",
        "if False:",
        f"{TESTS} -k are_none",
    ),
    Mutant(
        "rows: alike only with the same line break",
        ROWS,
        "self.bytes(index).strip(BLANKS)",
        "self.bytes(index)",
        f"{TESTS} -k alike",
    ),
    Mutant(
        "pieces: a picture that does not fit stays",
        PIECES,
        "if unit.length > free and pieces[-1]:",
        "if free <= 0 and pieces[-1]:",
        f"{TESTS} -k fit",
    ),
    Mutant(
        "pieces: a picture leaves its text behind",
        PIECES,
        "    return [piece.pop()]",
        "    return []",
        f"{TESTS} -k goes_with_it",
    ),
    Mutant(
        "pieces: what is moved counts for nothing",
        PIECES,
        "free = room - sum(end - begin for _, begin, end in pieces[-1])",
        "free = room",
        f"{TESTS} -k fit",
    ),
    Mutant(
        "records: what follows a piece is no target",
        SOURCE,
        "begins=not piece.number, next_token=tokens[end])",
        "begins=not piece.number)",
        f"{TESTS} -k each_target",
    ),
    Mutant(
        "records: a picture that follows a piece is no target",
        SOURCE,
        "begins=not piece.number, next_latent=IMAGE)",
        "begins=not piece.number)",
        f"{TESTS} -k each_target",
    ),
    Mutant(
        "records: a piece that goes on foretells its first token",
        "data/encode.py",
        "(part,) if begins or segments else unforetold(part)",
        "(part,)",
        f"{TESTS} -k each_target",
    ),
    Mutant(
        "records: a piece that goes on foretells its picture",
        "data/encode.py",
        "is_announced=begins or bool(segments)",
        "is_announced=True",
        f"{TESTS} -k each_target",
    ),
    Mutant(
        "records: blocks lose the blank between",
        SOURCE,
        "        yield text[begin:end]\n        begin = end",
        "        yield text[begin:end]\n        begin = end + 1",
        f"{TESTS} -k blocks",
    ),
    Mutant(
        "records: names lead out of the folder",
        "data/records/within.py",
        'or normal.startswith("../")',
        "",
        f"{TESTS} -k bad_rows",
    ),
    Mutant(
        "records: two formats are one",
        "data/records/detect.py",
        "if len(told) > 1:",
        "if len(told) > 9:",
        f"{TESTS} -k two_formats",
    ),
    Mutant(
        "pictures: a slice begins at the file's beginning",
        "data/decode.py",
        "stream.seek(source.begin)",
        "stream.seek(0)",
        f"{TESTS} -k within",
    ),
    Mutant(
        "pictures: a slice may be short",
        "data/decode.py",
        "    if len(data) < size:",
        "    if not data:",
        f"{TESTS} -k within",
    ),
    Mutant(
        "loader: a broken picture ends the run",
        "data/loader.py",
        "        except BrokenPicture as error:",
        "        except KeyError as error:",
        f"{TESTS} -k left_out",
    ),
    Mutant(
        "loader: broken ones count as too long",
        "data/loader.py",
        "num_dropped=num_dropped, broken=broken",
        "num_dropped=num_dropped",
        f"{TESTS} -k left_out",
    ),
    Mutant(
        "training: any number may be broken",
        "train/broken.py",
        "self._num_broken > self._max_share * self._num_seen",
        "False",
        f"{TESTS} -k too_many",
    ),
    Mutant(
        "training: one broken picture is told at each visit",
        "train/broken.py",
        "if name not in self._known:",
        "if True:",
        f"{TESTS} -k left_out",
    ),
]
