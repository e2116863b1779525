"""What is told at use is what training told: the slots of every verb's prompt begin a document of training."""

import numpy as np
import pytest

from transfusion.autoencoder.pixels import PixelConfig
from transfusion.data.encode import EncodeConfig, Encoder
from transfusion.data.sources import DataConfig, FolderConfig, ShapesConfig, TaskWeights
from transfusion.data.tasks import told_tasks
from transfusion.layout import Columns, layout
from transfusion.model.transfusion import ModelConfig
from transfusion.segments import Document, Latent, Text
from transfusion.tokenizer import ByteTokenizer, Tokenizer, train_tokenizer

VOCABULARY_OF = {"bytes": ByteTokenizer(), "learnt": train_tokenizer(["what colour is the star red\n one\n"] * 9, 300)}
PICTURE = np.full((16, 16, 3), 200, np.uint8)
TURNS = [("what colour is the star?", "red"), ("how many stars are there", "one")]
KEY = ("k",)


def slots(document: Document, tokenizer: Tokenizer) -> list[tuple[int, int, int]]:
    """Return what the model sees of every slot: token, position and modality."""
    vocabulary = ModelConfig(text_vocab_size=tokenizer.size).vocabulary()
    columns: Columns = layout(document, vocabulary).columns
    columns_seen = (columns.tokens, columns.positions, columns.modality)
    return list(zip(*(column.tolist() for column in columns_seen), strict=True))


def begins(prompt: Document, trained: Document, tokenizer: Tokenizer) -> bool:
    """Return whether a prompt's slots are the first of a training document, and its pictures the same."""
    few, many = slots(prompt, tokenizer), slots(trained, tokenizer)
    ours, theirs = ([p for p in d.segments if isinstance(p, Latent)] for d in (prompt, trained))
    same = all(bool((a.values == b.values).all()) for a, b in zip(ours, theirs, strict=False))
    return many[: len(few)] == few and len(few) < len(many) and same


def encoder(kind: str) -> Encoder:
    """Make an encoder that drops nothing."""
    return Encoder(VOCABULARY_OF[kind], EncodeConfig(caption_dropout=0.0, picture_first_max_t=0.0), 0)


@pytest.mark.parametrize("kind", VOCABULARY_OF)
def test_every_verb_asks_as_training_told(kind: str) -> None:
    told, tokenizer = encoder(kind), VOCABULARY_OF[kind]
    asked = TURNS[0][0]
    pairs = {
        "generate": (told.draw_prompt("a red star"), told.drawn("a red star", PICTURE, KEY)),
        "caption": (told.caption_prompt(PICTURE), told.looked_at("a red star", PICTURE, KEY)),
        "ask": (told.question_prompt(PICTURE, asked), told.conversed(PICTURE, None, TURNS, KEY)),
        "edit": (told.edit_prompt(PICTURE, "make it red"), told.edited(PICTURE, "make it red", PICTURE, KEY)),
    }
    for verb, (prompt, trained) in pairs.items():
        assert begins(prompt, trained, tokenizer), verb


@pytest.mark.parametrize("kind", VOCABULARY_OF)
def test_a_chat_goes_on_as_training_told(kind: str) -> None:
    told, tokenizer = encoder(kind), VOCABULARY_OF[kind]
    trained = told.conversed(PICTURE, None, TURNS, KEY)
    chat = Document((), is_complete=False)
    chat = told.shown(chat, PICTURE)
    chat = told.said(chat, TURNS[0][0])
    assert begins(chat, trained, tokenizer)
    whole = Document((*chat.segments, Text(tokenizer.encode(" red") + told.turn_end)), is_complete=False)
    cut_short = Document((*chat.segments, Text(tokenizer.encode(" red"))), is_complete=False)  # by its budget
    for answered in (whole, cut_short):
        assert begins(told.said(answered, "how many stars are there?"), trained, tokenizer)
    drawn = told.said(Document((), is_complete=False), "a red star")
    assert begins(drawn, told.drawn("a red star", PICTURE, KEY), tokenizer)
    edited = told.said(told.shown(Document((), is_complete=False), PICTURE), "make it red")
    assert begins(edited, told.edited(PICTURE, "make it red", PICTURE, KEY), tokenizer)


@pytest.mark.parametrize("kind", VOCABULARY_OF)
@pytest.mark.parametrize(
    ("data", "pixels", "stops"),
    [
        (ShapesConfig(), PixelConfig(), True),
        (ShapesConfig(tasks=TaskWeights(look=0)), PixelConfig(), False),
        (FolderConfig(), PixelConfig(), False),  # captioned pictures
        (FolderConfig(), None, False),  # plain text
    ],
)
def test_stop_tokens_follow_from_how_the_data_were_told(
    kind: str, data: DataConfig, pixels: PixelConfig | None, stops: bool
) -> None:
    told = encoder(kind)
    tasks = told_tasks(data, EncodeConfig(pixels=pixels))
    assert told.stop_tokens(tasks) == (told.turn_end[-1:] if stops else ())


def test_statements_end_with_the_turn_s_end_whatever_the_tokenizer_joins() -> None:
    class Joins(ByteTokenizer):
        """Has one token for a word and the line break behind it."""

        def encode(self, text: str) -> tuple[int, ...]:
            return tuple(text.replace("d\n", "D").encode())

    (document,) = (Encoder(Joins(), EncodeConfig(), 0).conversed(PICTURE, "red", [], KEY),)
    text = document.segments[-1]
    assert isinstance(text, Text) and bytes(text.tokens) == b"red\n"
