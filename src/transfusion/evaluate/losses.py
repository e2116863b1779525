"""Losses of any model on any source: the objective's own, at keyed times and noise."""

import torch

from transfusion.batch import collate
from transfusion.data.loader import Source
from transfusion.layout import num_slots
from transfusion.model.transfusion import TransfusionModel
from transfusion.objective import TransfusionObjective, keyed_draw


@torch.inference_mode()
def evaluate_losses(
    model: TransfusionModel, objective: TransfusionObjective, source: Source, *, num_documents: int, seed: int
) -> dict[str, float]:
    """Return the mean of every loss over a source's documents: held out if the source is, or has no end.

    Args:
        model: The network.
        objective: The losses.
        source: Where documents come from; an endless source is read far beyond any run.
        num_documents: How many.
        seed: Key of times and noise.
    """
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    draw = keyed_draw(objective.process.config, seed)
    first = 10**12 if source.size is None else 0
    for index in range(min(num_documents, source.size or num_documents)):
        document = source.document(first + index, 0)
        batch = collate([[document]], model.vocabulary, draw, num_slots(document, model.vocabulary))
        for name, loss in objective(model, batch).items():
            sums[name] = sums.get(name, 0.0) + float(loss.sum)
            counts[name] = counts.get(name, 0) + loss.count
    return {name: sums[name] / count for name, count in counts.items() if count}
