"""How turns of a conversation are told: which words stand around what a person says and what the model learns.

    lines    [picture]what colour is it red⏎how many are there one⏎
    plain    [picture]a red star⏎                                           LLaVA, stage 1: a person's words left out
    vicuna   A chat ... questions. USER: [picture]⏎What is it? ASSISTANT: A star.</s>USER: ...             LLaVA v1
    chat     whatever the chat template of the tokenizer says

Training and prompts are told by the same functions. It must not know tokens, nor what a picture becomes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, Protocol, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from transfusion.data.errors import DataError

if TYPE_CHECKING:
    from jinja2 import Template as JinjaTemplate

TurnsKind = Literal["lines", "plain", "vicuna", "chat"]
By = Literal["person", "model"]
LINE_END = "\n"
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
TEMPLATE_FILE, TOKENIZER_SETTINGS = "chat_template.jinja", "tokenizer_config.json"
PICTURE, ASKED, ANSWERED = "\ue000", "\ue001", "\ue002"  # for private use, so that no text has them: stand-ins
ROLES: dict[By, str] = {"person": "user", "model": "assistant"}
P = TypeVar("P")


class TemplateConfig(BaseModel):
    """A chat template of a tokenizer."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: str = Field(description="The template, in Jinja, given messages with a role and a content each")
    eos: str = Field(default="", description="What the template may write as eos_token")


class Turn(NamedTuple, Generic[P]):
    """What one side says: words, and pictures of any kind."""

    by: By
    parts: Sequence[str | P]


class Words(NamedTuple):
    """Words as they are told.

    Attributes:
        text: They.
        is_target: Whether the model learns to say them.
        end: What ends the statement; made tokens by itself, so that no tokenizer joins it with a word.
    """

    text: str
    is_target: bool = False
    end: str = ""


class Look(NamedTuple, Generic[P]):
    """A picture as it is told.

    Attributes:
        picture: It.
        is_target: Whether the model learns to draw it.
    """

    picture: P
    is_target: bool = False


class Before(NamedTuple):
    """What a turn follows.

    Attributes:
        is_first: Whether no statement of the model is before it.
        has_picture: Whether a picture is.
        is_open: Whether the last thing is a picture, of the same turn then.
    """

    is_first: bool = True
    has_picture: bool = False
    is_open: bool = False


BEGINNING = Before()


class Template(Protocol):
    """A way to tell turns."""

    @property
    def end(self) -> str:
        """What ends a statement of the model."""
        ...

    def tell(self, turns: Sequence[Turn[P]], system: str = "", before: Before = BEGINNING) -> list[Words | Look[P]]:
        """Tell turns of a person and the model in alternation; behind one of a person all that comes before an answer.

        Raises:
            DataError: The template cannot tell them.
        """
        ...


@dataclass(frozen=True)
class Lines:
    """Every statement ends with a line break; a question about a picture is told without its mark."""

    end: str = LINE_END

    def tell(self, turns: Sequence[Turn[P]], system: str = "", before: Before = BEGINNING) -> list[Words | Look[P]]:
        """Tell turns."""
        told: list[Words | Look[P]] = [Words(system, end=self.end)] if system else []
        has_picture = before.has_picture
        for turn in turns:
            is_model = turn.by == "model"
            words: list[Words | Look[P]] = [Words(" ", is_target=True)] if is_model else []
            for part in turn.parts:
                if not isinstance(part, str):
                    has_picture = True
                    words.append(Look(part, is_model))
                else:
                    is_question = not is_model and has_picture and part.endswith("?")
                    words.append(Words(told_question(part) if is_question else part, is_model))
            told += _ended(words, self.end) if is_model else words
        return _merged(told)


@dataclass(frozen=True)
class Plain:
    """Pictures and what the model says of them, a line each; what a person says is left out."""

    end: str = LINE_END

    def tell(self, turns: Sequence[Turn[P]], system: str = "", before: Before = BEGINNING) -> list[Words | Look[P]]:
        """Tell turns."""
        del system, before
        told: list[Words | Look[P]] = []
        for turn in turns:
            is_model = turn.by == "model"
            words = _all(turn.parts, is_target=is_model)
            told += _ended(words, self.end) if is_model else [part for part in words if isinstance(part, Look)]
        return told


