"""The state of one request: its document so far, its slots in the cache, and where it stands.

    TEXT ──token == BEGIN──▶ OPENING ──prefix written──▶ DENOISING ──x_0──▶ TEXT ──EOS or budget──▶ DONE

It must not know the network, nor other rows.
"""

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from enum import Enum

import torch
from torch import Tensor

from transfusion.diffusion.samplers import Query, start
from transfusion.diffusion.schedule import Schedule, sampling_times
from transfusion.generate.options import Generated, GenerationOptions
from transfusion.generate.token_sampling import draw_token
from transfusion.keyed import generator, normal
from transfusion.layout import Columns, Writer
from transfusion.segments import Document, Latent, Segment, Text, Vocabulary, null_prompt


class Phase(Enum):
    """Where a row stands."""

    TEXT = "text"
    OPENING = "opening"
    DENOISING = "denoising"
    DONE = "done"


@dataclass
class PendingSpan:
    """A finished latent whose slots are not in the cache yet."""

    start: int
    modality: int
    values: Tensor


class Track:
    """The slots of one sequence, and its row of the cache; slots behind ``written`` are still to be written."""

    def __init__(self, document: Document, vocabulary: Vocabulary, cache_row: int) -> None:
        """Lay out the prompt."""
        self.writer = Writer(vocabulary)
        self.cache_row = cache_row
        self.written = 0
        self._pending: Columns | None = None
        self.spans = [
            PendingSpan(found.start, vocabulary.index(found.latent.modality), found.latent.values)
            for found in self.writer.document(document)
        ]

    @property
    def num_pending(self) -> int:
        """Number of slots that the cache lacks."""
        return len(self.writer) - self.written

    def pending(self) -> Columns:
        """Return the columns of the slots that the cache lacks, made once for all evaluations of a latent."""
        if self._pending is None or len(self._pending.tokens) != self.num_pending:
            self._pending = self.writer.columns(self.written)
        return self._pending

    def mark_written(self) -> None:
        """Note that the cache holds all slots."""
        self.written = len(self.writer)
        self._pending = None
        self.spans = []


@dataclass
class Denoising:
    """A latent under way."""

    modality: int
    steps: Generator[Query, Tensor, Tensor]
    query: Query
    num_evaluations: int = 0


