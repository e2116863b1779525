"""Turns of a conversation: what each template tells, what of it is learnt, and that prompts go on as training told."""

import json
from pathlib import Path

import numpy as np
import pytest

from transfusion.data.encode import EncodeConfig, Encoder, with_template
from transfusion.data.errors import DataError
from transfusion.data.settings import FolderConfig, ShapesConfig
from transfusion.data.tasks import told_tasks
from transfusion.data.turns import Chat, TemplateConfig, Turn, TurnsKind, read_template, spoken
from transfusion.layout import IGNORE, layout
from transfusion.segments import Document, Latent, Modality, Text, Vocabulary
from transfusion.tokenizer import ByteTokenizer, Tokenizer, train_tokenizer

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA = (  # with a beginning, an end, and the system's words within the first turn
    "{{ bos_token }}{% set told = messages %}"
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set told = messages[1:] %}{% endif %}{% for message in told %}{% if message.role == 'user' %}[INST] "
    "{% if loop.first and system %}<<SYS>>{{ system }}<</SYS>>{% endif %}{{ message.content | trim }} [/INST]"
    "{% else %} {{ message.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
IMAGE = Modality("image", 3, (8, 8), (2, 2))
RED, BLUE = (np.full((16, 16, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
TOKENIZERS: dict[str, Tokenizer] = {
    "bytes": ByteTokenizer(),
    "learnt": train_tokenizer(["what is it? USER: a star\n ASSISTANT: </s> how many one [/INST]"] * 9, 330),
}
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
TALK = [
    Turn("person", (RED, "What is it?")),
    Turn("model", ("A star.",)),
    Turn("person", ("How many?",)),
    Turn("model", ("One\nor two.",)),
]
WAYS: dict[str, EncodeConfig] = {
    "lines": EncodeConfig(),
    "plain": EncodeConfig(turns="plain"),
    "vicuna": EncodeConfig(turns="vicuna"),
    "chatml": EncodeConfig(turns="chat", template=TemplateConfig(source=CHATML)),
    "llama": EncodeConfig(turns="chat", template=TemplateConfig(source=LLAMA, eos="</s>")),
}


def encoder(way: str, kind: str = "bytes") -> Encoder:
    """Make an encoder that tells turns in a way."""
    return Encoder(TOKENIZERS[kind], WAYS[way], 0, modality=IMAGE)


def vocabulary(kind: str) -> Vocabulary:
    """Return the ids of a tokenizer, with pictures."""
    return Vocabulary(TOKENIZERS[kind].size, (IMAGE,))


def written(document: Document) -> str:
    """Write a document of bytes: pictures as *, and what is learnt in brackets."""
    found = ""
    for part in document.segments:
        text = bytes(part.tokens).decode() if isinstance(part, Text) else "*"
        found += f"[{text}]" if part.is_target else text
    return found


TOLD = {
    "lines": "*What is it[ A star.\n]How many[ One\nor two.\n]",
    "plain": "*[A star.\n][One\nor two.\n]",
    "vicuna": f"{VICUNA}USER: *\nWhat is it? ASSISTANT:[ A star.</s>]USER: How many? ASSISTANT:[ One\nor two.</s>]",
    "chatml": "<|im_start|>user\n*What is it?<|im_end|>\n<|im_start|>assistant\n[A star.<|im_end|>\n]"
    "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n[One\nor two.<|im_end|>\n]",
    "llama": "[INST] *What is it? [/INST][ A star. </s>][INST] How many? [/INST][ One\nor two. </s>]",
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_tells_a_conversation_and_only_the_model_s_words_are_learnt(way: str) -> None:
    marks = TOLD[way].replace("[INST]", "{INST}").replace("[/INST]", "{/INST}")
    found = written(encoder(way).talked(TALK, ("k",))).replace("[INST]", "{INST}").replace("[/INST]", "{/INST}")
    assert found == marks
    columns = layout(encoder(way).talked(TALK, ("k",)), vocabulary("bytes")).columns
    learnt = [target for target in columns.targets.tolist() if target != IGNORE]
    parts = encoder(way).talked(TALK, ("k",)).segments
    said = [token for part in parts if isinstance(part, Text) and part.is_target for token in part.tokens]
    assert learnt == [*said, vocabulary("bytes").eos]


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("lines", "Be brief.\nWhat[ That.\n]"),
        ("vicuna", "Be brief. USER: What ASSISTANT:[ That.</s>]"),
        ("chatml", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat<|im_end|>\n<|im_start|>assistant\n"
         "[That.<|im_end|>\n]"),
        ("plain", "[That.\n]"),
    ],
)  # fmt: skip
def test_what_the_system_says_is_told_first_and_not_learnt(way: str, told: str) -> None:
    turns = [Turn("person", ("What",)), Turn("model", ("That.",))]
    assert written(encoder(way).talked(turns, ("k",), "Be brief.")) == told


def slots(document: Document, kind: str) -> list[tuple[int, int, int]]:
    """Return what the model sees of every slot: token, position and modality."""
    columns = layout(document, vocabulary(kind)).columns
    seen = (columns.tokens, columns.positions, columns.modality)
    return list(zip(*(column.tolist() for column in seen), strict=True))


def before_answers(document: Document) -> list[Document]:
    """Return a document up to each answer."""
    places = [place for place, part in enumerate(document.segments) if isinstance(part, Text) and part.is_target]
    return [Document(document.segments[:place], is_complete=False) for place in places]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("way", WAYS)
def test_a_question_and_a_chat_are_what_training_told_up_to_each_answer(way: str, kind: str) -> None:
    told = encoder(way, kind)
    trained = told.talked(TALK, ("k",))
    first, second = before_answers(trained)
    assert slots(told.question_prompt(RED, "What is it?"), kind) == slots(first, kind)
    chat = told.said(told.shown(Document((), is_complete=False), RED), "What is it?")
    assert slots(chat, kind) == slots(first, kind)
    whole = trained.segments[len(first.segments)]
    assert isinstance(whole, Text)
    cut_short = Text(whole.tokens[: -len(told.turn_end)])  # by its budget
    for answer in (whole, cut_short):
        answered = Document((*chat.segments, answer), is_complete=False)
        assert slots(told.said(answered, "How many?"), kind) == slots(second, kind)


@pytest.mark.parametrize("way", WAYS)
def test_a_chat_without_pictures_and_one_with_several_is_what_training_told(way: str) -> None:
    told = encoder(way)
    empty = Document((), is_complete=False)
    alone = [Turn[np.ndarray]("person", ("Why?",)), Turn[np.ndarray]("model", ("So.",))]
    assert slots(told.said(empty, "Why?"), "bytes") == slots(before_answers(told.talked(alone, ("k",)))[0], "bytes")
    both = [Turn("person", (RED, BLUE, "Which?")), Turn("model", ("Both.",))]
    chat = told.said(told.shown(told.shown(empty, RED), BLUE), "Which?")
    trained = before_answers(told.talked(both, ("k",)))[0]
    assert slots(chat, "bytes") == slots(trained, "bytes")
    ours, theirs = ([part.values.mean() for part in d.segments if isinstance(part, Latent)] for d in (chat, trained))
    assert ours == theirs
    later = [*alone, Turn("person", (RED, "What?")), Turn("model", ("That.",))]
    first, second = before_answers(told.talked(later, ("k",)))
    answer = told.talked(later, ("k",)).segments[len(first.segments)]
    answered = Document((*first.segments, answer), is_complete=False)
    assert slots(told.said(told.shown(answered, RED), "What?"), "bytes") == slots(second, "bytes")


@pytest.mark.parametrize("way", ["vicuna", "plain", "chatml"])
def test_the_built_in_world_is_asked_as_its_questions_were_told(way: str) -> None:
    told = encoder(way)
    trained = told.conversed(RED, None, [("what is it?", "red"), ("how many?", "one")], ("k",))
    assert slots(told.question_prompt(RED, "what is it?"), "bytes") == slots(before_answers(trained)[0], "bytes")


@pytest.mark.parametrize(
    ("turns", "tasks"), [("lines", ("ask", "chat")), ("vicuna", ("ask", "chat")), ("plain", ("caption",))]
)
def test_what_a_model_of_conversations_can_be_asked_for(turns: TurnsKind, tasks: tuple[str, ...]) -> None:
    config = EncodeConfig(turns=turns)
    assert told_tasks(FolderConfig(layout="conversations"), config) == tasks
    assert encoder("lines").stop_tokens(tasks) == ()  # an answer may have several lines
    assert ("ask" in told_tasks(ShapesConfig(), config)) == (turns != "plain")


def test_what_ends_a_statement_is_no_part_of_an_answer() -> None:
    texts = {"lines": " a > b\n", "vicuna": " a > b</s>", "chatml": "a > b<|im_end|>\n", "llama": " a > b </s>"}
    for way, text in texts.items():
        assert spoken(encoder(way).template, text) == "a > b"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for message in messages %}", "none of Jinja"),
        ("{{ raise_exception('no pictures here') }}", "no pictures here"),
        ("{{ messages | length }}{% for message in messages %}{{ message.content }}{% endfor %}", "turn 2.*changes"),
        ("{{ messages[0].content }}", "does not write what a message says"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "fails: SecurityError"),
        ("{{ 1 / 0 }}", "fails: ZeroDivisionError"),
    ],
)
def test_templates_that_cannot_tell_turns_are_refused(source: str, message: str) -> None:
    config = EncodeConfig(turns="chat", template=TemplateConfig(source=source))
    with pytest.raises(DataError, match=message):
        with_template(config, None)


def test_a_template_that_forgets_an_earlier_turn_is_refused_where_it_does() -> None:
    source = CHATML.replace("message.content", "(message.content if loop.last or message.content != 'so' else '')")
    with pytest.raises(DataError, match="turn 3, which begins 'why'"):
        Chat(TemplateConfig(source=source)).tell(
            [Turn[str]("person", ("x",)), Turn[str]("model", ("so",)), Turn[str]("person", ("why",))]
        )


def test_templates_are_read_from_beside_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    with pytest.raises(DataError, match=r"none lies in .*encode.turns=vicuna"):
        read_template(tokenizer)
    named = [{"name": "tools", "template": "no"}, {"name": "default", "template": CHATML}]
    eos = {"content": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named, "eos_token": eos}))
    assert read_template(tokenizer) == TemplateConfig(source=CHATML, eos="</s>")
    (tmp_path / "chat_template.jinja").write_text(LLAMA)
    assert read_template(tokenizer) == TemplateConfig(source=LLAMA, eos="</s>")
    with pytest.raises(DataError, match="tokenizer.kind=file"):
        read_template(None)
    with pytest.raises(DataError, match="reaches nothing while encode.turns is lines"):
        with_template(EncodeConfig(template=TemplateConfig(source=CHATML)), None)
