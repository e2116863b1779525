"""Raw records → documents: the order of picture and caption, caption dropout, noise limits, question turns.

Responsible for how a record of each task is told to the model, in training and, through the prompt functions, at
use. It must not know where records come from, nor slots.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from transfusion.autoencoder.pixels import PixelConfig, PixelSpace
from transfusion.autoencoder.space import LatentSpace, Moments, Picture, Size
from transfusion.data.errors import DataError
from transfusion.data.turns import (
    LINE_END,
    Before,
    Chat,
    Look,
    Template,
    TemplateConfig,
    Turn,
    TurnsKind,
    Words,
    asked_turns,
    read_template,
    said,
    shown,
    template_of,
    told_question,
)
from transfusion.keyed import Key, generator
from transfusion.segments import Document, Latent, Modality, Segment, Text, null_prompt, unforetold
from transfusion.tokenizer import Tokenizer

IMAGE = "image"
TURN_END = LINE_END
ASK = "ask"  # the task whose documents have turns
CHAT = "chat"  # the one whose answers may have several lines
Shown = Picture | Moments  # a picture, or what a latent space made of it before


class EncodeConfig(BaseModel):
    """How records are told. The paper: caption first 80 %, a noise limit of 0.5 on pictures before their caption."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    pixels: PixelConfig | None = Field(
        default=None, description="How pixels are standardised; None: measured on the data when a run begins"
    )
    caption_first: float = Field(default=0.8, ge=0, le=1, description="Share of captioned pictures told caption first")
    caption_dropout: float = Field(default=0.1, ge=0, le=1, description="Share of prompts dropped, for guidance")
    learns_prompts: bool = Field(
        default=True, description="Whether the caption of a picture to draw is a target too, as in the paper"
    )
    picture_first_max_t: float = Field(
        default=0.5, ge=0, le=1, description="Largest diffusion time of a picture before its caption; 0 keeps it clean"
    )
    turns: TurnsKind = Field(
        default="lines",
        description="How turns of a conversation are told, in training and at use: lines: each ends with a line break; "
        "plain: pictures and answers alone (LLaVA, stage 1); vicuna: USER: ... ASSISTANT: ...</s> (LLaVA v1); chat: by "
        "the chat template beside tokenizer.path",
    )
    template: TemplateConfig | None = Field(
        default=None, description="The template of turns=chat; None: the tokenizer's, read when a run begins"
    )

    @property
    def standardisation(self) -> PixelConfig:
        """How pixels are standardised; before a run has begun, the plain range."""
        return self.pixels or PixelConfig()


def settled_encode(config: EncodeConfig, settled: EncodeConfig) -> EncodeConfig:
    """Fill in what settings leave open from those of the run that settled them."""
    template = config.template or (settled.template if config.turns == "chat" else None)
    return config.model_copy(update={"pixels": config.pixels or settled.pixels, "template": template})


def with_template(config: EncodeConfig, tokenizer: Path | None) -> EncodeConfig:
    """Return settings with the chat template that lies beside a ``tokenizer.json``, where turns are told by one.

    Raises:
        DataError: There is none, or it cannot tell turns; or one is given, and turns are told otherwise.
    """
    if config.turns != "chat":
        if config.template is not None:
            raise DataError(f"encode.template reaches nothing while encode.turns is {config.turns}; set it to chat")
        return config
    template = config.template or read_template(tokenizer)
    Chat(template).check()
    return config.model_copy(update={"template": template})


