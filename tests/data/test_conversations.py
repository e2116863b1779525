"""Conversations: rows as LLaVA has them and as messages, pictures where they stand, rows that are none."""

import base64
import json
import threading
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from transfusion.config import ConfigError, override
from transfusion.data.errors import DataError
from transfusion.data.records.conversations import conversations
from transfusion.data.records.record import Conversation
from transfusion.data.sources import FolderConfig, open_reader
from transfusion.pretrained import Transfusion
from transfusion.recipes import RECIPES
from transfusion.run import open_run, train_run
from transfusion.segments import Latent, Text
from transfusion.tokenizer import train_tokenizer

ASKED = {"from": "human", "value": "<image>\nWhat is it?"}
ANSWERED = {"from": "gpt", "value": "A star."}
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def rows(folder: Path, *given: object, name: str = "talk.json") -> Path:
    """Write rows, and the pictures a.png and b.png."""
    folder.mkdir(parents=True, exist_ok=True)
    for each, colour in (("a.png", (255, 0, 0)), ("b.png", (0, 0, 255))):
        Image.new("RGB", (20, 20), colour).save(folder / each)
    text = json.dumps(given) if name.endswith(".json") else "\n".join(map(json.dumps, given))
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def said(record: object) -> list[tuple[str, tuple[str, ...]]]:
    """Say who says what, pictures by their names."""
    assert isinstance(record, Conversation)
    named = [(turn.by, [p.name if isinstance(p, Path) else str(p) for p in turn.parts]) for turn in record.turns]
    return [(by, tuple(parts)) for by, parts in named]


def only(folder: Path, row: object) -> list[tuple[str, tuple[str, ...]]]:
    """Return what the conversation of a row says."""
    return said(conversations(rows(folder, row), folder)[0])


def test_pictures_stand_where_they_are_marked_in_their_order(tmp_path: Path) -> None:
    further = {"from": "human", "value": "And <image>, beside <image>?"}
    row = {"id": "1", "image": ["a.png", "b.png", "a.png"], "conversations": [ASKED, ANSWERED, further, ANSWERED]}
    told = only(tmp_path, row)
    assert told[0] == ("person", ("a.png", "What is it?")) and told[1] == ("model", ("A star.",))
    assert told[2] == ("person", ("And ", "b.png", ", beside ", "a.png", "?"))


def test_messages_are_read_with_names_in_the_row_and_in_the_content(tmp_path: Path) -> None:
    picture = {"type": "image", "image": "b.png"}
    content = [picture, {"type": "image"}, {"type": "text", "text": "Which?"}, {"type": "text", "text": "Say."}]
    answer = {"role": "assistant", "content": "Both."}
    row = {"image": "a.png", "messages": [{"role": "user", "content": content}, answer]}
    assert only(tmp_path, {**row, "images": ["c.png"]}) == only(tmp_path, row)
    assert only(tmp_path, row) == [("person", ("b.png", "a.png", "Which?\nSay.")), ("model", ("Both.",))]
    plain = {
        "image": "",
        "messages": [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Why?"}, answer],
    }
    record = conversations(rows(tmp_path, plain), tmp_path)[0]
    assert isinstance(record, Conversation) and record.system == "Be brief."


def test_a_picture_may_be_a_data_url(tmp_path: Path) -> None:
    data = BytesIO()
    Image.new("RGB", (20, 20), (0, 255, 0)).save(data, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}]
    row = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "That."}]}
    config = FolderConfig(path=rows(tmp_path, row), resolution=16, hold_out=0.0)
    assert open_reader(config).sample_pictures()[0, 0, 0].tolist() == [0, 255, 0]  # pyright: ignore


def test_turns_of_one_side_are_one_and_the_last_is_the_model_s(tmp_path: Path) -> None:
    more = {"from": "human", "value": "Say."}
    told = only(tmp_path, {"image": "a.png", "conversations": [ASKED, more, ANSWERED, ANSWERED, more]})
    assert told == [("person", ("a.png", "What is it?\nSay.")), ("model", ("A star.\nA star.",))]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversations": [ASKED, ANSWERED]}, "1 of <image> in what is said, and 0 pictures"),
        ({"image": ["a.png", "b.png"], "conversations": [ASKED, ANSWERED]}, "1 of <image> .* and 2 pictures"),
        ({"image": 3, "conversations": [ASKED, ANSWERED]}, "expected the name of a picture"),
        ({"image": "../a.png", "conversations": [ASKED, ANSWERED]}, "lies outside"),
        ({"image": "a.png", "conversations": [ANSWERED, ASKED, ANSWERED]}, "alternation.*got model, person, model"),
        ({"image": "a.png", "conversations": [ASKED]}, "alternation.*got none"),
        ({"conversations": "x"}, "expected a list as 'conversations'"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, "turn 1 is .*human, user, gpt, assistant as 'from'"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "item 1 of a content is"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "http://a/b.png"}]}]}, "in the net"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: object, message: str) -> None:
    good = {"image": "a.png", "conversations": [ASKED, ANSWERED]}
    file = rows(tmp_path, good, row, name="talk.jsonl")
    with pytest.raises(DataError, match=rf"talk.jsonl, line 2: .*{message}"):
        open_reader(FolderConfig(path=file, resolution=16))


