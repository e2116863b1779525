"""The engine: many requests at once, text and latents interleaved, each in its own state.

Every step does one evaluation for every row: rows in text share a forward, rows that denoise latents of one shape
share a forward, and the unconditional branch of guidance rides in the same forward as its conditional twin. Rows
come and go between steps (continuous batching). It must not know training, data or evaluation.

    step:  admit ─▶ forwards, of which nothing counts yet ─▶ all returned: every row goes on by itself ─▶ events
                         └── one raises: the step has not happened          └── one fails: FailedEvent, the others go on
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping
from heapq import heappop, heappush
from threading import Lock

import torch
from torch import Tensor

from transfusion.diffusion import guidance
from transfusion.diffusion.process import Process
from transfusion.generate.check import check_request
from transfusion.generate.forwards import Forwards, Found, query_of
from transfusion.generate.options import (
    Event,
    FailedEvent,
    FinishedEvent,
    Generated,
    GenerationOptions,
    LatentEvent,
    PreviewEvent,
    TokenEvent,
)
from transfusion.generate.row import Phase, Row, Track, handed_out
from transfusion.generate.tickets import Box, Tickets
from transfusion.model.transfusion import TransfusionModel
from transfusion.segments import Document

STANDARDISED = (-10.0, 10.0)  # of latents of mean 0 and deviation 1 whose true range nobody knows


class Engine:
    """Generates for many requests side by side.

    A fault belongs to the request that caused it: what can be told at once is refused by ``submit``, what comes up
    later ends that request with a ``FailedEvent``. Any method may be called from any thread; steps wait for each other.
    """

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

        Raises:
            ValueError: ``max_rows`` is not positive.
        """
        if max_rows < 1:
            raise ValueError(f"max_rows is {max_rows}; expected at least 1, or no request would ever be at work")
        self.model = model.eval()
        self.process = process
        self.max_rows = max_rows
        self.ranges = dict(ranges or {})
        self._forwards = Forwards(model, process, precision)
        self.device = self._forwards.device
        self.cache = self._forwards.cache
        self._free = [0]
        self._rows: list[Row] = []
        self._tickets = Tickets()
        self._stepping = Lock()  # held by whoever touches rows or the cache

    def submit(self, prompt: Document, options: GenerationOptions) -> int:
        """Queue a request and return its ticket; ``step`` tells its events.

        Raises:
            KeyError: A modality is unknown.
            ValueError: What ``check_request`` names: a shape, a token id, or a latent that does not fit.
        """
        return self._submit(prompt, options, None)

    def _submit(self, prompt: Document, options: GenerationOptions, box: Box | None) -> int:
        check_request(prompt, options, self.model.vocabulary)
        return self._tickets.open(prompt, options, box)

    def cancel(self, ticket: int) -> None:
        """Forget a request, at work or waiting, and its events; an unknown ticket is ignored.

        Never waits: during a step the request is only marked, and its row leaves when the forwards have returned.
        """
        self._tickets.close(ticket)
        if self._stepping.acquire(blocking=False):
            try:
                self._reap()
            finally:
                self._stepping.release()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do and no event to tell."""
        return self._tickets.is_idle

    def run(self, requests: Iterable[tuple[Document, GenerationOptions]]) -> list[Generated]:
        """Generate for all requests and return the results in their order.

        Requests that others have submitted go on meanwhile; their events are kept for the next ``step``.

        Raises:
            Exception: The error of the first of these requests that fails, or of a forward; the rest of them are
                cancelled.
        """
        box: Box = deque()
        tickets: list[int] = []
        results: dict[int, Generated] = {}
        try:
            for prompt, options in requests:
                tickets.append(self._submit(prompt, options, box))
            while len(results) < len(tickets):
                self._pump(box)
                while box:
                    event = box.popleft()
                    if isinstance(event, FailedEvent):
                        raise event.error
                    if isinstance(event, FinishedEvent):
                        results[event.ticket] = event.result
        finally:
            for ticket in tickets:
                self.cancel(ticket)
        return [results[ticket] for ticket in tickets]

    async def stream(self, prompt: Document, options: GenerationOptions) -> AsyncGenerator[Event, None]:
        """Generate for one request and yield its events as they come; leaving the loop early cancels it.

        Many streams may share an engine: the step of one brings all of them on.

        Raises:
            Exception: The request's own error, or that of a forward.
        """
        box: Box = deque()
        ticket = self._submit(prompt, options, box)
        try:
            while True:
                while box:
                    event = box.popleft()
                    if isinstance(event, FailedEvent):
                        raise event.error
                    yield event
                    if isinstance(event, FinishedEvent):
                        return
                await asyncio.to_thread(self._pump, box)
        finally:
            self.cancel(ticket)

    def step(self) -> list[Event]:
        """Advance every row by one evaluation and return what happened, and what earlier calls of ``run`` kept.

        Events of requests that a ``run`` or a ``stream`` waits for go to those.

        Raises:
            Exception: A forward failed, for example for lack of memory; a note on the error names the tickets. The
                step has not happened: calling again gives what this call would have given. Where the error stays,
                cancel one of the tickets.
        """
        with self._stepping:
            self._take_turn()
        return self._tickets.read()

    def _pump(self, box: Box) -> None:
        """Do a step, unless that of another thread has filled the box meanwhile."""
        with self._stepping:
            if not box:
                self._take_turn()

    def _take_turn(self) -> None:
        """Do one evaluation for every row; rows and cache change only after all forwards have returned."""
        self._reap()
        try:
            self._admit()
            for row in self._rows:
                if row.phase is Phase.OPENING and row.twin is None and row.options.denoising.guidance.scale != 1:
                    row.open_twin(self._take_cache_row())
            found = self._forwards.evaluate(self._rows)
            self._forwards.keep(found.written)
        except BaseException:
            self._send_back()
            raise
        for row in self._rows:
            self._tickets.admit(row.ticket)
        self._reap()
        for row in list(self._rows):
            for event in self._follow(row, found):
                self._tickets.tell(event)
        self._reap()

    def _admit(self) -> None:
        """Give waiting requests a row as far as there are rows; they count as waiting until the forwards return."""
        for ticket, prompt, options in self._tickets.first_waiting(self.max_rows - len(self._rows)):
            vocabulary, place = self.model.vocabulary, self._take_cache_row()
            try:
                row = Row(ticket, prompt, options, vocabulary, Track(prompt, vocabulary, place))
                row.begin()
            except Exception as error:  # a request that cannot be laid out is no other's fault
                heappush(self._free, place)
                self._tickets.tell(FailedEvent(ticket, error))
            else:
                self._rows.append(row)

    def _send_back(self) -> None:
        """Take back what a step has begun: rows and twins of which nothing is written yet."""
        for row in list(self._rows):
            if row.main.written == 0:
                self._release(row)
            elif row.twin is not None and row.twin.written == 0:
                self._release_twin(row)

    def _take_cache_row(self) -> int:
        if not self._free:
            in_use = self.cache.num_rows
            self.cache.reserve(in_use + 1, self.cache.capacity)
            self._free = list(range(in_use, self.cache.num_rows))
        self.cache.clear(self._free[0])
        return heappop(self._free)  # the lowest, so that rows at work stay side by side

    def _reap(self) -> None:
        """Release the rows whose requests are over: finished, failed or cancelled."""
        for row in list(self._rows):
            if not self._tickets.is_open(row.ticket):
                self._release(row)

    def _release(self, row: Row) -> None:
        self._rows.remove(row)
        self._release_twin(row)
        heappush(self._free, row.main.cache_row)

    def _release_twin(self, row: Row) -> None:
        if row.twin is not None:
            heappush(self._free, row.twin.cache_row)
            row.twin = None

    def _follow(self, row: Row, found: Found) -> list[Event]:
        """Go on with one row after its forward; whatever fails here is its own fault and ends its request."""
        events: list[Event] = []
        try:
            if row.phase is Phase.TEXT:
                token = row.choose(found.logits[row.ticket])
                row.take(token)
                events.append(TokenEvent(row.ticket, token))
            elif row.phase is Phase.OPENING:
                row.start_denoising(self.process.schedule, self.device)
            elif row.phase is Phase.DENOISING:
                events += self._advance(row, *found.estimates[row.ticket])
            if row.phase is Phase.DONE:
                events.append(FinishedEvent(row.ticket, row.result()))
        except Exception as error:  # of whatever kind: the reader of this request gets it
            events.append(FailedEvent(row.ticket, error))
        return events

    def _advance(self, row: Row, x_0: Tensor, unconditional: Tensor | None) -> list[Event]:
        """Guide one estimate, hand it to the row's sampler, and tell what came of it."""
        query, options = query_of(row), row.options.denoising
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
            is_due = every and count % every == 0
            return [PreviewEvent(row.ticket, name, handed_out(x_0), count)] if is_due else []
        self._release_twin(row)
        row.close_latent(values)
        return [LatentEvent(row.ticket, name, handed_out(values))]
