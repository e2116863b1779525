"""The engine: many requests at once, text and latents interleaved, each in its own state.

Every step does one evaluation for every row: rows in text share a forward, rows that denoise latents of one shape
share a forward, and the unconditional branch of guidance rides in the same forward as its conditional twin. Rows
come and go between steps (continuous batching). It must not know training, data or evaluation.

    step:  admit ─▶ forwards, of which nothing counts yet ─▶ all returned: every row goes on by itself ─▶ events
                         └── one raises: the step has not happened          └── one fails: FailedEvent, the others go on

``step`` raises the error of a forward. ``run``, ``events`` and ``stream`` wait each for requests of their own: in a
step of theirs it ends the requests of that forward, and the step is done again for the others. An interrupt, as by
Ctrl-C, passes through all; a step that it cuts off after its forwards is brought to its end by the next one.

In company numbers change by roundings, for kernels go by the shapes of a forward: in float32 by far less than a level
of 255; in bfloat16 by about what bfloat16 itself is off the float32 picture, a few levels, or any number where the
model cannot decide between two pictures. With ``GenerationOptions.is_apart`` they do not change by a bit.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from heapq import heappop, heappush
from threading import Lock

import torch

from transfusion.diffusion.process import Process
from transfusion.generate.check import check_request
from transfusion.generate.follow import STANDARDISED as STANDARDISED
from transfusion.generate.follow import follow
from transfusion.generate.forwards import Forwards, Found
from transfusion.generate.options import (
    Event,
    FailedEvent,
    FinishedEvent,
    Generated,
    GenerationOptions,
)
from transfusion.generate.row import Phase, Row, Track
from transfusion.generate.tickets import Box, Tickets
from transfusion.model.transfusion import TransfusionModel
from transfusion.segments import Document


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
        self._found = Found()  # of a step under way; is left only by an interrupt
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
        """Generate for all requests, as ``events`` does, and return the results in their order."""
        results: dict[int, Generated] = {}
        with closing(self.events(requests)) as events:
            for number, event in events:
                if isinstance(event, FinishedEvent):
                    results[number] = event.result
        return [results[number] for number in sorted(results)]

    def events(self, requests: Iterable[tuple[Document, GenerationOptions]]) -> Generator[tuple[int, Event]]:
        """Generate for all requests and yield their events as they come, each with its request's place among them.

        Requests that others have submitted go on meanwhile; their events are kept for the next ``step``. Leaving the
        loop early cancels what is not finished.

        Raises:
            Exception: The error of the first of these requests that fails, by itself or in a forward; the rest of
                them are cancelled.
        """
        box: Box = deque()
        places: dict[int, int] = {}
        try:
            for place, (prompt, options) in enumerate(requests):
                places[self._submit(prompt, options, box)] = place
            num_finished = 0
            while num_finished < len(places):
                self._pump(box)
                for event in _read(box):
                    num_finished += isinstance(event, FinishedEvent)
                    yield places[event.ticket], event
        finally:
            for ticket in places:
                self.cancel(ticket)

    async def stream(self, prompt: Document, options: GenerationOptions) -> AsyncGenerator[Event, None]:
        """Generate for one request and yield its events as they come; leaving the loop early cancels it.

        Many streams may share an engine: the step of one brings all of them on.

        Raises:
            Exception: The request's own error, or that of a forward that it was in.
        """
        box: Box = deque()
        ticket = self._submit(prompt, options, box)
        try:
            while True:
                for event in _read(box):
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
            BaseException: An interrupt came. Calling again gives what this call would have given and has not told yet;
                a row that was cut off while it changed ends with a ``FailedEvent``.
        """
        with self._stepping:
            self._take_turn()
        return self._tickets.read()

    def _pump(self, box: Box) -> None:
        """Do a step, unless that of another thread has filled the box meanwhile.

        A forward that raises ends its requests of ``run`` and ``stream``, or, where it has none, all of its requests:
        nobody steps on for ever. Nothing is told of the step, which the next one does again for the others.
        """
        with self._stepping:
            if box:
                return
            try:
                self._take_turn()
            except Exception as error:
                if not self._forwards.under_way:
                    raise
                self._tickets.fail(self._forwards.under_way, error)
                self._reap()

    def _take_turn(self) -> None:
        """Do one evaluation for every row, or bring the last one to its end where an interrupt has cut it off."""
        self._reap()
        if not any(self._tickets.is_open(row.ticket) for row in self._found.rows):
            self._evaluate()
        self._go_on(self._found)
        self._found = Found()
        self._reap()

    def _evaluate(self) -> None:
        """Run the forwards; where one raises, or an interrupt comes, rows and cache are as they were."""
        self._forwards.under_way = ()
        try:
            self._admit()
            for row in self._rows:
                if row.phase is Phase.OPENING and row.twin is None and row.options.denoising.guidance.scale != 1:
                    with self._forwards.naming([row.ticket]):
                        row.open_twin(self._take_cache_row())
            self._found = self._forwards.evaluate(self._rows)
        except BaseException:
            self._found = Found()
            self._send_back()
            raise

    def _go_on(self, found: Found) -> None:
        """Go on with the rows after their forwards; an interrupt leaves in ``found.rows`` those still to go on."""
        self._forwards.keep(found.written)
        found.written.clear()  # before any row goes on: what rows append from here on is not in the cache
        for row in found.rows:
            self._tickets.admit(row.ticket)
        self._reap()
        while found.rows:
            row = found.rows[0]
            if self._tickets.is_open(row.ticket):
                for event in follow(row, found, self.process.schedule, self.device, self.ranges):
                    self._tickets.tell(event)
                if row.phase is not Phase.DENOISING:
                    self._release_twin(row)
            del found.rows[0]
            row.is_changing = False

    def _admit(self) -> None:
        """Give waiting requests a row as far as there are rows; they count as waiting until the forwards return."""
        for ticket, prompt, options in self._tickets.first_waiting(self.max_rows - len(self._rows)):
            vocabulary = self.model.vocabulary
            with self._forwards.naming([ticket]):
                place = self._take_cache_row()
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
        taken = {track.cache_row for row in self._rows for track in row.tracks}
        self._free = [place for place in range(self.cache.num_rows) if place not in taken]

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


def _read(box: Box) -> Iterator[Event]:
    """Take the events of a box, and raise the error of a request that failed."""
    while box:
        event = box.popleft()
        if isinstance(event, FailedEvent):
            raise event.error
        yield event