@dataclass(frozen=True)
class Vicuna:
    """``USER: ... ASSISTANT: ...</s>`` behind a sentence, as LLaVA v1 has it (its conversation.py, ``vicuna_v1``)."""

    end: str = "</s>"

    def tell(self, turns: Sequence[Turn[P]], system: str = "", before: Before = BEGINNING) -> list[Words | Look[P]]:
        """Tell turns."""
        told: list[Words | Look[P]] = [Words(f"{system or VICUNA_SYSTEM} ")] if before.is_first else []
        for turn in turns:
            parts = _all(turn.parts, is_target=turn.by == "model")
            if turn.by == "model":
                told += _ended([Words(" ", is_target=True), *parts], self.end)
            else:
                leading = next((place for place, part in enumerate(parts) if isinstance(part, Words)), len(parts))
                lines = [each for part in parts[:leading] for each in (part, Words(LINE_END))]
                told += [Words("USER: "), *(lines if leading < len(parts) else parts[:leading]), *parts[leading:]]
                told.append(Words(" ASSISTANT:"))
        return _merged(told)


@dataclass(frozen=True)
class Chat:
    """A tokenizer's own chat template, rendered turn by turn: what each adds is that turn's.

    Attributes:
        template: It.
    """

    template: TemplateConfig

    @property
    def end(self) -> str:
        """What stands behind the last thing that the model said."""
        rendered = self._rendered([_message("person", ASKED), _message("model", ANSWERED)], is_answered=True)
        return rendered.partition(ANSWERED)[2]

    def check(self) -> None:
        """Check that the template tells a question, a picture and an answer.

        Raises:
            DataError: It does not.
        """
        turns = [Turn[str]("person", (ASKED,)), Turn[str]("model", (ANSWERED,))]
        told = "".join(part.text for part in self.tell(turns) if isinstance(part, Words))
        if told.count(ASKED) != 1 or told.count(ANSWERED) != 1:
            raise DataError("the chat template does not write what a message says, as one string, once: take another")

    def tell(self, turns: Sequence[Turn[P]], system: str = "", before: Before = BEGINNING) -> list[Words | Look[P]]:
        """Tell turns.

        Raises:
            DataError: The template fails, or writes what was said before in another way once a turn follows.
        """
        end = self.end
        messages = [{"role": "system", "content": system}] if system else []
        done = ""
        if not before.is_first:
            messages += [_message("person", ASKED), _message("model", ANSWERED)]
            done = self._rendered(messages, is_answered=True)
        told: list[Words | Look[P]] = []
        for number, turn in enumerate(turns, start=1):
            is_model = turn.by == "model"
            content = "".join(part if isinstance(part, str) else PICTURE for part in turn.parts)
            messages.append(_message(turn.by, content))
            rendered = self._rendered(messages, is_answered=is_model)
            if not rendered.startswith(done):
                raise DataError(
                    f"the chat template does not go on from what it wrote before at turn {number}, which begins "
                    f"{content[:40]!r}: it changes earlier turns; take another template, or encode.turns=vicuna"
                )
            told += _placed(rendered[len(done) :], turn, end)
            done = rendered
        return _merged(told)

    def _rendered(self, messages: Sequence[dict[str, str]], *, is_answered: bool) -> str:
        """Render messages; where an answer is missing, up to where it begins."""
        from jinja2 import TemplateError

        template = _compiled(self.template.source)
        # A document has a beginning of its own, so the tokenizer's is not told.
        names = {"messages": messages, "bos_token": "", "eos_token": self.template.eos}
        try:
            return template.render(names, add_generation_prompt=not is_answered)
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise DataError(f"the chat template fails: {type(error).__name__}: {error}") from error


def shown(template: Template, picture: P, before: Before) -> list[Words | Look[P]]:
    """Tell a picture that a person shows, to speak of it next."""
    told = said(template, (picture, ASKED), before)
    last = max(place for place, part in enumerate(told) if isinstance(part, Look))
    return told[: last + 1]


def said(template: Template, parts: Sequence[str | P], before: Before) -> list[Words | Look[P]]:
    """Tell what a person says, up to where the answer begins."""
    whole: list[str | P | None] = [*([None] if before.is_open else []), *parts]
    told = template.tell([Turn[P | None]("person", whole)], before=before)
    first = next((place + 1 for place, part in enumerate(told) if isinstance(part, Look)), 0) if before.is_open else 0
    return cast(list[Words | Look[P]], told[first:])


def spoken(template: Template, text: str) -> str:
    """Return what a model said without what ends its statement.

    >>> spoken(Vicuna(), " A star.</s>")
    'A star.'
    """
    return text.strip().removesuffix(template.end.strip()).strip()


def template_of(kind: TurnsKind, template: TemplateConfig | None) -> Template:
    """Return the template of a name.

    Args:
        kind: The name.
        template: The tokenizer's own, for "chat".

    Raises:
        DataError: There is none.
    """
    if kind == "chat":
        if template is None:
            raise DataError("encode.turns=chat has no template; a run reads it from beside tokenizer.path")
        return Chat(template)
    return {"lines": Lines, "plain": Plain, "vicuna": Vicuna}[kind]()


