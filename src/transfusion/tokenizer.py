"""Tokenizers: bytes, and any ``tokenizer.json`` through the tokenizers library.

Responsible for text ↔ token ids in [0, size). Special tokens are not theirs: ``segments.Vocabulary`` puts them
behind the tokenizer's ids, so a tokenizer never produces or consumes one.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

TOKENIZER_FILE = "tokenizer.json"
NUM_BYTES = 256
MAX_SIZE = 2**24  # a larger id is a damaged file: its embedding alone would take tens of gigabytes
NUM_CHECKED = 300
EXAMPLE_CHARACTERS = 80
CHECKED_CHARACTERS = 2**20  # of all texts checked together
_log = logging.getLogger(__name__)
Found = TypeVar("Found")


class TokenizerError(ValueError):
    """A tokenizer cannot be read, or cannot encode what it is given; the message says what and why."""


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

    def num_bytes(self, tokens: Sequence[int]) -> int:
        """Count the bytes of UTF-8 that ids stand for, also where they begin or end within a letter."""
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

        Raises:
            TokenizerError: The text holds half a surrogate pair, which no bytes of UTF-8 stand for.
        """
        return tuple(_plain(text).encode())

    def decode(self, tokens: Sequence[int]) -> str:
        """Turn bytes back into text; a broken sequence becomes the replacement character."""
        return bytes(token for token in tokens if 0 <= token < NUM_BYTES).decode(errors="replace")

    def num_bytes(self, tokens: Sequence[int]) -> int:
        """Count the ids that are bytes."""
        return sum(0 <= token < NUM_BYTES for token in tokens)

    def save(self, folder: Path) -> None:
        """Write nothing: a checkpoint without a tokenizer file is read as bytes."""
        del folder


