"""Tokenizers: bytes, and any ``tokenizer.json`` through the tokenizers library.

Responsible for text ↔ token ids in [0, size). Special tokens are not theirs: ``segments.Vocabulary`` puts them
behind the tokenizer's ids, so a tokenizer never produces or consumes one.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

TOKENIZER_FILE = "tokenizer.json"
NUM_BYTES = 256


class TokenizerConfig(BaseModel):
    """Where token ids come from."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["bytes", "file", "train"] = Field(
        default="bytes", description="bytes: UTF-8; file: a tokenizer.json; train: byte-level BPE learnt from the data"
    )
    path: Path | None = Field(default=None, description="The tokenizer.json of kind 'file'")
    vocab_size: int = Field(default=512, ge=NUM_BYTES + 1, description="Number of ids of kind 'train'")

    @model_validator(mode="after")
    def _check(self) -> "TokenizerConfig":
        if (self.kind == "file") != (self.path is not None):
            raise ValueError(f"tokenizer.path is {self.path} with kind {self.kind!r}; give a path with 'file' only")
        return self


class Tokenizer(Protocol):
    """Text ↔ token ids."""

    @property
    def size(self) -> int:
        """Number of ids."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Turn text into ids in [0, size)."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Turn ids back into text; ids that are no text are left out."""
        ...

    def save(self, folder: Path) -> None:
        """Write what ``load_tokenizer`` needs into a checkpoint's folder."""
        ...


class ByteTokenizer:
    """One id per UTF-8 byte."""

    @property
    def size(self) -> int:
        """Number of ids."""
        return NUM_BYTES

    def encode(self, text: str) -> tuple[int, ...]:
        """Turn text into its UTF-8 bytes.

        Example:
            >>> ByteTokenizer().encode("hé")
            (104, 195, 169)
        """
        return tuple(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        """Turn bytes back into text; a broken sequence becomes the replacement character."""
        return bytes(token for token in tokens if token < NUM_BYTES).decode(errors="replace")

    def save(self, folder: Path) -> None:
        """Write nothing: a checkpoint without a tokenizer file is read as bytes."""
        del folder


class JsonTokenizer:
    """Adapter for the tokenizers library."""

    def __init__(self, library: LibraryTokenizer) -> None:
        """Wrap a tokenizer of the library."""
        self._library = library

    @property
    def size(self) -> int:
        """Number of ids."""
        return self._library.get_vocab_size()

    def encode(self, text: str) -> tuple[int, ...]:
        """Turn text into ids, without the special tokens that the file may add."""
        return tuple(self._library.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Turn ids back into text."""
        return self._library.decode([token for token in tokens if token < self.size])

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``."""
        self._library.save(str(folder / TOKENIZER_FILE))


def load_tokenizer(path: Path) -> Tokenizer:
    """Read the tokenizer of a checkpoint's folder, or a ``tokenizer.json``.

    Raises:
        ValueError: The file is no tokenizer.json.
        FileNotFoundError: A file was named and is not there.
    """
    file = path / TOKENIZER_FILE if path.is_dir() else path
    if not file.exists():
        if path.is_dir():
            return ByteTokenizer()
        raise FileNotFoundError(f"no tokenizer at {path}; expected a tokenizer.json of the tokenizers library")
    try:
        return JsonTokenizer(LibraryTokenizer.from_file(str(file)))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{file} is not a tokenizer.json of the tokenizers library: {error}") from error


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> JsonTokenizer:
    """Learn a byte-level BPE: every text is encodable, words seen often take one token."""
    library = LibraryTokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(texts, trainer)
    return JsonTokenizer(library)


def build_tokenizer(config: TokenizerConfig, corpus: Iterator[str]) -> Tokenizer:
    """Make the tokenizer that a config names; ``corpus`` is read only where one is learnt from it."""
    if config.kind == "file":
        assert config.path is not None
        return load_tokenizer(config.path)
    return ByteTokenizer() if config.kind == "bytes" else train_tokenizer(corpus, config.vocab_size)
