"""The engine: many requests at once, text and latents interleaved, each in its own state.

Every step does one evaluation for every row: rows in text share a forward, rows that denoise latents of one shape
share a forward, and the unconditional branch of guidance rides in the same forward as its conditional twin. Rows
come and go between steps (continuous batching). It must not know training, data or evaluation.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import groupby

import torch
from torch import Tensor

from transfusion.diffusion import guidance
from transfusion.diffusion.process import Process
from transfusion.diffusion.samplers import Query
from transfusion.generate.options import (
    Event,
    FinishedEvent,
    Generated,
    GenerationOptions,
    LatentEvent,
    PreviewEvent,
    TokenEvent,
)
from transfusion.generate.row import Phase, Row, Track
from transfusion.layout import join, num_slots, stack
from transfusion.model.kv_cache import KVCache
from transfusion.model.transfusion import NoisedSpans, Outputs, TransfusionModel
from transfusion.segments import Document

STANDARDISED = (-10.0, 10.0)  # of latents of mean 0 and deviation 1 whose true range nobody knows


class Engine:
    """Generates for many requests side by side."""

    def __init__(
        self,
        model: TransfusionModel,
        process: Process,
        *,
        precision: torch.dtype = torch.float32,
        max_rows: int = 128,
        ranges: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """Bind a model.

        Args:
            model: Is put in evaluation mode.
            process: The diffusion process it was trained in.
            precision: Compute dtype of the network; samplers and logits are float32 always.
            max_rows: Most requests at work at once; others wait.
            ranges: Least and largest value of the latents of a modality, by its name; a modality without is taken
                for standardised, within ``STANDARDISED``.
        """
        self.model = model.eval()
        self.process = process
        self.precision = precision
        self.max_rows = max_rows
        self.ranges = dict(ranges or {})
        self.device = next(model.parameters()).device
        self.cache = KVCache(model.config.trunk, num_rows=1)
        self._free = [0]
        self._rows: list[Row] = []
        self._waiting: deque[tuple[int, Document, GenerationOptions]] = deque()
        self._next_ticket = 0
        self._is_streaming = False

    def submit(self, prompt: Document, options: GenerationOptions) -> int:
        """Queue a request and return its ticket.

        Raises:
            KeyError: A modality is unknown.
            ValueError: A shape is missing or does not fit, in the options or the prompt.
        """
        vocabulary = self.model.vocabulary
        num_slots(prompt, vocabulary)  # raises where the prompt does not fit
        for name, shape in options.shapes.items():
            vocabulary.modality(vocabulary.index(name)).grid(shape)
        if options.begin_with is not None and options.begin_with not in options.shapes:
            raise ValueError(f"begin_with {options.begin_with!r} has no entry in shapes {sorted(options.shapes)}")
        ticket, self._next_ticket = self._next_ticket, self._next_ticket + 1
        self._waiting.append((ticket, prompt, options))
        return ticket

    def cancel(self, ticket: int) -> None:
        """Forget a request, at work or waiting; an unknown ticket is ignored."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] != ticket)
        for row in [row for row in self._rows if row.ticket == ticket]:
            self._release(row)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._rows and not self._waiting

    def run(self, requests: Iterable[tuple[Document, GenerationOptions]]) -> list[Generated]:
        """Generate for all requests and return the results in their order."""
        tickets = [self.submit(prompt, options) for prompt, options in requests]
        results: dict[int, Generated] = {}
        while len(results) < len(tickets):
            for event in self.step():
                if isinstance(event, FinishedEvent):
                    results[event.ticket] = event.result
        return [results[ticket] for ticket in tickets]

    async def stream(self, prompt: Document, options: GenerationOptions) -> AsyncIterator[Event]:
        """Generate for one request and yield its events as they come; leaving the loop early cancels it.

        Raises:
            RuntimeError: Another stream is under way; each needs an engine of its own.
        """
        if self._is_streaming:
            raise RuntimeError("this engine streams another request; wait for its end, or make an Engine for each")
        ticket = self.submit(prompt, options)
        is_finished, self._is_streaming = False, True
        try:
            while not is_finished:
                for event in await asyncio.to_thread(self.step):
                    if event.ticket == ticket:
                        is_finished = isinstance(event, FinishedEvent)
                        yield event
        finally:
            self._is_streaming = False
            if not is_finished:
                self.cancel(ticket)

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Advance every row by one evaluation and return what happened."""
        self._admit()
        events: list[Event] = []
        text = [row for row in self._rows if row.phase is Phase.TEXT]
        opening = [row for row in self._rows if row.phase is Phase.OPENING]
        logits = self._write([row.main for row in text], wants_logits=True)
        self._write([row.main for row in opening], wants_logits=False)
        self._write([row.twin for row in opening if row.twin is not None], wants_logits=False)  # far shorter
        for row in opening:
            row.start_denoising(self.process.schedule, self.device)
        for row, row_logits in zip(text, logits, strict=True):
            token = row.choose(row_logits)
            row.take(token)
            self._open_twin(row)
            events.append(TokenEvent(row.ticket, token))
        denoising = [row for row in self._rows if row.phase is Phase.DENOISING]
        for _, group in groupby(sorted(denoising, key=_latent_key), key=_latent_key):
            events += self._denoise(list(group))
        for row in [row for row in self._rows if row.phase is Phase.DONE]:
            self._release(row)
            events.append(FinishedEvent(row.ticket, row.result()))
        return events

    def _admit(self) -> None:
        while self._waiting and len(self._rows) < self.max_rows:
            ticket, prompt, options = self._waiting.popleft()
            vocabulary = self.model.vocabulary
            row = Row(ticket, prompt, options, vocabulary, Track(prompt, vocabulary, self._take_cache_row()))
            if options.begin_with is not None:
                row.open_latent(vocabulary.index(options.begin_with))
                self._open_twin(row)
            elif options.max_tokens == 0:
                row.phase = Phase.DONE
            self._rows.append(row)

    def _take_cache_row(self) -> int:
        if not self._free:
            in_use = self.cache.num_rows
            self.cache.reserve(in_use + 1, self.cache.capacity)
            self._free = list(range(in_use, self.cache.num_rows))
        cache_row = heappop(self._free)  # the lowest, so that rows at work stay side by side
        self.cache.clear(cache_row)
        return cache_row

    def _open_twin(self, row: Row) -> None:
        if row.phase is Phase.OPENING and row.options.denoising.guidance.scale != 1:
            row.open_twin(self._take_cache_row())

    def _release(self, row: Row) -> None:
        for track in row.tracks:
            heappush(self._free, track.cache_row)
        self._rows.remove(row)

    def _write(self, tracks: Sequence[Track], *, wants_logits: bool) -> list[Tensor]:
        """Bring the cache up to date; single tokens and longer prefixes go in a forward each.

        Tracks go in the order of their rows of the cache, here and in denoising: rows side by side need no copy.
        """
        found: dict[int, Tensor] = {}
        ordered = sorted(tracks, key=_cache_row)
        single = [track for track in ordered if track.num_pending == 1]
        longer = [track for track in ordered if track.num_pending > 1]
        for group in (single, longer):
            if group:
                logits = self._extend(group, wants_logits=wants_logits)
                found |= {id(track): row for track, row in zip(group, logits, strict=wants_logits)}
        return [found[id(track)] for track in tracks] if wants_logits else []

    def _extend(self, tracks: Sequence[Track], *, wants_logits: bool) -> Tensor:
        """Write all pending slots of some tracks; return the (R, V) logits of their last slots, if wanted."""
        counts = torch.tensor([track.num_pending for track in tracks])
        width = int(counts.max())
        columns = stack([join([track.pending()], width) for track in tracks])
        columns = type(columns)(*(column.to(self.device) for column in columns))
        rows = torch.tensor([track.cache_row for track in tracks])
        view = self.cache.extend(rows, columns, counts)
        last = torch.arange(len(tracks)) * width + counts - 1
        text_slots = last.to(self.device) if wants_logits else torch.empty(0, dtype=torch.int64, device=self.device)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision is not torch.float32):
            outputs: Outputs = self.model(columns, self._pending_spans(tracks, width), text_slots, view.mask, view)
        for track in tracks:
            track.mark_written()
        return outputs.logits

    def _pending_spans(self, tracks: Sequence[Track], width: int) -> list[NoisedSpans]:
        """Group the clean latents of pending slots by modality and shape, at t = 0."""
        groups: dict[tuple[int, tuple[int, ...]], list[tuple[int, Tensor]]] = {}
        for row, track in enumerate(tracks):
            for span in track.spans:
                key = (span.modality, tuple(span.values.shape))
                groups.setdefault(key, []).append((row * width + span.start - track.written, span.values))
        result: list[NoisedSpans] = []
        for (modality, shape), found in sorted(groups.items()):
            count = self.model.vocabulary.modality(modality).num_patches(shape)
            starts = torch.tensor([start for start, _ in found])
            slots = (starts[:, None] + torch.arange(count)).to(self.device)
            values = torch.stack([values.to(self.device) for _, values in found])
            result.append(NoisedSpans(modality, values, torch.zeros(len(found), device=self.device), slots))
        return result

    def _denoise(self, rows: Sequence[Row]) -> list[Event]:
        """Do one evaluation for rows whose latents share modality and shape, both branches in one forward."""
        branches = [(row, track) for row in rows for track in (row.tracks if _needs_twin(row) else [row.main])]
        branches.sort(key=lambda branch: _cache_row(branch[1]))
        queries = [_query(row) for row, _ in branches]
        x_t = torch.stack([query.x_t for query in queries])
        t = torch.tensor([query.t for query in queries], dtype=torch.float32, device=self.device)
        x_0 = self._estimate([track for _, track in branches], _latent_key(rows[0])[0], x_t, t)
        found = {track.cache_row: estimate for (_, track), estimate in zip(branches, x_0, strict=True)}
        events: list[Event] = []
        for row in rows:
            unconditional = found.get(row.twin.cache_row) if row.twin is not None else None
            events += self._advance(row, found[row.main.cache_row], unconditional)
        return events

    def _estimate(self, tracks: Sequence[Track], modality: int, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict the clean latents (R, C, *axes) of the pending patch slots, reading the cache only."""
        columns = stack([track.pending() for track in tracks])
        columns = type(columns)(*(column.to(self.device) for column in columns))
        view = self.cache.peek(torch.tensor([track.cache_row for track in tracks]), columns)
        slots = torch.arange(columns.tokens.numel(), device=self.device).reshape(columns.tokens.shape)
        spans = [NoisedSpans(modality, x_t, t, slots)]
        nowhere = torch.empty(0, dtype=torch.int64, device=self.device)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision is not torch.float32):
            outputs: Outputs = self.model(columns, spans, nowhere, view.mask, view)
        return self.process.to_x_0(outputs.predictions[0], x_t, t)

    def _advance(self, row: Row, x_0: Tensor, unconditional: Tensor | None) -> list[Event]:
        """Guide one estimate, hand it to the row's sampler, and tell what came of it."""
        query, options = _query(row), row.options.denoising
        if unconditional is not None:
            x_0 = guidance.apply(x_0, unconditional, query.t, options.guidance)
        assert row.denoising is not None
        name = self.model.vocabulary.modality(row.denoising.modality).name
        least, largest = self.ranges.get(name, STANDARDISED) if options.clip is None else (-options.clip, options.clip)
        x_0 = x_0.clamp(least, largest)
        count = row.denoising.num_evaluations + 1
        values = row.advance(x_0)
        if values is None:
            every = row.options.preview_every
            return [PreviewEvent(row.ticket, name, x_0, count)] if every and count % every == 0 else []
        if row.twin is not None:
            heappush(self._free, row.twin.cache_row)
            row.twin = None
        row.close_latent(values)
        return [LatentEvent(row.ticket, name, values)]


def _cache_row(track: Track) -> int:
    return track.cache_row


def _query(row: Row) -> Query:
    assert row.denoising is not None
    return row.denoising.query


def _needs_twin(row: Row) -> bool:
    return guidance.needs_unconditional(row.options.denoising.guidance, _query(row).t)


def _latent_key(row: Row) -> tuple[int, tuple[int, ...]]:
    assert row.denoising is not None
    return row.denoising.modality, tuple(row.denoising.query.x_t.shape)
