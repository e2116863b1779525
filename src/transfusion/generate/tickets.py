"""Which requests are open, which of them wait, and the events that nobody has read yet.

Every method may be called from any thread at any moment. It must not know rows, the cache or the network.
"""

from collections import deque
from collections.abc import Sequence
from itertools import islice
from threading import Lock
from typing import NamedTuple

from transfusion.generate.options import Event, FailedEvent, FinishedEvent, GenerationOptions, RequestCancelled
from transfusion.segments import Document

Box = deque[Event]  # events of the requests of one reader


class Request(NamedTuple):
    """What was submitted."""

    ticket: int
    prompt: Document
    options: GenerationOptions


class Tickets:
    """The requests between ``submit`` and their last event; a ticket that is closed has no events any more."""

    def __init__(self) -> None:
        """Begin with no request."""
        self._lock = Lock()
        self._next = 0
        self._boxes: dict[int, Box] = {}  # of every open request: where its events go
        self._waiting: dict[int, Request] = {}
        self._unread: Box = deque()

    def open(self, prompt: Document, options: GenerationOptions, box: Box | None = None) -> int:
        """Queue a request and return its ticket; its events go to ``box``, or to whoever calls ``read`` next."""
        with self._lock:
            ticket, self._next = self._next, self._next + 1
            self._boxes[ticket] = self._unread if box is None else box
            self._waiting[ticket] = Request(ticket, prompt, options)
            return ticket

    def close(self, ticket: int) -> None:
        """Forget a request and its events; the reader of a box is told that the request was cancelled."""
        with self._lock:
            self._waiting.pop(ticket, None)
            box = self._boxes.pop(ticket, self._unread)
            if box is not self._unread:
                box.append(FailedEvent(ticket, RequestCancelled(f"request {ticket} was cancelled")))
            kept = [event for event in self._unread if event.ticket != ticket]
            self._unread.clear()
            self._unread.extend(kept)

    def is_open(self, ticket: int) -> bool:
        """Return whether a request is neither finished nor failed nor cancelled."""
        with self._lock:
            return ticket in self._boxes

    @property
    def is_idle(self) -> bool:
        """Whether no request is open and no event unread."""
        with self._lock:
            return not self._boxes and not self._unread

    def first_waiting(self, count: int) -> list[Request]:
        """Return up to ``count`` requests that have waited longest; they wait on until ``admit``."""
        with self._lock:
            return list(islice(self._waiting.values(), max(count, 0)))

    def admit(self, ticket: int) -> None:
        """Note that a request waits no longer."""
        with self._lock:
            self._waiting.pop(ticket, None)

    def tell(self, event: Event) -> None:
        """Hand an event to its reader; the last one of a request closes it."""
        with self._lock:
            if event.ticket not in self._boxes:
                return
            self._boxes[event.ticket].append(event)
            if isinstance(event, FinishedEvent | FailedEvent):
                del self._boxes[event.ticket]
                self._waiting.pop(event.ticket, None)

    def fail(self, tickets: Sequence[int], error: Exception) -> None:
        """End requests by an error: those whose reader has a box, or, where none has one, all that are named."""
        with self._lock:
            boxed = [ticket for ticket in tickets if self._boxes.get(ticket, self._unread) is not self._unread]
        for ticket in boxed or tickets:
            self.tell(FailedEvent(ticket, error))

    def read(self) -> list[Event]:
        """Take the events that went to no box, oldest first."""
        with self._lock:
            events = list(self._unread)
            self._unread.clear()
            return events
