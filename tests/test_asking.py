"""What is asked of the engine, and what it refuses."""

import logging
from collections.abc import Sequence

import pytest
import tokenizers
import torch
from PIL import Image
from tiny import small
from tokenizers import decoders, models

from transfusion import describing
from transfusion.asking import Letters
from transfusion.config import ConfigError, override
from transfusion.pretrained import Transfusion
from transfusion.segments import Latent, Text
from transfusion.tokenizer import ByteTokenizer, JsonTokenizer, Tokenizer, train_tokenizer

MODEL = small()
PICTURE = Image.new("RGB", (40, 30), "red")
TEXT = "Grüße, 東京 👩‍🚀! naïve\n" * 9  # letters of one to four bytes


@pytest.fixture(autouse=True)
def _few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a few tokens of a caption alone: an untrained model does not end it."""
    monkeypatch.setattr(describing, "MAX_CAPTION_TOKENS", 4)


def pieces(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """Decode token by token."""
    letters = Letters(tokenizer)
    found = [piece for token in tokens for piece in letters.add(token)]
    return [*found, *letters.end()]


def byte_fallback() -> Tokenizer:
    """Make a tokenizer as Llama's: a letter that has no token is told byte by byte, and half of one as many signs."""
    vocabulary = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}, "b": 257}
    library = tokenizers.Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    library.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return JsonTokenizer(library)


TOKENIZERS = {"bytes": ByteTokenizer(), "bpe": train_tokenizer([TEXT], 300), "byte_fallback": byte_fallback()}


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_no_piece_breaks_a_letter(tokenizer: Tokenizer) -> None:
    found = pieces(tokenizer, tokenizer.encode(TEXT))
    assert "".join(found) == TEXT and len(found) > 40
    assert not any("�" in piece or not piece for piece in found)


def test_bytes_that_are_no_letters_come_as_they_are_decoded() -> None:
    tokenizer = ByteTokenizer()
    for tokens in ([0xFF] * 200, [0xE2, 0x82], [0x61, 0xE2, 0x62, 0xF0, 0x9F], [0x82, 0xE2, 0x82, 0xAC] * 50):
        assert "".join(pieces(tokenizer, tokens)) == tokenizer.decode(tokens)
    letters = Letters(tokenizer)
    assert [list(letters.add(byte)) for byte in "é".encode()] == [[], ["é"]]


def test_a_stream_is_what_generate_gives() -> None:
    options = MODEL.options(max_tokens=90, begins_with_image=True, temperature=1.0, seed=3)
    options = options.model_copy(update={"stop_tokens": (), "max_latents": 2})
    document, told = MODEL.generate("mono", options), list(MODEL.stream_text("mono", options))
    generated = document.segments[1:]
    latents = [part for part in generated if isinstance(part, Latent)]
    pictures = [piece for piece in told if isinstance(piece, Image.Image)]
    assert len(latents) == len(pictures) > 0
    assert [MODEL.image(latent).tobytes() for latent in latents] == [picture.tobytes() for picture in pictures]
    written = [MODEL.tokenizer.decode(part.tokens) for part in generated if isinstance(part, Text)]
    assert "".join(piece for piece in told if isinstance(piece, str)) == "".join(written) != ""
    assert isinstance(told[0], Image.Image)


def test_a_string_is_a_text_and_no_list_of_letters() -> None:
    tokenizer = train_tokenizer(["monorail"] * 9, 270)  # for which letters are not the text
    model = Transfusion(small(f"model.text_vocab_size={tokenizer.size}").model, tokenizer, MODEL.config)
    assert model.score("monorail") == model.score(["monorail"]) != model.score(list("monorail"))
    assert model.score("monorail").num_tokens == len(tokenizer.encode("monorail")) < len("monorail")
    options = MODEL.options(max_tokens=5, max_images=0)
    assert MODEL.generate("mono", options) == MODEL.generate(["mono"], options)
    assert MODEL.score(PICTURE) == MODEL.score([PICTURE])
    assert len(MODEL.generate(PICTURE, options).segments) >= 1


