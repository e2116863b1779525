"""What a new run takes from trained weights, and what it may set otherwise.

    from there   weights, tokenizer, model, spread of the pixels, diffusion process; unless set: how pictures are drawn,
                 their size
    its own      data, how records are told, optimizer and rates, steps, losses' weights

``load_trained`` is the only place that knows in which formats weights may come. It must not know how a run is resumed.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from transfusion.autoencoder.settings import AutoencoderConfig, opened
from transfusion.autoencoder.spaces import latent_shape
from transfusion.config import CONFIG_FILE, ConfigError, RunConfig, leaves, override
from transfusion.data.encode import IMAGE
from transfusion.model.grow import Fit, Grid, Part, take_over
from transfusion.model.patchify import ModalityConfig
from transfusion.model.transfusion import TransfusionModel
from transfusion.tokenizer import TOKENIZER_FILE, Tokenizer, build_tokenizer, check_tokenizer, same_pieces
from transfusion.train.facts import Origin, step_of
from transfusion.train.manifest import EMA_FILE, MODEL_FILE, CheckpointError, read_manifest
from transfusion.train.saved import find_checkpoint, load_settings, made_model
from transfusion.train.tensors import load_weights

TAKEN = ("model", "tokenizer", "autoencoder", "diffusion", "denoising")
PIXELS, RESOLUTION, MODALITIES, TEXT_SIZE = "encode.pixels", "data.resolution", "modalities", "model.text_vocab_size"
SAME_SPACE = {f"autoencoder.{name}" for name in ("path", "is_carried", "posterior", "tile", "shape")}
_log = logging.getLogger(__name__)


class Trained(NamedTuple):
    """Trained weights with what they mean anything by."""

    config: RunConfig
    tokenizer: Tokenizer
    weights: Mapping[str, Tensor]
    origin: Origin
    folder: Path


def load_trained(path: Path, which: str) -> Trained:
    """Load the weights that a path means, with their settings and tokenizer.

    Args:
        path: A checkpoint, the folder of a run, or a saved model.
        which: ``"averaged"``: the averaged weights where there are some; ``"trained"``: those that steps move.

    Raises:
        CheckpointError: There are none, or they are damaged.
    """
    folder = _found(path)
    config, tokenizer = load_settings(folder)
    is_averaged = which == "averaged" and (folder / EMA_FILE).exists()
    file = EMA_FILE if is_averaged else MODEL_FILE
    model = made_model(config.model, folder)
    load_weights(model, folder / file)
    sha256 = read_manifest(folder)[file].sha256
    origin = Origin(str(path), str(folder), step_of(folder), "averaged" if is_averaged else "trained", sha256)
    return Trained(config, tokenizer, model.state_dict(), origin, folder)


def _found(path: Path, hashed: frozenset[str] | None = None) -> Path:
    try:
        return find_checkpoint(path, hashed=hashed)
    except CheckpointError as error:
        raise CheckpointError(f"train.init={path}: {error}") from error


def begun_from(config: RunConfig, overrides: Sequence[str], settings: RunConfig | None = None) -> RunConfig:
    """Return the settings of a run that begins from trained weights.

    Args:
        config: A recipe's settings, with ``train.init``; what the weights decide is taken from there instead.
        overrides: What is set otherwise, as for ``override``.
        settings: The settings to take from, where the run has begun already and goes on without ``train.init``.

    Raises:
        ConfigError: What is set otherwise does not go with the weights.
        CheckpointError: There are none, or they are damaged.
    """
    if config.train.init is None:
        return override(config, overrides)
    source = settings or load_settings(_found(config.train.init, frozenset({CONFIG_FILE, TOKENIZER_FILE}))).config
    tree, theirs = (found.model_dump(mode="json") for found in (config, source))
    tree |= {name: theirs[name] for name in TAKEN}
    tree["model"]["text_vocab_size"] = None
    tree["encode"]["pixels"] = theirs["encode"]["pixels"] or tree["encode"]["pixels"]
    if config.train.new_parts or any(text.partition("=")[0] == "train.new_parts" for text in overrides):
        tree["autoencoder"] = _renamed(source.autoencoder, overrides).model_dump(mode="json")
    size = theirs["data"].get("resolution")
    before = [f"{RESOLUTION}={size}"] if size is not None else []
    found = _with_larger_grid(override(RunConfig.model_validate(tree), [*before, *overrides]))
    if settings is None:
        check_agreement(found, source)
    return found


def _renamed(config: AutoencoderConfig, overrides: Sequence[str]) -> AutoencoderConfig:
    """Leave open what is known of an autoencoder where another one is named, as new parts allow."""
    return opened(config) if any(text.startswith("autoencoder.path=") for text in overrides) else config


def _with_larger_grid(config: RunConfig) -> RunConfig:
    """Make the grid of positions as large as the data's pictures, where new parts are allowed."""
    if not config.train.new_parts:
        return config
    modalities = tuple(
        modality.model_copy(
            update={"max_grid": tuple(map(max, modality.max_grid, grid))}  # it has positions, and pictures' axes
        )
        if modality.max_grid is not None and (grid := _seen_grid(modality, config)) is not None
        else modality
        for modality in config.model.modalities
    )
    return config.model_copy(update={"model": config.model.model_copy(update={MODALITIES: modalities})})


