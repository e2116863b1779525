"""What follows for one row from the forwards of a step. It must not know other rows, nor the cache."""

from collections.abc import Mapping

import torch
from torch import Tensor

from transfusion.diffusion import guidance
from transfusion.diffusion.schedule import Schedule
from transfusion.generate.forwards import Found, query_of
from transfusion.generate.options import Event, FailedEvent, FinishedEvent, LatentEvent, PreviewEvent, TokenEvent
from transfusion.generate.row import Phase, Row, handed_out

STANDARDISED = (-10.0, 10.0)  # of latents of mean 0 and deviation 1 whose true range nobody knows
Ranges = Mapping[str, tuple[float, float]]


def follow(row: Row, found: Found, schedule: Schedule, device: torch.device, ranges: Ranges) -> list[Event]:
    """Go on with one row after its forward; whatever fails here is its own fault and ends its request.

    An interrupt passes. Until ``row.is_changing`` it has changed nothing, and the same call may be made again; from
    there on nobody knows how far the row has come, and another call ends its request.
    """
    events: list[Event] = []
    try:
        if row.is_changing:
            raise RuntimeError(f"an interrupt came while request {row.ticket} was changing; submit it again")
        if row.phase is Phase.TEXT:
            token = row.choose(found.logits[row.ticket])
            row.take(token)
            events.append(TokenEvent(row.ticket, token))
        elif row.phase is Phase.OPENING:
            row.start_denoising(schedule, device)
        elif row.phase is Phase.DENOISING:
            events += _advance(row, *found.estimates[row.ticket], ranges)
        if row.phase is Phase.DONE:
            events.append(FinishedEvent(row.ticket, row.result()))
    except Exception as error:  # of whatever kind: the reader of this request gets it
        events.append(FailedEvent(row.ticket, error))
    return events


def _advance(row: Row, x_0: Tensor, unconditional: Tensor | None, ranges: Ranges) -> list[Event]:
    """Guide one estimate, hand it to the row's sampler, and tell what came of it."""
    query, options = query_of(row), row.options.denoising
    if unconditional is not None:
        x_0 = guidance.apply(x_0, unconditional, query.guided_t, options.guidance)
    assert row.denoising is not None
    name = row.vocabulary.modality(row.denoising.modality).name
    least, largest = ranges.get(name, STANDARDISED) if options.clip is None else (-options.clip, options.clip)
    x_0 = x_0.clamp(least, largest)
    count = row.denoising.num_evaluations + 1
    values = row.advance(x_0)
    if values is None:
        every = row.options.preview_every
        is_due = every and count % every == 0
        return [PreviewEvent(row.ticket, name, handed_out(x_0), count)] if is_due else []
    row.close_latent(values)
    return [LatentEvent(row.ticket, name, handed_out(values))]
