"""Judge drawings of named photographs: a linear probe, a kernel distance, and the nearest training picture of each.

``python -m experiments.photographs RUN DATA FEATURES [--per-class N] [--guidance G ...] [--sheet FILE]``

RUN is a model trained on the pictures of DATA, told by their class; FEATURES are MobileNetV2's weights, batch norms
folded (see ``autoencoder.features``). Prints a line of JSON for each guidance. A drawing counts as a copy where its
nearest training picture is nearer than that of all but the nearest twentieth of the held-out photographs.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from transfusion.autoencoder.features import FeatureNetwork, feature_network
from transfusion.autoencoder.measures import kernel_distance
from transfusion.data.readers import open_picture, read_captions
from transfusion.pictures import sheet
from transfusion.pretrained import Transfusion

BATCH, DECAY, PROBE_STEPS, NEAREST = 16, 1e-3, 200, 0.05
Pictures = list[np.ndarray]


@torch.inference_mode()
def features(network: FeatureNetwork, pictures: Pictures) -> Tensor:
    """Return the pooled features of pictures (H, W, 3) uint8: (N, F)."""
    found: list[Tensor] = []
    for first in range(0, len(pictures), BATCH):
        values = torch.from_numpy(np.stack(pictures[first : first + BATCH])).permute(0, 3, 1, 2).float() / 127.5 - 1
        found.append(network(values).pooled)
    return torch.cat(found)


def fit_probe(inputs: Tensor, classes: Tensor, num_classes: int) -> torch.nn.Linear:
    """Fit a softmax on standardised features by L-BFGS, with decay."""
    torch.manual_seed(0)
    probe = torch.nn.Linear(inputs.shape[1], num_classes)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=PROBE_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(probe(inputs), classes) + DECAY * probe.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return probe


def read(data: Path, split: str, size: tuple[int, int]) -> tuple[Pictures, list[str]]:
    """Read a split: pictures (H, W, 3) uint8, and their classes."""
    rows = read_captions(data, split)
    return [open_picture(data / row.file, size) for row in rows], [row.text for row in rows]


def nearest(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance (1 - cosine) of each row of one to the nearest of the other, and which that is."""
    found = (1 - torch.nn.functional.normalize(one) @ torch.nn.functional.normalize(other).T).min(1)
    return found.values, found.indices


def main() -> None:
    """Draw, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("features", type=Path)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--guidance", type=float, nargs="+", default=[3.0])
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--sheet", type=Path, help="a drawing of each class, and its nearest training picture")
    given = parser.parse_args()
    model = Transfusion.from_pretrained(given.run)
    network, size = feature_network(load_file(given.features)), model.prompts.size
    (seen, seen_names), (held, held_names) = (read(given.data, split, size) for split in ("train", "test"))
    names = sorted(set(seen_names))
    of_seen, of_held = features(network, seen), features(network, held)
    mean, std = of_seen.mean(0), of_seen.std(0) + 1e-6
    classes = torch.tensor([names.index(name) for name in seen_names])
    probe = fit_probe((of_seen - mean) / std, classes, len(names))

    def named(found: Tensor, wanted: list[str]) -> Tensor:
        return probe((found - mean) / std).argmax(1) == torch.tensor([names.index(name) for name in wanted])

    order = torch.randperm(len(of_held), generator=torch.Generator().manual_seed(0))
    halves = kernel_distance(of_held[order[::2]], of_held[order[1::2]])
    limit = float(nearest(of_held, of_seen)[0].quantile(NEAREST))
    real = float(named(of_held, held_names).float().mean())
    print(json.dumps({"train": len(seen), "held_out": len(held), "probe_held_out": real, "kernel_halves": halves}))
    for scale in given.guidance:
        wanted = [name for name in names for _ in range(given.per_class)]
        drawn = model.generate_images(wanted, seed=given.seed, guidance=scale)
        arrays = [np.asarray(picture) for picture in drawn]
        found = features(network, arrays)
        right, (distances, places) = named(found, wanted), nearest(found, of_seen)
        by_class = right.view(len(names), given.per_class).float().mean(1).tolist()
        row = {
            "guidance": scale,
            "drawings": len(drawn),
            "probe": float(right.float().mean()),
            "kernel": kernel_distance(found, of_held),
            "copies": float((distances < limit).float().mean()),
            "by_class": {name: round(value, 2) for name, value in zip(names, by_class, strict=True)},
        }
        print(json.dumps(row), flush=True)
        if given.sheet is not None:
            firsts = range(0, len(drawn), given.per_class)
            shown = [(drawn[i], Image.fromarray(seen[int(places[i])]), wanted[i]) for i in firsts]
            half = (len(shown) + 1) // 2
            rows = [shown[:half], shown[half:]]
            pictures = [each for row in rows for part in (0, 1) for each in (one[part] for one in row)]
            captions = [text for row in rows for text in ([one[2] for one in row] + ["nearest in training"] * len(row))]
            file = given.sheet.with_stem(f"{given.sheet.stem}-{scale:g}")
            sheet(pictures, num_columns=half, captions=captions).save(file)


if __name__ == "__main__":
    main()
