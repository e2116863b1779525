"""Raw records → documents: the order of picture and caption, caption dropout, noise limits, question turns.

Responsible for how a record of each task is told to the model, in training and, through the prompt functions, at
use. It must not know where records come from, nor slots.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from transfusion.autoencoder.pixels import PixelConfig, PixelSpace
from transfusion.autoencoder.space import LatentSpace, Moments, Picture, Size
from transfusion.keyed import Key, generator
from transfusion.segments import Document, Latent, Modality, Text, null_prompt, unforetold
from transfusion.tokenizer import Tokenizer

IMAGE = "image"
TURN_END = "\n"
ASK = "ask"  # the task whose documents have turns
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

    @property
    def standardisation(self) -> PixelConfig:
        """How pixels are standardised; before a run has begun, the plain range."""
        return self.pixels or PixelConfig()


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
        with a line break, at which generation stops.
        """
        segments: list[Text | Latent] = [self._context(picture, 0.0, key)]
        segments += [self._statement(caption)] if caption is not None else []
        for asked, answer in turns:
            segments += [*self._turn(told_question(asked)), self._statement(f" {answer}")]
        return Document(tuple(segments), key)

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
        return Document((self._context(picture, 0.0), self._text(told_question(asked))), is_complete=False)

    def edit_prompt(self, picture: Picture, instruction: str) -> Document:
        """Ask for an edit of a picture."""
        return Document((self._context(picture, 0.0), self._text(instruction)), is_complete=False)

    def said(self, before: Document, line: str) -> Document:
        """Go on with what a person says next, as training tells a conversation: every statement ends with a line break,
        and a question about a picture is told without its mark.
        """
        is_about_picture = any(isinstance(part, Latent) for part in before.segments)
        told = self._text(told_question(line) if is_about_picture and line.endswith("?") else line)
        return Document((*before.segments, *self._missing_end(before), told), before.key, is_complete=False)

    def shown(self, before: Document, picture: Picture) -> Document:
        """Go on with a picture to look at."""
        segments = (*before.segments, *self._missing_end(before), self._context(picture, 0.0))
        return Document(segments, before.key, is_complete=False)

    @property
    def turn_end(self) -> tuple[int, ...]:
        """Tokens of the line break that ends a statement."""
        return self.tokenizer.encode(TURN_END)

    def stop_tokens(self, told: Collection[str]) -> tuple[int, ...]:
        """Return the tokens that end an answer, beside EOS: what ended every statement in training, and nothing else.

        Args:
            told: The tasks that the model was told, see ``tasks.told_tasks``. Conversations end each statement with a
                line break; captions alone, pictures and plain text end with their document.

        Returns:
            The last token of a statement's end, where the tokenizer knows line breaks and not only blanks.
        """
        last = self.turn_end[-1:] if ASK in told else ()
        return last if TURN_END in self.tokenizer.decode(last) else ()

    def _missing_end(self, before: Document) -> tuple[Text, ...]:
        """Return the line break that the last statement lacks: one that was cut short by its budget."""
        last, end = before.segments[-1] if before.segments else None, self.turn_end
        is_open = isinstance(last, Text) and bool(end) and last.tokens[-len(end) :] != end
        return (Text(end),) if is_open else ()

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


def told_question(asked: str) -> str:
    """Tell a question without its mark, so that the word asked about is the last before the answer: a small model
    looks a thing up at its name, and needs hundreds of steps more to do it one token later.
    """
    return asked.strip().rstrip("?").rstrip()
