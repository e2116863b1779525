"""A tokenizer is what the user's library says, and nothing is cut, padded or lost in silence."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as LibraryTokenizer

from transfusion.cli.app import FAILURES
from transfusion.segments import Modality, Vocabulary
from transfusion.tokenizer import (
    ByteTokenizer,
    JsonTokenizer,
    TokenizerConfig,
    TokenizerError,
    build_tokenizer,
    check_tokenizer,
    load_tokenizer,
    train_tokenizer,
)

WORDS = "hello world and more words "


def library() -> LibraryTokenizer:
    """Make a byte-level tokenizer of the library."""
    return train_tokenizer([WORDS * 50], 300)._library


def words(ids: dict[str, int], *, unknown: str = "a") -> LibraryTokenizer:
    """Make a tokenizer of whole words."""
    made = LibraryTokenizer(models.WordLevel(ids, unk_token=unknown))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def saved(made: LibraryTokenizer, folder: Path) -> Path:
    """Save as the library does."""
    made.save(str(folder / "given.json"))
    return folder / "given.json"


def test_truncation_and_padding_are_off_and_saved_off(tmp_path: Path) -> None:
    expected = JsonTokenizer(library()).encode(WORDS * 20)
    made = library()
    made.enable_truncation(16, stride=2)
    made.enable_padding(length=12, pad_id=0)
    tokenizer = load_tokenizer(saved(made, tmp_path))
    assert tokenizer.encode(WORDS * 20) == expected and len(expected) > 50
    assert len(tokenizer.encode("hello")) == 1 and tokenizer.encode("") == ()
    tokenizer.save(tmp_path)
    told = json.loads((tmp_path / "tokenizer.json").read_text())
    assert told["truncation"] is None and told["padding"] is None
    assert load_tokenizer(tmp_path).encode(WORDS * 20) == expected
    assert LibraryTokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(WORDS * 20).ids == list(expected)


def test_the_size_is_the_largest_id_and_one(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(saved(words({"a": 0, "b": 1, "c": 7}), tmp_path))
    assert tokenizer.size == 8 and tokenizer.encode("a c") == (0, 7)
    assert tokenizer.decode((0, 3, 7, 8, 100, -1)) == "a c"
    vocabulary = Vocabulary(tokenizer.size, (Modality("image", 3, (8, 8)),))
    assert not {vocabulary.begin_token(1), vocabulary.end_token(1)} & set(tokenizer.encode("a b c"))


def test_added_tokens_count_and_the_files_own_specials_do_not_come(tmp_path: Path) -> None:
    made = words({"a": 0, "b": 1})
    made.add_special_tokens([AddedToken("<s>", special=True)])
    made.add_tokens(["new"])
    made.post_processor = processors.TemplateProcessing(single="<s> $A <s>", special_tokens=[("<s>", 2)])
    tokenizer = load_tokenizer(saved(made, tmp_path))
    assert tokenizer.size == 4 and tokenizer.encode("a b new") == (0, 1, 3)


def test_the_size_is_asked_of_the_library_once() -> None:
    made = words({"a": 0, "b": 1})
    tokenizer = JsonTokenizer(made)
    made.add_tokens(["later"])
    assert tokenizer.size == 2 and tokenizer.decode((0, 1, 2)) == "a b"
    with pytest.raises(TokenizerError, match="encoded to id 2; expected ids below 2"):
        tokenizer.encode("a later")


def test_draws_of_the_library_are_off() -> None:
    made = library()
    made.model.dropout = 0.5
    tokenizer = JsonTokenizer(made)
    assert len({tokenizer.encode(WORDS * 4) for _ in range(20)}) == 1


@pytest.mark.parametrize("ids", [{}, {"a": 0, "b": 2**24}, {"a": 2**32 - 1}])
def test_ids_that_no_model_can_embed(tmp_path: Path, ids: dict[str, int]) -> None:
    with pytest.raises(TokenizerError, match=r"given.json .*largest id"):
        load_tokenizer(saved(words(ids), tmp_path))


@pytest.mark.parametrize("text", ["\udc80", "a\ud800b"])
def test_half_a_surrogate_pair_is_named(text: str) -> None:
    for tokenizer in (ByteTokenizer(), JsonTokenizer(library())):
        with pytest.raises(TokenizerError, match="half a surrogate pair at character [01] of"):
            tokenizer.encode(text)


def test_the_command_line_tells_its_errors_in_one_line() -> None:
    assert TokenizerError.__name__ in FAILURES and issubclass(TokenizerError, ValueError)


def test_bytes_out_of_range_are_left_out() -> None:
    assert ByteTokenizer().decode((-1, 104, 256, 105)) == "hi"


def test_what_the_library_cannot_encode_is_our_error(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(saved(words({"a": 0}, unknown="gone"), tmp_path))
    with pytest.raises(TokenizerError, match="cannot encode 'b'"):
        tokenizer.encode("b")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"version":"1.0","model":{}}'])
def test_what_is_no_tokenizer_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(TokenizerError, match=r"tokenizer.json is not a tokenizer.json of the tokenizers library"):
        load_tokenizer(tmp_path)


def test_a_folder_that_was_named_and_holds_no_tokenizer_is_no_bytes(tmp_path: Path) -> None:
    config = TokenizerConfig(kind="file", path=tmp_path)
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        build_tokenizer(config, iter(()))
    library().save(str(tmp_path / "tokenizer.json"))
    assert isinstance(build_tokenizer(config, iter(())), JsonTokenizer)


def piece_wise() -> LibraryTokenizer:
    """Make a lower-casing WordPiece, as of BERT."""
    made = LibraryTokenizer(models.WordPiece({"[UNK]": 0, "red": 1, "circle": 2, "##s": 3}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made


def with_byte_fallback() -> LibraryTokenizer:
    """Make a BPE over characters with bytes behind it, as sentencepiece files become."""
    ids = {token: i for i, token in enumerate(["<unk>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "a", "b"])}
    made = LibraryTokenizer(models.BPE(ids, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


class Odd:
    """A tokenizer that encodes everything to the same ids."""

    def __init__(self, ids: tuple[int, ...]) -> None:
        self.ids = ids

    @property
    def size(self) -> int:
        return 4

    def encode(self, text: str) -> tuple[int, ...]:
        del text
        return self.ids

    def decode(self, tokens: Sequence[int]) -> str:
        del tokens
        return "a"

    def save(self, folder: Path) -> None:
        del folder


def test_a_tokenizer_that_returns_what_it_was_given_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for tokenizer in (ByteTokenizer(), JsonTokenizer(library()), JsonTokenizer(with_byte_fallback())):
            check_tokenizer(tokenizer, ["a b", "ab ünseen ✓\n", ""])
        check_tokenizer(JsonTokenizer(piece_wise()), ["red circles", "circle"])
    assert caplog.records == []


def test_texts_that_change_are_counted_with_an_example(caplog: pytest.LogCaptureFixture) -> None:
    check_tokenizer(JsonTokenizer(piece_wise()), ["red circles", "Red circle", "red square"])
    assert len(caplog.records) == 1
    told = "of 3 texts tried, 2 do not come back from the tokenizer as they were: 'Red circle' becomes 'red circle'"
    assert told in caplog.text
    caplog.clear()
    check_tokenizer(JsonTokenizer(piece_wise()), ["red circle " * 3000 + "Red"])
    assert "of 1 texts tried, 1 do not" in caplog.text and "circle Red' becomes " in caplog.text


def test_texts_without_ids_or_with_wrong_ids_are_refused() -> None:
    made = LibraryTokenizer(models.BPE({"a": 0}, []))
    with pytest.raises(TokenizerError, match="encodes 'b' to nothing"):
        check_tokenizer(JsonTokenizer(made), ["a", "b"])
    for ids in ((0, 4), (-1, 3)):
        with pytest.raises(TokenizerError, match=f"'x' is encoded to ids {ids[0]} to {ids[1]}; expected 0 to 3"):
            check_tokenizer(Odd(ids), ["x"])


@pytest.mark.parametrize("count", [1, 299, 300, 301, 5000])
def test_the_texts_tried_are_spread_over_the_data(caplog: pytest.LogCaptureFixture, count: int) -> None:
    check_tokenizer(Odd((0,)), (f"text {i}" for i in range(count)))
    tried = int(caplog.messages[0].split()[1])
    assert min(count, 150) <= tried <= 300
    tokenizer = JsonTokenizer(words({"a": 0, "b": 1}, unknown="gone"))
    with pytest.raises(TokenizerError, match="cannot encode 'c'"):
        check_tokenizer(tokenizer, ("a" if i < count // 2 else "c" for i in range(count)))


def test_unigram_and_long_texts() -> None:
    made = LibraryTokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(
        [WORDS * 9],
        trainers.UnigramTrainer(vocab_size=60, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False),
    )
    tokenizer = JsonTokenizer(made)
    assert max(tokenizer.encode(WORDS + "\x00")) < tokenizer.size
    check_tokenizer(tokenizer, [WORDS * 1000])