def read_template(tokenizer: Path | None) -> TemplateConfig:
    """Read the chat template that lies beside a ``tokenizer.json``: ``chat_template.jinja``, or in
    ``tokenizer_config.json``.

    Raises:
        DataError: There is none.
    """
    folder = None if tokenizer is None else tokenizer if tokenizer.is_dir() else tokenizer.parent
    settings, source = {}, None
    if folder is not None and (file := folder / TOKENIZER_SETTINGS).is_file():
        try:
            settings = cast(dict[str, object], json.loads(file.read_bytes()))
            source = _named(settings.get("chat_template"))
        except (ValueError, AttributeError) as error:
            raise DataError(f"{file} is not JSON that settings of a tokenizer are: {error}") from error
    if folder is not None and (file := folder / TEMPLATE_FILE).is_file():
        source = file.read_text(encoding="utf-8")
    if not source:
        where = "tokenizer.kind=file with tokenizer.path is needed" if folder is None else f"none lies in {folder}"
        raise DataError(
            f"encode.turns=chat tells turns by the chat template in {TEMPLATE_FILE} or {TOKENIZER_SETTINGS} beside the "
            f"tokenizer's file: {where}; name such a tokenizer, or take encode.turns=vicuna"
        )
    eos = settings.get("eos_token")
    eos = cast(dict[str, object], eos).get("content") if isinstance(eos, dict) else eos
    return TemplateConfig(source=source, eos=eos if isinstance(eos, str) else "")


def asked_turns(picture: P, caption: str | None, turns: Sequence[tuple[str, str]]) -> list[Turn[P]]:
    """Return the turns of a conversation about a picture that begins with its caption, if any."""
    told: list[Turn[P]] = []
    if caption is not None:
        told += Turn[P]("person", (picture,)), Turn[P]("model", (caption,))
    for question, answer in turns:
        told += Turn[P]("person", (question,) if told else (picture, question)), Turn[P]("model", (answer,))
    return told


def told_question(asked: str) -> str:
    """Tell a question without its mark, so that the word asked about is the last before the answer: a small model
    looks a thing up at its name, and needs hundreds of steps more to do it one token later.
    """
    return asked.strip().rstrip("?").rstrip()


def _all(parts: Sequence[str | P], *, is_target: bool) -> list[Words | Look[P]]:
    return [Words(part, is_target) if isinstance(part, str) else Look(part, is_target) for part in parts]


def _ended(told: list[Words | Look[P]], end: str) -> list[Words | Look[P]]:
    """Let a statement of the model end."""
    told = _merged(told)
    last = told.pop() if told and isinstance(told[-1], Words) else Words("", is_target=True)
    return [*told, last._replace(end=end)]


def _merged(told: Sequence[Words | Look[P]]) -> list[Words | Look[P]]:
    """Put words together that nothing parts."""
    found: list[Words | Look[P]] = []
    for part in told:
        last = found[-1] if found else None
        if not isinstance(part, Words) or not isinstance(last, Words) or last.end or last.is_target != part.is_target:
            found.append(part)
        else:
            found[-1] = part._replace(text=last.text + part.text)
    return [part for part in found if isinstance(part, Look) or part.text or part.end]


def _placed(added: str, turn: Turn[P], end: str) -> list[Words | Look[P]]:
    """Put the pictures of a turn where their stand-ins are in what it added."""
    pictures = [part for part in turn.parts if not isinstance(part, str)]
    pieces = added.split(PICTURE)
    if len(pieces) != len(pictures) + 1:
        raise DataError(f"the chat template tells {len(pieces) - 1} pictures of a turn that has {len(pictures)}")
    is_model = turn.by == "model"
    told: list[Words | Look[P]] = [Words(pieces[0], is_model)]
    for picture, text in zip(pictures, pieces[1:], strict=True):
        told += [Look(picture, is_model), Words(text, is_model)]
    last = told[-1]
    if is_model and isinstance(last, Words) and end and last.text.endswith(end):
        told[-1] = Words(last.text.removesuffix(end), is_target=True, end=end)
    return told


def _message(by: By, content: str) -> dict[str, str]:
    return {"role": ROLES[by], "content": content}


def _named(template: object) -> str | None:
    """Return the template that the settings of a tokenizer have: a string, or the default of several with names."""
    if isinstance(template, list):
        every = [cast(dict[str, object], each) for each in cast(list[object], template) if isinstance(each, dict)]
        template = next((each.get("template") for each in every if each.get("name") == "default"), None)
    return template if isinstance(template, str) else None


@cache
def _compiled(source: str) -> "JinjaTemplate":
    """Make a template of text that comes with a tokenizer, from anywhere: it may not reach out of its sandbox."""
    from jinja2 import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    extensions: list[str | type[Extension]] = [loopcontrols]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    try:
        return environment.from_string(source, globals={"raise_exception": refuse})
    except TemplateError as error:
        raise DataError(f"the chat template is none of Jinja: {error}") from error