def test_conversations_about_one_picture_are_held_out_together(tmp_path: Path) -> None:
    talks = [
        {"image": f"{number % 30}.png", "conversations": [ASKED, {"from": "gpt", "value": str(number)}]}
        for number in range(90)
    ]
    file = rows(tmp_path, *talks)
    sides = list[set[str]]()
    for split in ("train", "test"):
        reader = open_reader(FolderConfig(path=file, resolution=16, hold_out=0.3, split=split))
        sides.append({str(int(text) % 30) for text in reader.texts() if text.isdigit()})
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 30


@pytest.mark.parametrize("turns", ["lines", "plain", "vicuna", "chat"])
def test_a_model_is_trained_on_conversations_and_answers_as_it_was_told(tmp_path: Path, turns: str) -> None:
    talk = {"image": "a.png", "conversations": [ASKED, ANSWERED]}
    words = {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}
    rows(tmp_path / "data", *[talk, words] * 4, name="conversations.json")
    train_tokenizer([CHATML, "user assistant What is it? A star."] * 9, 300).save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    small = ["data.resolution=16", "model.trunk.dim=32", "model.trunk.depth=1", "train.row_length=256"]
    small += ["train.steps=2", "train.batch_size=4", "train.log_every=1", f"encode.turns={turns}"]
    small += ["tokenizer.kind=file", f"tokenizer.path={tmp_path / 'tokenizer.json'}", f"data.path={tmp_path / 'data'}"]
    state, source = open_run(override(RECIPES["folder"](), small), tmp_path / "run", is_resumed=False, device="cpu")
    assert len(list(train_run(state, source, tmp_path / "run", threading.Event()))) == 2
    trained = source.document(0, 0)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "data" / "conversations.json").unlink()  # a model needs neither
    model = Transfusion.from_pretrained(tmp_path / "run")
    prompt = model.prompts.encoder.question_prompt(model.picture(tmp_path / "data/a.png"), "What is it?")
    answer = next(place for place, part in enumerate(trained.segments) if isinstance(part, Text) and part.is_target)
    told, asked = ([p.tokens for p in s if isinstance(p, Text)] for s in (trained.segments[:answer], prompt.segments))
    assert told == asked and sum(isinstance(part, Latent) for part in prompt.segments) == 1
    assert isinstance(model.ask(tmp_path / "data/a.png", "What is it?"), str)


def test_a_conversation_in_which_the_model_says_nothing_is_left_out_and_named(tmp_path: Path) -> None:
    asked, silent = {"from": "human", "value": "Hi?"}, {"from": "gpt", "value": " \n"}
    given = [
        {"conversations": [asked, ANSWERED]},
        {"conversations": [asked, silent]},
        {"conversations": [asked, silent, asked, ANSWERED]},
    ]
    file = rows(tmp_path, *given)
    records = conversations(file, tmp_path)
    assert len(records.splits) == 2 and said(records[1])[1] == ("model", ())
    assert records.found.left_out == {"record in which nothing is said that a model would learn": 1}
    assert "talk.json, element 2: record in which nothing is said" in records.quarantine["talk.json:1"]
    with pytest.raises(DataError, match="gives no records; the first: record in which nothing is said"):
        conversations(rows(tmp_path / "all", {"conversations": [asked, silent]}), tmp_path)


def test_what_the_preamble_fills_a_row_with_is_left_out(tmp_path: Path) -> None:
    asked = [{"from": "human", "value": f"What is {i}?" * (9 if i == 3 else 1)} for i in range(5)]
    given = [{"conversations": [each, {"from": "gpt", "value": "One more."}]} for each in asked]
    wanted = ["data.hold_out=0", f"data.path={rows(tmp_path / 'data', *given)}", "tokenizer.kind=bytes"]
    wanted += ["encode.turns=vicuna", "train.too_long=cut", "model.trunk.dim=32", "model.trunk.depth=1"]
    config = override(
        RECIPES["folder"](), [*wanted, "train.row_length=220", "data.resolution=16", "train.max_dropped=0.2"]
    )
    _, source = open_run(config, tmp_path / "run", is_resumed=False, device="cpu")
    assert source.size == 4 and source.found.left_out == {"record of which nothing would be learnt once it is cut": 1}
    assert "raise train.row_length to at least" in source.quarantine["talk.json:3"]
    config = override(config, ["train.row_length=96"])
    with pytest.raises(ConfigError, match="nothing would be learnt of any of 5 documents; .* once it is cut"):
        open_run(config, tmp_path / "none", is_resumed=False, device="cpu")