@dataclass(frozen=True)
class Encoder:
    """Tells records of every task as documents; all draws depend on the seed and the record's key.

    Attributes:
        tokenizer: Text → tokens.
        config: How records are told.
        seed: Key of all draws.
        space: What pictures become; None: pixels, standardised as the config says.
        draws: Whether training sees draws from the posterior of latents that come with its spread, and not its mean.
        modality: What pictures are to the model: how many patches one has, where long records are cut for rows.
    """

    tokenizer: Tokenizer
    config: EncodeConfig
    seed: int
    space: LatentSpace | None = None
    draws: bool = True
    modality: Modality | None = None

    @property
    def latents(self) -> LatentSpace:
        """What pictures become."""
        return self.space or PixelSpace(self.config.standardisation)

    def captioned(self, text: str, picture: Shown, key: tuple[Key, ...]) -> Document:
        """Tell a captioned picture in the keyed order: caption first, or picture first."""
        is_caption_first = self._uniform("order", key) < self.config.caption_first
        return self.drawn(text, picture, key) if is_caption_first else self.looked_at(text, picture, key)

    def drawn(self, text: str, picture: Shown, key: tuple[Key, ...]) -> Document:
        """Tell a captioned picture caption first: the model draws it."""
        prompt = Text(self.tokenizer.encode(text), is_target=self.config.learns_prompts)
        return self._dropped(Document((prompt, self._target(picture, key)), key))

    def looked_at(self, text: str, picture: Shown, key: tuple[Key, ...]) -> Document:
        """Tell a captioned picture picture first: the model captions it."""
        return Document((self._context(picture, self.config.picture_first_max_t, key), self._text(text)), key)

    def conversed(
        self, picture: Shown, caption: str | None, turns: Sequence[tuple[str, str]], key: tuple[Key, ...]
    ) -> Document:
        """Tell the caption of a clean picture, if any, then questions and answers.

        Questions are targets too, as in the paper, all but their first token (see ``_turn``). Every statement ends
        with a line break, at which generation stops. Where turns are told otherwise, so are these.
        """
        if self.config.turns != "lines":
            return self.talked(asked_turns(picture, caption, turns), key)
        segments: list[Text | Latent] = [self._context(picture, 0.0, key)]
        segments += [self._statement(caption)] if caption is not None else []
        for asked, answer in turns:
            segments += [*self._turn(told_question(asked)), self._statement(f" {answer}")]
        return Document(tuple(segments), key)

    def talked(self, turns: Sequence[Turn[Shown]], key: tuple[Key, ...], system: str = "") -> Document:
        """Tell a conversation: only what the model says is learnt, and a person's pictures are clean.

        Raises:
            DataError: The chat template cannot tell it.
        """
        return Document(self._segments(self.template.tell(turns, system), key), key)

    def edited(self, before: Shown, instruction: str, after: Shown, key: tuple[Key, ...]) -> Document:
        """Tell an edit: a clean picture, an instruction, and the picture to draw."""
        return self.instructed((before, instruction), after, key)

    def story(self, pages: Sequence[tuple[str, Shown]], key: tuple[Key, ...]) -> Document:
        """Tell pages of text and picture in turn; every picture is noised and drawn."""
        segments: list[Text | Latent] = []
        for place, (text, picture) in enumerate(pages):
            segments += [self._text(text), self._target(picture, key, place)]
        return self._dropped(Document(tuple(segments), key))

    def passage(
        self, tokens: Sequence[int], next_token: int | None, key: tuple[Key, ...], *, begins: bool, ends: bool
    ) -> Document:
        """Tell a stretch of a text.

        Every token of the text is a target once: what follows a cut is the last target before it. So the first token
        of a stretch that goes on is none after BOS, or the model would learn that texts begin in mid-sentence.

        Args:
            tokens: The stretch.
            next_token: The token that follows it, if it is known.
            key: The document's key.
            begins: Whether the text begins here.
            ends: Whether the text ends here.
        """
        text = Text(tuple(tokens))
        return Document((text,) if begins else unforetold(text), key, is_complete=ends, next_token=next_token)

    def interleaved(
        self,
        parts: Sequence[Text | Shown],
        key: tuple[Key, ...],
        *,
        begins: bool = True,
        next_token: int | None = None,
        next_latent: str | None = None,
    ) -> Document:
        """Tell text and pictures in turn, or a piece of them that fits into a row; every picture is noised and drawn.

        As in ``passage``, every token is a target once, and so is what begins a picture: what follows a cut is the last
        target before it.

        Args:
            parts: Text, already tokens, and pictures.
            key: The document's key.
            begins: Whether the record begins here.
            next_token: The token that follows where this is cut, if one does.
            next_latent: The modality that follows where this is cut, if a picture does.
        """
        segments: list[Text | Latent] = []
        for part in parts:
            if not isinstance(part, Text):
                place = sum(isinstance(segment, Latent) for segment in segments)
                segments.append(replace(self._target(part, key, place), is_announced=begins or bool(segments)))
            else:
                segments += (part,) if begins or segments else unforetold(part)
        is_complete = next_token is None and next_latent is None
        document = Document(tuple(segments), key, is_complete, next_token, next_latent)
        return self._dropped(document) if any(isinstance(segment, Latent) for segment in segments) else document

    def instructed(self, prompt: Sequence[str | Shown], picture: Shown, key: tuple[Key, ...]) -> Document:
        """Tell an instruction among clean pictures, and the picture to draw."""
        segments: list[Text | Latent] = []
        for part in prompt:
            place = sum(isinstance(segment, Latent) for segment in segments)
            segments += self._turn(part) if isinstance(part, str) else (self._context(part, 0.0, key, place),)
        place = sum(isinstance(segment, Latent) for segment in segments)
        return self._dropped(Document((*segments, self._target(picture, key, place)), key))

    def outline(self, text: str, size: Size) -> Document:
        """Tell how long a captioned picture of a size is at most: its latent has a shape and no values."""
        return Document((self._text(text), Latent(self.outlined(size).mean, IMAGE)))

    def outlined(self, size: Size) -> Moments:
        """Return what a picture of a size becomes, a shape without values."""
        return Moments(torch.empty(self.latents.shape(size), device="meta"))

    def num_slots(self, size: Size) -> int:
        """Count the slots of a picture of a size, with what begins and ends it; 0 where the model knows no pictures."""
        return 0 if self.modality is None else 2 + self.modality.num_patches(self.latents.shape(size))

    def without_dropout(self) -> "Encoder":
        """Return an encoder that drops no text, so that documents are as long as they can be."""
        return replace(self, config=self.config.model_copy(update={"caption_dropout": 0.0}))

    def draw_prompt(self, text: str) -> Document:
        """Ask for a picture of a text."""
        return Document((self._text(text),), is_complete=False)

    def caption_prompt(self, picture: Picture) -> Document:
        """Ask for the caption of a picture."""
        return Document((self._context(picture, 0.0),), is_complete=False)

    def question_prompt(self, picture: Picture, asked: str) -> Document:
        """Ask a question about a picture."""
        told = self.template.tell([Turn[Shown]("person", (picture, asked.strip()))])
        return Document(self._segments(told), is_complete=False)

    def edit_prompt(self, picture: Picture, instruction: str) -> Document:
        """Ask for an edit of a picture."""
        return Document((self._context(picture, 0.0), self._text(instruction)), is_complete=False)

    def said(self, before: Document, line: str) -> Document:
        """Go on with what a person says next, as training tells a conversation: every statement has an end, and, in
        lines, a question about a picture is told without its mark.
        """
        before = _ended(before, self.turn_end)
        told = self._segments(said(self.template, (line,), _before(before, self.turn_end)))
        return Document((*before.segments, *told), before.key, is_complete=False)

    def shown(self, before: Document, picture: Picture) -> Document:
        """Go on with a picture to look at."""
        before = _ended(before, self.turn_end)
        told: list[Words | Look[Shown]] = shown(self.template, picture, _before(before, self.turn_end))
        return Document((*before.segments, *self._segments(told)), before.key, is_complete=False)

    @property
    def template(self) -> Template:
        """How turns are told."""
        return template_of(self.config.turns, self.config.template)

    @property
    def turn_end(self) -> tuple[int, ...]:
        """Tokens of what ends a statement: of a line break, where turns are lines."""
        return self.tokenizer.encode(self.template.end)

    def stop_tokens(self, told: Collection[str]) -> tuple[int, ...]:
        """Return the tokens that end an answer, beside EOS: what ended every statement in training, and nothing else.

        Questions of the built-in world end each in a line break, whose last token is returned where the tokenizer knows
        such. All else ends with its document, answers of one's own conversations too, which may have several lines:
        behind the end of one nothing is learnt but the document's. ``told`` are the tasks (``tasks.told_tasks``).
        """
        is_line = self.config.turns == "lines" and ASK in told and CHAT not in told
        last = self.turn_end[-1:] if is_line else ()
        return last if TURN_END in self.tokenizer.decode(last) else ()

    def _segments(self, told: Sequence[Words | Look[Shown]], key: tuple[Key, ...] | None = None) -> tuple[Segment, ...]:
        segments: list[Segment] = []
        for part in told:
            place = sum(isinstance(segment, Latent) for segment in segments)
            if isinstance(part, Words):
                end = self.tokenizer.encode(part.end) if part.end else ()
                segments.append(Text(self.tokenizer.encode(part.text) + end, part.is_target or key is None))
            elif part.is_target and key is not None:
                segments.append(self._target(part.picture, key, place))
            else:
                segments.append(self._context(part.picture, 0.0, key, place))
        return tuple(segments)

    def _text(self, text: str) -> Text:
        return Text(self.tokenizer.encode(text))

    def _statement(self, text: str) -> Text:
        return Text(self.tokenizer.encode(text) + self.turn_end)

    def _turn(self, text: str) -> tuple[Text, Text]:
        """Tell what a person says next: no target in its first token, for the model need not guess which turn a
        conversation takes and would put questions where a caption is wanted; a target from there on, for to guess
        what is asked about is to learn what is there.
        """
        return unforetold(self._text(text))

    def _target(self, picture: Shown, key: tuple[Key, ...], place: int = 0) -> Latent:
        return Latent(self._latent(picture, (*key, place)), IMAGE)

    def _context(self, picture: Shown, max_t: float, key: tuple[Key, ...] | None = None, place: int = 0) -> Latent:
        values = self._latent(picture, None if key is None else (*key, place))
        return Latent(values, IMAGE, is_target=max_t > 0, max_t=max_t)

    def _latent(self, picture: Shown, key: tuple[Key, ...] | None) -> Tensor:
        """Return the latent of a picture, (C, *axes) float32: where training sees draws of it, that of the visit and
        place of ``key``; in a prompt, which has no key, the mean.
        """
        moments = picture if isinstance(picture, Moments) else self.latents.moments(picture)
        if key is None or moments.std is None or not self.draws:
            return moments.mean
        return moments.draw(generator(self.seed, "posterior", *key))

    def _dropped(self, document: Document) -> Document:
        is_dropped = self._uniform("caption-dropout", document.key) < self.config.caption_dropout
        return null_prompt(document) if is_dropped else document

    def _uniform(self, stream: str, key: tuple[Key, ...]) -> float:
        return float(generator(self.seed, stream, *key).random())


def _ended(before: Document, end: tuple[int, ...]) -> Document:
    """Return a conversation with what its last statement lacks of its end: one that was cut short by its budget."""
    last = before.segments[-1] if before.segments else None
    is_open = isinstance(last, Text) and bool(end) and last.tokens[-len(end) :] != end
    return replace(before, segments=(*before.segments, Text(end))) if is_open else before


def _before(before: Document, end: tuple[int, ...]) -> Before:
    """Return what a turn follows that goes on with a document."""
    texts = [part.tokens for part in before.segments if isinstance(part, Text)]
    is_answered = any(tokens[-len(end) :] == end for tokens in texts) if end else bool(texts)
    pictures = [isinstance(part, Latent) for part in before.segments]
    return Before(not is_answered, any(pictures), is_open=pictures[-1:] == [True])
