"""Learning a tokenizer from the data of a training, into a file that many trainings share."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict

from transfusion.cli.output import check_folder
from transfusion.cli.training import find_config
from transfusion.config import ConfigError
from transfusion.data.sources import open_reader
from transfusion.files import write_whole
from transfusion.tokenizer import NUM_BYTES, TOKENIZER_FILE, train_tokenizer

NUM_MEASURED = 1000  # texts, at most, and of each so many letters, on which bytes a token are measured
LETTERS_MEASURED = 10_000


class Learnt(TypedDict):
    """What was learnt, and from what."""

    file: str
    tokens: int
    texts: int
    letters: int
    bytes_per_token: float


class _Counted:
    """Texts on their way into a tokenizer: counted, and some kept to measure it."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.num_texts = self.num_letters = 0
        self.kept: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.num_texts += 1
            self.num_letters += len(text)
            if text and len(self.kept) < NUM_MEASURED:
                self.kept.append(text[:LETTERS_MEASURED])
            yield text


def learn_tokenizer(name: str, overrides: Sequence[str], file: Path, size: int) -> Learnt:
    """Learn a byte-level BPE from the texts that a training of these settings has.

    Args:
        name: Recipe, file of settings or folder of a run.
        overrides: Settings.
        file: The ``tokenizer.json`` to write.
        size: Tokens, the 256 bytes among them.

    Raises:
        ConfigError: A setting is bad, the file is there, the data have no text, or too little for so many tokens.
        DataError: The data cannot be read.
    """
    if file.exists():
        raise ConfigError(f"--to {file} is there; name another file, as models that know it may need it")
    check_folder(file)
    config = find_config(name, overrides)
    texts = _Counted(open_reader(config.data, config.train.seed).texts())
    tokenizer = train_tokenizer(texts, size)
    if not texts.num_letters:
        raise ConfigError("the data have no text to learn a tokenizer from; take tokenizer.kind=bytes")
    if tokenizer.size < size:
        raise ConfigError(
            f"the data have {texts.num_letters} letters, in which {tokenizer.size} tokens are found and no more; take "
            f"--size {tokenizer.size}, or more text"
        )
    num_bytes = sum(len(text.encode(errors="replace")) for text in texts.kept)
    num_tokens = sum(len(tokenizer.encode(text)) for text in texts.kept)
    with TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        write_whole(file, (Path(folder) / TOKENIZER_FILE).read_bytes())
    per_token = round(num_bytes / num_tokens, 3)
    return Learnt(
        file=str(file),
        tokens=tokenizer.size,
        texts=texts.num_texts,
        letters=texts.num_letters,
        bytes_per_token=per_token,
    )


def told(learnt: Learnt) -> str:
    """Say what was learnt, and what to do with it."""
    return (
        f"wrote {learnt['file']}: {learnt['tokens']:,} tokens ({NUM_BYTES} bytes and {learnt['tokens'] - NUM_BYTES:,} "
        f"pieces) from {learnt['letters']:,} letters in {learnt['texts']:,} texts; a token has "
        f"{learnt['bytes_per_token']:.2f} bytes of them\n"
        f"train with it: tokenizer.kind=file tokenizer.path={learnt['file']}"
    )