def _seen_grid(modality: ModalityConfig, config: RunConfig) -> Grid | None:
    """Return the grid of the data's pictures, or None where the modality is another or does not divide them."""
    shape, patch = latent_shape(config.autoencoder, config.data.size), modality.patch_size
    if modality.name != IMAGE or shape is None or len(shape) != len(patch) + 1:
        return None
    pairs = list(zip(shape[1:], patch, strict=True))
    return None if any(side % size for side, size in pairs) else tuple(side // size for side, size in pairs)


class Rule(NamedTuple):
    """Why some settings must stay as the weights were trained with.

    Attributes:
        prefix: Of the settings' paths.
        reason: Why.
        anew: Patterns of the parameters that begin anew where new parts are allowed and the settings differ, beside
            those whose shape differs; None where no new part could make it right.
    """

    prefix: str
    reason: str
    anew: tuple[str, ...] | None = ()


ATTENTION, PATCHES = ("trunk.blocks.*.attention.*",), ("patches.*",)
RULES = (
    Rule("model.trunk.norm_eps", "every layer was trained with it", None),
    Rule("model.trunk.num_heads", "attention was trained with it", ATTENTION),
    Rule("model.trunk.num_kv_heads", "attention was trained with it", ATTENTION),
    Rule("model.trunk.rope_base", "attention was trained with it", ATTENTION),
    Rule("model.trunk.", "it decides the shapes of the weights"),
    Rule("model.init.", "no weight is drawn, so it reaches nothing"),
    Rule("model.modalities", "the modality's weights were trained with it"),
    Rule("tokenizer.", "what a token means was learnt with its tokenizer"),
    Rule(PIXELS, "pictures were standardised by it", PATCHES),
    Rule("autoencoder.", "pictures became latents by it", PATCHES),
    Rule("diffusion.schedule.kind", "the noise was removed along it", PATCHES),
    Rule("diffusion.prediction", "it is what the output means", PATCHES),
)


def check_agreement(config: RunConfig, source: RunConfig) -> Callable[[str], bool]:
    """Check the settings of a run that begins from weights against those that the weights were trained with.

    Returns:
        Whether a parameter of the run's model must begin anew, though its shape may fit.

    Raises:
        ConfigError: Settings differ that may not, or not without ``train.new_parts``.
    """
    refused: list[str] = []
    anew: list[str] = []
    for path, new, old in _unlike(config, source):
        rule = next((rule for rule in RULES if path.startswith(rule.prefix)), None)
        if rule is None:
            continue
        if rule.anew is None or not config.train.new_parts:
            told = f"{path} is {new!r}, but was {old!r} for these weights: {rule.reason}"
            refused.append(told if rule.anew is not None else f"{told}, and no new part could make it right")
        else:
            anew += rule.anew
    if refused:
        raise ConfigError(
            f"train.init={config.train.init} does not go with other settings: {'; '.join(refused)}; leave them out"
            + ("" if config.train.new_parts else ", or allow new parts (train.new_parts=true)")
        )
    for old, modality in _pairs(source, config):
        if (old.channels, old.patch_size, old.patches.kind) != (
            modality.channels,
            modality.patch_size,
            modality.patches.kind,
        ):
            anew.append(f"patches.{config.model.modalities.index(modality)}.*")
    return lambda name: any(fnmatchcase(name, pattern) for pattern in anew)


def _unlike(config: RunConfig, source: RunConfig) -> Iterator[tuple[str, object, object]]:
    """Yield the settings that differ, with both values; of a modality that one of them lacks only its name, no pixels
    where one of them has measured none, and of an autoencoder nothing that it leaves open, nor where it lies.
    """
    ours, theirs = dict(_meanings(config)), dict(_meanings(source))
    names = [{modality.name for modality in found.model.modalities} for found in (config, source)]
    lone = tuple(f"model.{MODALITIES}.{name}." for name in names[0] ^ names[1])
    for path in dict.fromkeys([*ours, *theirs]):
        is_open = path.startswith(PIXELS) and not (path in ours and path in theirs)
        is_open |= path in SAME_SPACE or (path.startswith("autoencoder.") and ours.get(path) is None)
        # Sizes that follow from the data are compared when they are settled: ``fill`` checks again.
        is_open |= path.endswith(".max_grid") and isinstance(grid := ours.get(path), list) and 0 in grid
        is_open |= path.endswith(".channels") and ours.get(path) == 0
        is_detail = path.startswith(lone) and not path.endswith(".name")
        if not is_open and not is_detail and ours.get(path) != theirs.get(path):
            yield path, ours.get(path), theirs.get(path)


def _meanings(config: RunConfig) -> Iterator[tuple[str, object]]:
    """Yield the settings that weights mean something by, with their paths; modalities go by their names, and what a
    setting leaves open is what comes of it.
    """
    tree, trunk = json.loads(config.to_json()), config.model.trunk
    model = {**tree["model"], MODALITIES: {modality["name"]: modality for modality in tree["model"][MODALITIES]}}
    model["trunk"] |= {"num_kv_heads": trunk.kv_heads, "hidden_dim": trunk.ffn_dim}
    for path, value in leaves({**tree, "model": model}):
        if path not in (TEXT_SIZE, PIXELS):  # both are None where a run is to find them
            yield path, value


def tokenizer_from(trained: Trained, config: RunConfig, texts: Callable[[], Iterator[str]]) -> Tokenizer:
    """Return the tokenizer of a run that begins from weights: theirs, tried on the run's texts, or another that the
    settings ask for.

    Raises:
        TokenizerError: It cannot encode the texts.
    """
    is_theirs = config.tokenizer == trained.config.tokenizer
    tokenizer = trained.tokenizer if is_theirs else build_tokenizer(config.tokenizer, texts())
    check_tokenizer(tokenizer, texts())
    return tokenizer


def fill(model: TransfusionModel, tokenizer: Tokenizer, trained: Trained, config: RunConfig) -> list[Part]:
    """Fill a run's model, which has its initial weights, with trained ones; say what is new, resized or dropped.

    Raises:
        ConfigError: The settings do not go with the weights.
    """
    is_anew = check_agreement(config, trained.config)
    is_same = config.tokenizer == trained.config.tokenizer
    grids = {
        modality.name: (before, after)
        for old, modality in _pairs(trained.config, config)
        if (before := _seen_grid(old, trained.config)) and (after := _seen_grid(modality, config))
    }
    fit = Fit(None if is_same else same_pieces(trained.tokenizer, tokenizer), grids, is_anew)
    parts = take_over(model, trained.weights, trained.config.model, fit)
    _log.info("begins from %s", trained.origin)
    for part in parts:
        _log.info("not as trained: %s", part)
    return parts


def _pairs(old: RunConfig, new: RunConfig) -> Iterator[tuple[ModalityConfig, ModalityConfig]]:
    before = {modality.name: modality for modality in old.model.modalities}
    for modality in new.model.modalities:
        if modality.name in before:
            yield before[modality.name], modality
