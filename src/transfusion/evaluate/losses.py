"""Losses of any model on any source: the objective's own, at keyed times and noise."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from transfusion.batch import Batch, collate
from transfusion.data.errors import BrokenPicture, DataError
from transfusion.data.limit import Limit
from transfusion.data.loader import Source
from transfusion.data.mixture import MixtureSource, share
from transfusion.data.pack import plan_rows
from transfusion.data.splits import spread
from transfusion.layout import num_slots
from transfusion.model.transfusion import TransfusionModel
from transfusion.objective import TEXT, KeyedDraw, ObjectiveConfig, TransfusionObjective
from transfusion.segments import Document
from transfusion.tokenizer import Tokenizer

BEYOND_ANY_RUN = 10**12
DOCUMENTS_AT_ONCE = 32
MIN_ROW = 256  # shorter documents share a row of so many slots
_log = logging.getLogger(__name__)


class Measured(NamedTuple):
    """A loss over documents: the sum of its terms, and how many there are."""

    total: float
    num_terms: int


def evaluate_losses(
    model: TransfusionModel,
    objective: TransfusionObjective,
    source: Source,
    *,
    num_documents: int,
    seed: int,
    limit: Limit | None = None,
) -> dict[str, float]:
    """Return the mean of every loss over a source's documents: held out if the source is, or has no end.

    The documents are packed into rows, which moves no number but by the order of sums.

    Args:
        model: The network.
        objective: The losses.
        source: Where documents come from; an endless source is read far beyond any run.
        num_documents: How many at most, spread evenly over a source that ends.
        seed: Key of times and noise, which are the same whenever the same document is measured.
        limit: What becomes of documents that are longer than a row: they are cut as in training, or left out; None:
            they are measured whole.

    Returns:
        Text in nats per token, a modality in mean squared error per latent value; what the documents lack is absent. Of
        a mixture, those over the documents of all its sources, of each as many, and ``"NAME/text"`` of each source.
    """
    measure = partial(_measured, model, objective, seed=seed, limit=limit)
    if not isinstance(source, MixtureSource):
        return _means(measure(source, num_documents))
    most = share(num_documents, len(source.sources))
    parts = {name: measure(part, most) for name, part in source.each.items()}
    each = {f"{name}/{loss}": mean for name, part in parts.items() for loss, mean in _means(part).items()}
    return _means(*parts.values()) | each


def of_all(losses: Mapping[str, float]) -> dict[str, float]:
    """Return the losses over the documents of all sources, without those of each source of a mixture."""
    return {name: value for name, value in losses.items() if "/" not in name}


def _means(*measured: Mapping[str, Measured]) -> dict[str, float]:
    """Return the mean of every loss over the documents of several measurements together."""
    names = dict.fromkeys(name for each in measured for name in each)
    parts = {name: [each[name] for each in measured if name in each] for name in names}
    sums = {name: Measured(sum(p.total for p in part), sum(p.num_terms for p in part)) for name, part in parts.items()}
    return {name: found.total / found.num_terms for name, found in sums.items() if found.num_terms}


@torch.inference_mode()
def _measured(
    model: TransfusionModel,
    objective: TransfusionObjective,
    source: Source,
    num_documents: int,
    *,
    seed: int,
    limit: Limit | None,
) -> dict[str, Measured]:
    """Measure documents of one source: see ``evaluate_losses``."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    draw = KeyedDraw(objective.process.config, seed)
    places = _places(source.size, num_documents)
    for start in range(0, len(places), DOCUMENTS_AT_ONCE):
        told = list(_documents(source, places[start : start + DOCUMENTS_AT_ONCE]))
        fitted = told if limit is None else [_fitted(document, limit) for document in told]
        for batch in _batches([document for document in fitted if document is not None], model, draw):
            for name, loss in objective(model, batch.to(model.device)).items():
                sums[name] = sums.get(name, 0.0) + float(loss.sum)
                counts[name] = counts.get(name, 0) + loss.count
    return {name: Measured(sums[name], counts[name]) for name in sums}


@torch.inference_mode()
def bits_per_byte(
    model: TransfusionModel,
    objective: TransfusionObjective,
    source: Source,
    tokenizer: Tokenizer,
    *,
    num_documents: int,
    seed: int,
) -> float | None:
    """Return how many bits a model needs for each byte of UTF-8 of the text that it is to foretell.

    Other than nats per token, it compares models of different tokenizers. Text is counted that is a target; the end of
    a document and the beginning of a picture, which are targets without a byte, add neither bits nor bytes.

    Args:
        model: The network.
        objective: The losses.
        source: Where documents come from, as for ``evaluate_losses``.
        tokenizer: Says what a token's bytes are.
        num_documents: As for ``evaluate_losses``.
        seed: Key of times and noise of the pictures that are seen.

    Returns:
        Bits per byte, or None where no text is a target.
    """
    nats, num_bytes = 0.0, 0
    draw = KeyedDraw(objective.process.config, seed)
    for document in _documents(source, _places(source.size, num_documents)):
        batch = collate([[document]], model.vocabulary, draw, num_slots(document, model.vocabulary))
        targets = batch.columns.targets.flatten()[batch.text_slots]
        is_text = targets < model.vocabulary.text_size
        alone = replace(batch, text_slots=batch.text_slots[is_text]).to(model.device)
        nats += float(objective(model, alone)[TEXT].sum)
        num_bytes += tokenizer.num_bytes(targets[is_text].tolist())
    return nats / math.log(2) / num_bytes if num_bytes else None


def total_loss(losses: Mapping[str, float], config: ObjectiveConfig) -> float:
    """Return the sum of mean losses, each by its weight in training (paper Eq. 4)."""
    return sum(config.weight(name) * value for name, value in losses.items())


def _fitted(document: Document, limit: Limit) -> Document | None:
    try:
        return limit.fitted(document)
    except DataError:  # training is refused for such a one; here it is only a document less
        return None


def _batches(documents: Sequence[Document], model: TransfusionModel, draw: KeyedDraw) -> Iterator[Batch]:
    """Pack documents into batches: one of short rows, and each document that is longer than those by itself."""
    lengths = [num_slots(document, model.vocabulary) for document in documents]
    is_short = [length <= MIN_ROW for length in lengths]
    short = [place for place, fits in enumerate(is_short) if fits]
    rows = plan_rows([lengths[place] for place in short], MIN_ROW)
    packed = [[short[place] for place in row] for row in rows]
    for batch in ([packed] if packed else []) + [[[place]] for place, fits in enumerate(is_short) if not fits]:
        longest = max(sum(lengths[place] for place in row) for row in batch)
        yield collate([[documents[place] for place in row] for row in batch], model.vocabulary, draw, longest)


def _documents(source: Source, places: Sequence[int]) -> Iterator[Document]:
    """Yield documents; those whose pictures are broken are passed over, as in training."""
    for index in places:
        try:
            yield source.document(index, 0)
        except BrokenPicture as error:
            _log.warning("%s is not measured: %s", source.name(index), error)


def _places(size: int | None, count: int) -> list[int]:
    """Return which documents to read."""
    if size is None:
        return list(range(BEYOND_ANY_RUN, BEYOND_ANY_RUN + count))
    return spread(size, count)