class JsonTokenizer:
    """Adapter for the tokenizers library."""

    def __init__(self, library: LibraryTokenizer) -> None:
        """Take over a tokenizer of the library.

        Its truncation and padding go off, for data are never cut in silence, and so does dropout of merges: a text has
        one encoding.

        Raises:
            TokenizerError: It has no ids, or ids that no model could embed.
        """
        library.no_truncation()
        library.no_padding()
        if isinstance(library.model, models.BPE):
            library.model.dropout = None
        self._library = library
        ids = self.pieces().values()
        self._size = max(ids, default=-1) + 1  # ids may have holes
        if not 0 < self._size <= MAX_SIZE:
            raise TokenizerError(
                f"{len(ids)} tokens with a largest id of {self._size - 1}; expected 0 to {MAX_SIZE - 1}"
            )

    @property
    def size(self) -> int:
        """Largest id + 1."""
        return self._size

    def pieces(self) -> dict[str, int]:
        """Return the id of every piece of text, as the library writes it."""
        return self._library.get_vocab(with_added_tokens=True)

    def encode(self, text: str) -> tuple[int, ...]:
        """Turn text into ids, without the special tokens that the file may add.

        Raises:
            TokenizerError: The text has no ids in [0, size), or is no Unicode.
        """
        plain = _plain(text)
        ids = _asked(lambda: self._library.encode(plain, add_special_tokens=False).ids, f"cannot encode {text[:80]!r}")
        if ids and max(ids) >= self._size:
            raise TokenizerError(f"{text[:80]!r} is encoded to id {max(ids)}; expected ids below {self._size}")
        return tuple(ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Turn ids back into text."""
        ids = [token for token in tokens if 0 <= token < self._size]
        return _asked(lambda: self._library.decode(ids), f"cannot decode {ids[:8]}")

    def num_bytes(self, tokens: Sequence[int]) -> int:
        """Count the bytes: of a byte-level tokenizer exactly, where one letter of a piece is one byte; else those of
        the text, in which half a letter counts as the three bytes of a replacement character.
        """
        if not isinstance(self._library.decoder, decoders.ByteLevel):
            return len(self.decode(tokens).encode())
        added = self._library.get_added_tokens_decoder()
        return sum(
            len(added[token].content.encode()) if token in added else len(self._library.id_to_token(token) or "")
            for token in tokens
        )

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, as it is used: without truncation and padding."""
        (folder / TOKENIZER_FILE).write_text(self._library.to_str(pretty=True), encoding="utf-8")


def _asked(ask: Callable[[], Found], what: str) -> Found:
    """Ask the library, which raises bare exceptions, and panics that are not even those."""
    try:
        return ask()
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise TokenizerError(f"{what} ({error})") from error


def _plain(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"half a surrogate pair at character {error.start} of {text[:80]!r}; write plain Unicode (UTF-8)"
        ) from error
    return text


def load_tokenizer(path: Path) -> Tokenizer:
    """Read the tokenizer of a checkpoint's folder, or a ``tokenizer.json``.

    Raises:
        TokenizerError: The file is no tokenizer.json; a ValueError.
        FileNotFoundError: A file was named and is not there.
    """
    file = path / TOKENIZER_FILE if path.is_dir() else path
    if not file.exists():
        if path.is_dir():
            return ByteTokenizer()
        raise FileNotFoundError(f"no tokenizer at {path}; expected a tokenizer.json of the tokenizers library")
    data = file.read_bytes()
    wrong = f"{file} is not a tokenizer.json of the tokenizers library"
    return _asked(lambda: JsonTokenizer(LibraryTokenizer.from_buffer(data)), wrong)


def check_tokenizer(tokenizer: Tokenizer, texts: Iterable[str]) -> None:
    """Try a tokenizer on a few hundred texts spread over the data that it is to encode.

    A text that does not come back from its ids (lower-cased, or with unknown tokens) is a warning: the model can learn
    the rest.

    Args:
        tokenizer: Any.
        texts: All texts of the data, or some.

    Raises:
        TokenizerError: A text has no ids, or ids outside [0, size).
    """
    changed: list[tuple[str, str]] = []
    tried = _spread(texts, NUM_CHECKED)
    for text in (text[: CHECKED_CHARACTERS // len(tried)] for text in tried):
        ids = tokenizer.encode(text)
        if text.strip() and not ids:
            raise TokenizerError(f"the tokenizer encodes {text[:80]!r} to nothing; take one that knows the data's text")
        if ids and not 0 <= min(ids) <= max(ids) < tokenizer.size:
            raise TokenizerError(
                f"{text[:80]!r} is encoded to ids {min(ids)} to {max(ids)}; expected 0 to {tokenizer.size - 1}"
            )
        if (back := tokenizer.decode(ids)) != text:
            changed.append((text, back))
    if changed:
        text, back = changed[0]
        pairs = enumerate(zip(text, back, strict=False))
        differs = next((place for place, (one, other) in pairs if one != other), min(len(text), len(back)))
        place = max(0, differs - EXAMPLE_CHARACTERS // 2)
        example = [told[place : place + EXAMPLE_CHARACTERS] for told in (text, back)]
        counts = f"of {len(tried)} texts tried, {len(changed)} do not come back from the tokenizer as they were"
        _log.warning("%s: %r becomes %r", counts, *example)


def same_pieces(old: Tokenizer, new: Tokenizer) -> list[int | None]:
    """Return for every id of a tokenizer the id of the same piece in another, or None: of bytes and pieces, none."""
    if not isinstance(old, JsonTokenizer) or not isinstance(new, JsonTokenizer):
        return list(range(new.size)) if type(old) is type(new) else [None] * new.size
    ids, rows = old.pieces(), list[int | None]([None] * new.size)
    for piece, number in new.pieces().items():
        rows[number] = ids.get(piece)
    return rows


def _spread(texts: Iterable[str], most: int) -> list[str]:
    """Take up to ``most`` of any number of texts, evenly: every second one is let go whenever there are too many."""
    kept: list[str] = []
    every = 1
    for number, text in enumerate(texts):
        if number % every:
            continue
        if len(kept) == most:
            kept, every = kept[::2], 2 * every
        if number % every == 0:
            kept.append(text)
    return kept


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
    """Make the tokenizer that a config names; ``corpus`` is read only where one is learnt from it.

    Raises:
        TokenizerError: The file is no tokenizer.json.
        FileNotFoundError: There is no such file.
    """
    if config.kind == "file":
        assert config.path is not None
        return load_tokenizer(config.path / TOKENIZER_FILE if config.path.is_dir() else config.path)
    return ByteTokenizer() if config.kind == "bytes" else train_tokenizer(corpus, config.vocab_size)