@dataclass
class Row:
    """One request; ``is_changing`` stays true where an interrupt has cut a change of its state off."""

    ticket: int
    prompt: Document
    options: GenerationOptions
    vocabulary: Vocabulary
    main: Track
    twin: Track | None = None
    denoising: Denoising | None = None
    phase: Phase = Phase.TEXT
    generated: list[Segment] = field(default_factory=list[Segment])
    tokens: list[int] = field(default_factory=list[int])
    num_tokens: int = 0
    num_latents: int = 0
    is_ended: bool = False
    is_changing: bool = False

    @property
    def document(self) -> Document:
        """The prompt and all that is generated so far."""
        tail = (Text(tuple(self.tokens)),) if self.tokens else ()
        return Document((*self.prompt.segments, *self.generated, *tail), self.prompt.key, is_complete=False)

    def result(self) -> Generated:
        """Return the outcome of a finished row."""
        document = self.document
        return Generated(document, document.segments[len(self.prompt.segments) :], self.is_ended)

    def shape(self, modality: int) -> tuple[int, ...]:
        """Return the shape of a latent to generate.

        Raises:
            ValueError: The request names none.
        """
        name = self.vocabulary.modality(modality).name
        if name not in self.options.shapes:
            raise ValueError(f"options.shapes has no shape for {name!r}; give one such as {{{name!r}: (C, ...)}}")
        return self.options.shapes[name]

    def begin(self) -> None:
        """Start as the options say: with a latent, with text, or, where the budget is empty, not at all."""
        if self.options.begin_with is not None and self.options.max_latents > 0:
            self.open_latent(self.vocabulary.index(self.options.begin_with))
        elif self.options.max_tokens == 0:
            self.phase = Phase.DONE

    def choose(self, logits: Tensor) -> int:
        """Draw the next token from (V,) logits among those that may follow."""
        allowed = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        allowed[: self.vocabulary.text_size] = True
        allowed[self.vocabulary.eos] = True
        if self.num_latents < self.options.max_latents:
            for name in self.options.shapes:
                allowed[self.vocabulary.begin_token(self.vocabulary.index(name))] = True
        uniform = float(generator(self.options.seed, "token", len(self.main.writer)).random())
        return draw_token(logits.masked_fill(~allowed, -torch.inf), self.options.tokens, uniform)

    def take(self, token: int) -> None:
        """Go on after a token was drawn."""
        self.is_changing = True
        modality = self.vocabulary.begun_by(token)
        if modality:
            self.open_latent(modality)
        elif token == self.vocabulary.eos:
            self.is_ended = True
            self.phase = Phase.DONE
        else:
            self.main.writer.text([token])
            self.tokens.append(token)
            self.num_tokens += 1
            self.is_ended = token in self.options.stop_tokens
            if self.is_ended or self.num_tokens >= self.options.max_tokens:
                self.phase = Phase.DONE

    def open_latent(self, modality: int) -> None:
        """Begin a latent: its BEGIN slot is written before it is denoised."""
        self._close_text()
        self.main.writer.begin(modality)
        self.denoising = None
        self.phase = Phase.OPENING

    def open_twin(self, cache_row: int) -> None:
        """Build the second branch of the latent that is being opened: without text, or with the negative one."""
        document = null_prompt(self.document)
        negative = Text(self.options.negative)
        document = replace(document, segments=(*document.segments, *((negative,) if negative.tokens else ())))
        self.twin = Track(document, self.vocabulary, cache_row)
        self.twin.writer.begin(self.opened_modality)

    @property
    def opened_modality(self) -> int:
        """Index of the modality whose BEGIN slot comes last."""
        return self.vocabulary.begun_by(int(self.main.writer.columns(len(self.main.writer) - 1).tokens))

    def start_denoising(self, schedule: Schedule, device: torch.device) -> None:
        """Write the patch slots and start the sampler from keyed noise."""
        modality, options, number = self.opened_modality, self.options, self.num_latents
        shape = self.shape(modality)
        count = self.vocabulary.modality(modality).num_patches(shape)

        def noise(step: int) -> Tensor:
            return normal(shape, options.seed, "sampler", number, step).to(device)

        steps = start(
            options.denoising.sampler,
            normal(shape, options.seed, "start", number).to(device),
            sampling_times(options.denoising.num_steps, options.denoising.shift),
            schedule,
            noise,
        )
        denoising = Denoising(modality, steps, next(steps))
        self.is_changing = True
        for track in self.tracks:
            track.writer.patches(count, modality)
        self.denoising = denoising
        self.phase = Phase.DENOISING

    @property
    def tracks(self) -> list[Track]:
        """The conditional track, and the unconditional one while there is one."""
        return [self.main] if self.twin is None else [self.main, self.twin]

    def advance(self, estimate: Tensor) -> Tensor | None:
        """Give the sampler the (C, *axes) clean estimate it asked for; return the latent when it is finished."""
        assert self.denoising is not None
        self.is_changing = True
        self.denoising.num_evaluations += 1
        try:
            self.denoising.query = self.denoising.steps.send(estimate)
        except StopIteration as stop:
            return stop.value
        return None

    def close_latent(self, values: Tensor) -> None:
        """Commit a finished latent and return to text."""
        assert self.denoising is not None
        modality = self.denoising.modality
        self.main.spans.append(PendingSpan(self.main.written, modality, values))
        self.main.writer.end(modality)
        self.generated.append(Latent(handed_out(values, "cpu"), self.vocabulary.modality(modality).name))
        self.denoising = None
        self.num_latents += 1
        self.phase = Phase.DONE if self.num_tokens >= self.options.max_tokens else Phase.TEXT

    def _close_text(self) -> None:
        if self.tokens:
            self.generated.append(Text(tuple(self.tokens)))
            self.tokens = []


def handed_out(values: Tensor, device: torch.device | str | None = None) -> Tensor:
    """Copy a tensor for the caller: an ordinary one, to train on or to write to, wherever the engine was called."""
    with torch.inference_mode(False):
        return values.to(device=device, copy=True)