def test_tokens_have_two_names() -> None:
    text = MODEL.generate("mono", max_new_tokens=3).segments[1]
    assert isinstance(text, Text) and len(text.tokens) <= 3
    options = MODEL.options(max_tokens=3)
    assert MODEL.generate("mono", options, max_new_tokens=3) == MODEL.generate("mono", options)
    with pytest.raises(ConfigError, match=r"options\.max_tokens=3 and max_new_tokens=4 are names of one thing"):
        MODEL.generate("mono", options, max_new_tokens=4)
    with pytest.raises(ConfigError, match="names of one thing"):
        MODEL.stream_text("mono", options, max_new_tokens=4)
    with pytest.raises(ConfigError, match="max_new_tokens is -1"):
        MODEL.generate("mono", max_new_tokens=-1)
    with pytest.raises(ConfigError, match="top_k"):
        MODEL.options(top_k=0)
    assert MODEL.options(top_k=4, top_p=0.5, temperature=2.0).tokens.model_dump() == {
        "temperature": 2.0,
        "top_k": 4,
        "top_p": 0.5,
    }


def test_a_prompt_longer_than_a_row_is_refused() -> None:
    model = small("train.row_length=64")
    whole, beyond = "x" * 63, "x" * 64  # and the slot that begins every document
    options = model.options(max_tokens=1, max_images=0)
    assert model.generate(whole, options) and model.generate_images(whole, steps=1)
    for ask in (
        lambda: model.generate(beyond, options),
        lambda: list(model.stream_text(beyond, options)),
        lambda: model.generate_images(["a star", beyond]),
        lambda: model.ask(PICTURE, beyond),
        lambda: model.edit(PICTURE, beyond),
    ):
        with pytest.raises(ConfigError, match=r"takes (65|83) slots, .* rows of 64 \(train\.row_length\)"):
            ask()


def test_a_model_of_text_alone_says_so() -> None:
    model = small("model.modalities=[]")
    for ask in (
        lambda: model.generate_images("a star"),
        lambda: model.caption(PICTURE),
        lambda: model.ask(PICTURE, "what?"),
        lambda: model.edit([PICTURE], "x"),
    ):
        with pytest.raises(ConfigError, match="no modality 'image'.*; it writes, with generate"):
            ask()
    with pytest.raises(ConfigError, match="the prompt does not fit the model: no modality 'image'"):
        model.generate(["x", PICTURE])
    assert isinstance(model.generate("x", max_new_tokens=2).segments[0], Text)
    assert model.score("x").denoising == {}


def told(caplog: pytest.LogCaptureFixture, model: Transfusion) -> list[str]:
    """Ask for everything twice, and return the warnings."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            model.generate_images("a star", steps=1)
            model.caption([PICTURE])
            model.ask(PICTURE, "what?")
            model.edit_many([PICTURE], ["x"])
    return [record.getMessage() for record in caplog.records if record.name == "transfusion.pretrained"]


def test_a_task_that_was_never_told_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    assert told(caplog, MODEL) == []
    draws = small("data.tasks.look=0", "data.tasks.edit=0")
    warnings = told(caplog, draws)
    assert [warning.split(" (")[0] for warning in warnings] == [
        "this model never learnt to describe pictures",
        "this model never learnt to answer questions about pictures",
        "this model never learnt to change pictures",
    ]
    config = override(MODEL.config, ["data.kind=folder"])  # no pixels were measured: it was text alone
    text = Transfusion(MODEL.model, MODEL.tokenizer, config)
    with pytest.raises(ConfigError, match="cannot draw pictures: it was trained on text alone; it writes"):
        text.generate_images("a star")
    assert text.options().max_latents == 0


def test_a_stream_that_is_left_early_leaves_nothing() -> None:
    stream = MODEL.stream_text("mono", MODEL.options(max_tokens=50, max_images=0))
    for _ in stream:
        break
    assert torch.is_inference_mode_enabled() is False
    assert MODEL.generate("mono", max_new_tokens=2).segments
