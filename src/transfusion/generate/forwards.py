"""The forwards of one step of the engine: writing pending slots, and estimating latents, over rows and the cache.

They change nothing that another could see: rows stay as they are, and what is put into the cache counts only once
``keep`` is told. So a step of which one forward raises may be repeated. It must not know what follows from a forward:
samplers, token draws, events.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from transfusion.diffusion import guidance
from transfusion.diffusion.process import Process
from transfusion.diffusion.samplers import Query
from transfusion.generate.row import Phase, Row, Track
from transfusion.layout import Columns, join, stack
from transfusion.model.kv_cache import CacheView, KVCache
from transfusion.model.transfusion import NoisedSpans, Outputs, TransfusionModel


@dataclass
class Found:
    """What the forwards of a step gave.

    Attributes:
        rows: Those that have not gone on yet.
        written: Tracks whose pending slots the cache holds, once ``keep`` is told.
        logits: (V,) float32 of every row in text, by ticket.
        estimates: (C, *axes) clean estimate of every row that denoises, and the unconditional one where it was
            needed, by ticket.
    """

    rows: list[Row] = field(default_factory=list[Row])
    written: list[Track] = field(default_factory=list[Track])
    logits: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    estimates: dict[int, tuple[Tensor, Tensor | None]] = field(default_factory=dict[int, tuple[Tensor, Tensor | None]])


class Forwards:
    """A model with the cache of its tracks; tensors go to the model's device here.

    Tracks go in the order of their rows of the cache: rows side by side need no copy. A row that is apart shares no
    forward: nothing that is computed for it, nor the shape of anything, depends on the others. ``under_way`` has the
    tickets of the forward under way, or of the one that has raised.
    """

    def __init__(self, model: TransfusionModel, process: Process, precision: torch.dtype) -> None:
        """Bind a model and begin an empty cache."""
        self.model = model
        self.process = process
        self.precision = precision
        self.device = model.device
        self.cache = KVCache(model.config.trunk, num_rows=1)
        self.under_way: tuple[int, ...] = ()

    def evaluate(self, rows: Sequence[Row]) -> Found:
        """Run what each row needs next.

        Raises:
            Exception: What the model or the device raises, with a note that names the tickets.
        """
        found = Found(list(rows))
        self._evaluate([row for row in rows if not row.options.is_apart], found)
        for row in rows:
            if row.options.is_apart:
                self._evaluate([row], found)
        return found

    def _evaluate(self, rows: Sequence[Row], found: Found) -> None:
        """Run what rows need next in as few forwards as can be, and note it in ``found``."""
        text = [(row.ticket, row.main) for row in rows if row.phase is Phase.TEXT]
        opening = [row for row in rows if row.phase is Phase.OPENING]
        denoising = [row for row in rows if row.phase is Phase.DENOISING]
        mains = [(row.ticket, row.main) for row in opening]
        twins = [(row.ticket, row.twin) for row in opening if row.twin is not None]
        found.written += [track for _, track in (*text, *mains, *twins)]
        found.logits |= self._write(text, wants_logits=True)
        self._write(mains, wants_logits=False)
        self._write(twins, wants_logits=False)  # far shorter
        for _, group in groupby(sorted(denoising, key=_latent_key), key=_latent_key):
            alike = list(group)
            with self.naming([row.ticket for row in alike]):
                found.estimates |= self._denoise(alike)

    def keep(self, tracks: Sequence[Track]) -> None:
        """Note that the cache holds all slots of tracks that were written; an interrupted call may be repeated."""
        if tracks:
            places = torch.tensor([track.cache_row for track in tracks])
            ends = torch.tensor([len(track.writer) for track in tracks])
            self.cache.advance(places, ends - self.cache.lengths[places])
        for track in tracks:
            track.mark_written()

    @contextmanager
    def naming(self, tickets: Sequence[int]) -> Generator[None]:
        """Note for whom something is done, and, where it raises, on the error."""
        self.under_way = tuple(tickets)
        try:
            yield
        except Exception as error:
            error.add_note(f"in the engine's forward of tickets {', '.join(map(str, tickets))}")
            raise
        self.under_way = ()

    def _write(self, owned: Sequence[tuple[int, Track]], *, wants_logits: bool) -> dict[int, Tensor]:
        """Run all pending slots of tickets' tracks; single tokens and longer prefixes go in a forward each.

        Returns:
            The (V,) logits of each track's last slot by its ticket, if wanted.
        """
        ordered = sorted(owned, key=lambda pair: _cache_row(pair[1]))
        single = [pair for pair in ordered if pair[1].num_pending == 1]
        longer = [pair for pair in ordered if pair[1].num_pending > 1]
        found: dict[int, Tensor] = {}
        for group in (single, longer):
            if group:
                tickets = [ticket for ticket, _ in group]
                with self.naming(tickets):
                    logits = self._extend([track for _, track in group], wants_logits=wants_logits)
                found |= dict(zip(tickets, logits, strict=wants_logits))
        return found

    def _denoise(self, rows: Sequence[Row]) -> dict[int, tuple[Tensor, Tensor | None]]:
        """Do one evaluation for rows whose latents share modality and shape, both branches in one forward."""
        branches = [(row, track) for row in rows for track in (row.tracks if _needs_twin(row) else [row.main])]
        if len(rows) > 1:  # of one row the order is its own, and not that of the places that others have left
            branches.sort(key=lambda branch: _cache_row(branch[1]))
        queries = [query_of(row) for row, _ in branches]
        x_t = torch.stack([query.x_t for query in queries])
        t = torch.tensor([query.t for query in queries], dtype=torch.float32).to(self.device)
        x_0 = self._estimate([track for _, track in branches], _latent_key(rows[0])[0], x_t, t)
        found = {track.cache_row: estimate for (_, track), estimate in zip(branches, x_0, strict=True)}
        return {
            row.ticket: (found[row.main.cache_row], found.get(row.twin.cache_row) if row.twin is not None else None)
            for row in rows
        }

    def _estimate(self, tracks: Sequence[Track], modality: int, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict the clean latents (R, C, *axes) of the pending patch slots, reading the cache only."""
        columns = self._moved(stack([track.pending() for track in tracks]))
        view = self.cache.peek(torch.tensor([track.cache_row for track in tracks]), columns)
        slots = torch.arange(columns.tokens.numel(), device=self.device).reshape(columns.tokens.shape)
        nowhere = torch.empty(0, dtype=torch.int64, device=self.device)
        outputs = self._run(columns, [NoisedSpans(modality, x_t, t, slots)], nowhere, view)
        return self.process.to_x_0(outputs.predictions[0], x_t, t)

    def _extend(self, tracks: Sequence[Track], *, wants_logits: bool) -> Tensor:
        """Run all pending slots of some tracks; return the (R, V) logits of their last slots, if wanted."""
        counts = torch.tensor([track.num_pending for track in tracks])
        width = int(counts.max())
        columns = self._moved(stack([join([track.pending()], width) for track in tracks]))
        view = self.cache.peek(torch.tensor([track.cache_row for track in tracks]), columns)
        last = torch.arange(len(tracks)) * width + counts - 1
        text_slots = last.to(self.device) if wants_logits else torch.empty(0, dtype=torch.int64, device=self.device)
        return self._run(columns, self._pending_spans(tracks, width), text_slots, view).logits

    def _run(self, columns: Columns, spans: Sequence[NoisedSpans], text_slots: Tensor, view: CacheView) -> Outputs:
        is_low = self.precision is not torch.float32
        with torch.inference_mode(), torch.autocast(self.device.type, self.precision, enabled=is_low):
            # Not as compiled for training: views of the cache have ever new shapes, which would spend the compiler's
            # limit of versions, and training would go on without.
            return self.model.forward(columns, spans, text_slots, view.mask, view)

    def _moved(self, columns: Columns) -> Columns:
        return Columns(*(column.to(self.device) for column in columns))

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


def query_of(row: Row) -> Query:
    """Return what the sampler of a row that denoises wants estimated."""
    assert row.denoising is not None
    return row.denoising.query


def _cache_row(track: Track) -> int:
    return track.cache_row


def _needs_twin(row: Row) -> bool:
    return guidance.needs_unconditional(row.options.denoising.guidance, query_of(row).guided_t)


def _latent_key(row: Row) -> tuple[int, tuple[int, ...]]:
    assert row.denoising is not None
    return row.denoising.modality, tuple(row.denoising.query.x_t.shape)
