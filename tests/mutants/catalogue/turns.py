"""Bugs in conversations, edits and formats of one's own: how rows are read and how turns are told."""

from mutants.mutant import Mutant

MUTANTS = [
    Mutant("turns: a person's words are learnt", "data/turns.py",
           "words.append(Words(told_question(part) if is_question else part, is_model))",
           "words.append(Words(told_question(part) if is_question else part, is_target=True))", "data/test_turns.py -k each_way"),
    Mutant("turns: the break behind a picture is told in training alone", "data/turns.py",
           "    whole: list[str | P | None] = [*([None] if before.is_open else []), *parts]",
           "    whole: list[str | P | None] = [*parts]", "data/test_turns.py -k up_to_each"),
    Mutant("turns: a chat begins anew at every turn", "data/encode.py", "return Before(not is_answered,", "return Before(True,",
           "data/test_turns.py -k up_to_each"),
    Mutant("turns: a template may change what it wrote", "data/turns.py", "if not rendered.startswith(done):", "if False:",
           "data/test_turns.py -k forgets"),
    Mutant("turns: a template is no stranger", "data/turns.py", "    environment = ImmutableSandboxedEnvironment(",
           "    from jinja2 import Environment\n\n    environment = Environment(", "data/test_turns.py -k cannot_tell"),
    Mutant("turns: an answer ends at its first line", "data/encode.py", "ASK in told and CHAT not in told", "ASK in told",
           "data/test_turns.py -k asked_for"),
    Mutant("turns: the template stays beside the tokenizer", "data/encode.py",
           'return config.model_copy(update={"template": template})', "return config", "data/test_conversations.py -k trained"),
    Mutant("conversations: a wrong number of pictures", "data/records/conversations.py", "if count != len(named):",
           "if count > len(named):", "data/test_conversations.py -k bad_rows"),
    Mutant("conversations: each row is held out by itself", "data/records/mapped.py",
           "record.parts if first is None else (first,)", "record.parts", "data/test_conversations.py -k held_out"),
    Mutant("edits: marked pictures come first, too", "data/records/edits.py", " if number not in numbers]", "]",
           "data/test_edits.py -k marked"),
    Mutant("own: the function's code is no data", "data/records/own.py",
           "[hashlib.sha256(self._file.read_bytes()).hexdigest(), self", "[self", "data/test_own.py -k part_of_the_data"),
    Mutant("own: whatever a function raises leaves", "data/records/own.py",
           "except Exception as error:  # whatever the user's code raises", "except ValueError as error:",
           "data/test_own.py -k named_with"),
]  # fmt: skip
