"""Write the golden losses anew; run it only when a change of behaviour is meant, and say so in the changelog."""

import json
from pathlib import Path

import torch
from tiny import documents, make_model, run_config

from transfusion.batch import collate
from transfusion.objective import KeyedDraw, TransfusionObjective


def golden_losses() -> dict[str, float]:
    """Compute the losses of a fixed model on fixed documents."""
    config, model = run_config(), make_model()
    batch = collate([documents(5)], model.vocabulary, KeyedDraw(config.diffusion, 0), 80)
    batch.validate(model.vocabulary)
    with torch.no_grad():
        losses = TransfusionObjective(config.diffusion, config.objective, model.vocabulary)(model, batch)
    return {name: round(float(loss.sum) / loss.count, 4) for name, loss in losses.items()}


if __name__ == "__main__":
    (Path(__file__).parent / "losses.json").write_text(json.dumps(golden_losses(), indent=1) + "\n")
