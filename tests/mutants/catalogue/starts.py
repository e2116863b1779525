"""Bugs in what a start does with data, and with what lies in a run's folder."""

from mutants.mutant import Mutant

OWN, TABLES = "data/test_own.py -k once", "data/test_tables.py -k no_picture"

MUTANTS = [
    Mutant(
        "starts: a split reads its records anew",
        "data/sources.py",
        "if isinstance(reader, RecordReader) and isinstance(config, FolderConfig):",
        "if False:",
        OWN,
    ),
    Mutant(
        "starts: whoever asks opens the data anew",
        "train/state.py",
        "if self.opened is None or self.opened.reader.config != self.config.data:",
        "if True:",
        OWN,
    ),
    Mutant(
        "starts: what began a run is opened again",
        "train/opening.py",
        "state.space, state.opened = latents, opened",
        "state.space = latents",
        OWN,
    ),
    Mutant(
        "starts: each name of the data makes all records",
        "data/records/mapped.py",
        '        return f"{self.found.layout}:{self._digest}"',
        '        return f"{self.found.layout}:{self._items.digest()}"',
        OWN,
    ),
    Mutant(
        "starts: how long a record is reads its picture",
        "data/records/record.py",
        "return records.glance if isinstance(records, Glanced) else records.__getitem__",
        "return records.__getitem__",
        TABLES,
    ),
    Mutant(
        "starts: a text of a table is read with all of its row",
        "data/records/table.py",
        "self._parts[number].rows.data.column(column)[place].as_py()",
        "self._parts[number].rows[place][column]",
        TABLES,
    ),
    Mutant(
        "starts: a document of which nothing is learnt is trained on",
        "data/limit.py",
        "            return document if has_targets(document) else None",
        "            return document",
        "data/test_limit.py -k nothing",
    ),
    Mutant(
        "starts: a document that is cut to nothing is trained on",
        "data/limit.py",
        "        return shorter if has_targets(shorter) else None",
        "        return shorter",
        "data/test_limit.py -k nothing",
    ),
    Mutant(
        "starts: an end behind a question is a target",
        "layout.py",
        "bool(document.segments) and document.segments[-1].is_target)",
        "bool(document.segments))",
        "test_layout.py -k has_targets",
    ),
    Mutant(
        "starts: a model that says nothing is learnt from",
        "data/records/mapped.py",
        "if says_nothing(record):",
        "if False:",
        "data/test_conversations.py -k says_nothing",
    ),
    Mutant(
        "starts: a table's row that names a picture outside is taken",
        "data/records/table.py",
        "                picture_at(self._images, picture.path, name)\n",
        "                pass\n",
        "data/test_tables.py -k outside",
    ),
    Mutant(
        "starts: a null is a caption",
        "data/records/shards.py",
        "value = next((row[key] for key in CAPTION_KEYS if row.get(key) is not None), None)",
        "value = next((row[key] for key in CAPTION_KEYS if key in row), None)",
        "data/test_shards.py -k null",
    ),
    Mutant(
        "starts: a null is a conversation",
        "data/records/conversations.py",
        'is_llava = row.get("conversations") is not None',
        'is_llava = "conversations" in row',
        "data/test_records.py -k null",
    ),
    Mutant(
        "starts: half a surrogate pair in a document",
        "data/records/interleaved.py",
        "            check_unicode((part for part in parts if isinstance(part, str)), where)\n",
        "",
        "data/test_records.py -k surrogate",
    ),
    Mutant(
        "starts: half a surrogate pair in a conversation",
        "data/records/mapped.py",
        "            check_unicode(words(record), items.where(index))\n",
        "            check_unicode((), items.where(index))\n",
        "data/test_records.py -k surrogate",
    ),
    Mutant(
        "starts: a file of settings with an override says the override alone",
        "cli/places.py",
        "return (*((WHOLE,) if is_file else ()), *said)",
        "return tuple(said)",
        "cli/test_going_on.py -k says_all",
    ),
    Mutant(
        "starts: --anew asks for no sign of a run",
        "cli/anew.py",
        "if held and not has_any(folder) and not tells_of_a_training(folder):",
        "if False:",
        "cli/test_anew.py -k no_run",
    ),
    Mutant(
        "starts: another tool's numbers are a sign of a run",
        "written.py",
        'any(isinstance(row.get("step"), int) and any("/" in name for name in row) for row in rows)',
        "bool(rows)",
        "cli/test_anew.py -k no_run",
    ),
]
