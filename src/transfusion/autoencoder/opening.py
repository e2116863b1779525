"""Opens an autoencoder's network by a path or a name on the hub, whatever form it lies there in.

    folder of diffusers (or of a pipeline, its vae/) · original TAESD files · the pair that checkpoints carry ·
    a run that trained one · a name on the hub  ──open_network──▶ Autoencoder

The one place that reads weights which others have pickled, always as weights only: TAESD's authors publish them so, as
older diffusers did. It must not know what is done with a network.
"""

import logging
import os
import re
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from transfusion.autoencoder.carried import SETTINGS_FILE, has_carried, read_carried, read_json
from transfusion.autoencoder.networks import (
    BUILD_FAULTS,
    KL,
    TAESD,
    Autoencoder,
    Kind,
    built,
    check_counts,
    common_dtype,
    kind_named,
    loaded,
    refuse_mismatched,
    told,
)
from transfusion.autoencoder.space import CARRIED_FILES, SpaceError
from transfusion.autoencoder.taesd import settings_of
from transfusion.files import sha256_of

CONFIG_FILE, PIPELINE_FILE, SUB_FOLDER = "config.json", "model_index.json", "vae"
DIFFUSERS_WEIGHTS = "diffusion_pytorch_model"
ENDINGS = (".safetensors", ".pth")
ENCODER = "_encoder"
HUB_SECONDS = 5.0  # that an answer may take; what is not there else is asked for again and again
NUM_NAMED = 5
RUNS = "runs"  # where runs lie unless they are told otherwise
MOST_NUMBERS = 2**32  # of a network whose weights are yet to be fetched
CHECKPOINTS, BEST_FILE, MANIFEST_FILE = "checkpoints", "best.json", "manifest.json"
FORMS = (
    f"a folder that diffusers saved ({CONFIG_FILE}), original TAESD files (NAME{ENCODER}.pth and NAME_decoder.pth), "
    f"the pair of a checkpoint ({SETTINGS_FILE}), a run that trained one, or a name on the hub (organisation/name)"
)


def open_network(path: str | Path) -> Autoencoder:
    """Open an autoencoder.

    Args:
        path: One of the forms above. What lies nowhere here and looks like ``organisation/name`` is fetched from the
            hub, unless its cache holds it; but where the first part is a folder here, it is a path that is mistyped.

    Raises:
        SpaceError: There is none, it is of an unknown class, or its files are damaged or not of one network.
    """
    text = str(path)
    if not text:
        raise SpaceError(f"no autoencoder is named (autoencoder.path); give {FORMS}")
    folder = Path(path)
    if not os.path.lexists(folder):
        if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text) is None:
            raise SpaceError(f"no autoencoder at {text}; expected {FORMS}")
        return _from_hub(text)
    if not folder.is_dir():
        raise SpaceError(f"{text} is no folder; expected {FORMS}")
    try:
        return _in_folder(folder)
    except OSError as error:
        raise SpaceError(f"the autoencoder at {text} cannot be read: {told(error)}") from error


def lasting(path: str) -> str:
    """Return the path of an autoencoder as every working folder finds it; a name on the hub stays one."""
    return str(Path(path).absolute()) if path and os.path.lexists(path) else path


def _in_folder(folder: Path) -> Autoencoder:
    if has_carried(folder):
        return read_carried(folder)
    if (trained := _trained(folder)) is not None:
        return read_carried(trained)
    if (encoder := _taesd_encoder(folder)) is not None:
        return _from_taesd(encoder)
    if not (folder / CONFIG_FILE).is_file() and (folder / SUB_FOLDER / CONFIG_FILE).is_file():
        folder = folder / SUB_FOLDER
    if not (folder / CONFIG_FILE).is_file():
        raise SpaceError(f"no autoencoder in {folder}; expected {FORMS}")
    return _by_diffusers(folder / CONFIG_FILE, str(folder), None)


def _trained(run: Path) -> Path | None:
    """Return the checkpoint of a run that holds a trained autoencoder: the best one if it is known, else the newest."""
    held = sorted(folder for folder in run.glob(f"{CHECKPOINTS}/step_*") if has_carried(folder) and _is_whole(folder))
    if not held:
        return None
    step = read_json(run / BEST_FILE).get("step") if (run / BEST_FILE).is_file() else None
    best = [folder for folder in held if type(step) is int and folder.name == f"step_{step:08d}"]
    return best[0] if best else held[-1]


def _is_whole(checkpoint: Path) -> bool:
    """Return whether a checkpoint's autoencoder is what its manifest says."""
    named = read_json(checkpoint / MANIFEST_FILE) if (checkpoint / MANIFEST_FILE).is_file() else {}
    for name in CARRIED_FILES:
        facts = named.get(name)
        if not isinstance(facts, dict) or not (checkpoint / name).is_file():
            return False
        if sha256_of(checkpoint / name) != facts.get("sha256"):
            return False
    return True


def _from_hub(name: str) -> Autoencoder:
    KL.module()  # what is fetched is of no use without diffusers
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    files = (CONFIG_FILE, f"{SUB_FOLDER}/{CONFIG_FILE}")
    is_cached = any(isinstance(try_to_load_from_cache(name, file), str) for file in files)
    if not is_cached:
        _refuse_path(name)
    faults = tuple(kind for kind in HfHubHTTPError.__mro__ if issubclass(kind, Exception) and kind is not Exception)
    try:
        if not is_cached:
            HfApi().model_info(name, timeout=HUB_SECONDS)
        try:
            sub_folder, file = None, Path(hf_hub_download(name, files[0]))
        except EntryNotFoundError:
            sub_folder, file = SUB_FOLDER, Path(hf_hub_download(name, files[1]))
    except (OSError, ValueError, *faults) as error:
        raise SpaceError(
            f"{name} lies nowhere here, and cannot be fetched from the hub: {told(error)}; if it is meant as a path, "
            f"there is no {Path(name).absolute()}"
        ) from error
    return _by_diffusers(file, name, sub_folder)


def _refuse_path(name: str) -> None:
    """Refuse a name that is rather a path: one that is mistyped is told at once, and nobody is asked for it.

    Raises:
        SpaceError: A folder of its first part lies here, or runs do there.
    """
    first, last = name.split("/")
    parent = Path(first)
    if parent.is_dir():
        held = sorted(file.name for file in parent.iterdir() if file.is_dir())
        told_ones = f" (but {', '.join(held[:NUM_NAMED])})" if held else ""
        found = f"{parent.absolute()} has no {last}{told_ones}"
    elif first == RUNS:
        found = f"{parent.absolute()} is not there"
    else:
        return
    raise SpaceError(
        f"no autoencoder at {name}: {found}. If it is meant as a name on the hub, fetch it first (hf download {name}), "
        f"or start where no folder is called {first}"
    )


def _by_diffusers(file: Path, where: str, sub_folder: str | None) -> Autoencoder:
    """Load by diffusers, which knows the names that weights once had.

    Args:
        file: Its settings; its weights lie beside them once it is loaded.
        where: A folder, or a name on the hub.
        sub_folder: Part of what lies on the hub.
    """
    settings, folder = read_json(file), file.parent
    kind = kind_named(settings.get("_class_name"), file)
    if kind == TAESD:
        raise SpaceError(f"{file} names {kind.name}, which diffusers does not know; take its original files")
    check_counts(settings, file)
    module_class: Any = kind.module()
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):  # a codebook is drawn before it is read
            _check_size(kind, settings, file)
            module, loading = module_class.from_pretrained(
                where,
                subfolder=sub_folder,
                low_cpu_mem_usage=False,
                output_loading_info=True,
                torch_dtype=torch.float32,
            )
    except (OSError, SafetensorError, *BUILD_FAULTS) as error:
        raise SpaceError(f"{where} cannot be loaded as {kind.name}: {told(error)}") from error
    refuse_mismatched(
        where,
        missing=sorted(loading["missing_keys"]),
        unexpected=sorted(loading["unexpected_keys"]),
        mismatched=[str(each) for each in loading["mismatched_keys"]],
    )
    return loaded(module, _dtype_in(folder), where)


def _check_size(kind: Kind, settings: Mapping[str, Any], file: Path) -> None:
    """Check that settings ask for no more numbers than the weights beside them can hold, before memory is taken.

    Raises:
        SpaceError: They do.
    """
    with torch.device("meta"):
        module: nn.Module = cast(Any, kind.module()).from_config(dict(settings))
    count = sum(value.numel() for value in module.state_dict().values())
    held = sum(each.stat().st_size for each in file.parent.glob(f"{DIFFUSERS_WEIGHTS}*"))
    if count > (held or MOST_NUMBERS):
        raise SpaceError(
            f"{file} asks for a network of {count:,} numbers, and its weights have {held or 'no'} bytes; one of them "
            "is of another network, or damaged"
        )


@contextmanager
def _quiet() -> Generator[None]:
    """Keep diffusers from warning of what it does and writes itself; what is wrong is an error here anyway."""
    log = logging.getLogger("diffusers")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _dtype_in(folder: Path) -> torch.dtype:
    files = [*folder.glob(f"{DIFFUSERS_WEIGHTS}.safetensors"), *folder.glob(f"{DIFFUSERS_WEIGHTS}-*.safetensors")]
    files = files or list(folder.glob(f"{DIFFUSERS_WEIGHTS}*.bin"))
    return common_dtype(value.dtype for file in files for value in _read_weights(file).values())


def _taesd_encoder(folder: Path) -> Path | None:
    """Return the file of the encoder of a folder's TAESD pair.

    Raises:
        SpaceError: There are several.
    """
    found = {file.stem: file for ending in reversed(ENDINGS) for file in sorted(folder.glob(f"*{ENCODER}{ending}"))}
    if len(found) > 1:
        names = ", ".join(sorted(found))
        raise SpaceError(f"{folder} holds several encoders: {names}; put one pair into a folder of its own")
    return next(iter(found.values()), None)


def _from_taesd(encoder_file: Path) -> Autoencoder:
    stem = encoder_file.stem.removesuffix(ENCODER)
    files = [encoder_file.with_name(f"{stem}_decoder{ending}") for ending in ENDINGS]
    decoder_file = next((file for file in files if file.is_file()), None)
    if decoder_file is None:
        raise SpaceError(
            f"{encoder_file} has no decoder beside it; expected {' or '.join(each.name for each in files)}"
        )
    encoder, decoder = _read_weights(encoder_file), _read_weights(decoder_file)
    weights = {f"encoder.{name}": value for name, value in encoder.items()}
    weights |= {f"decoder.{name}": value for name, value in decoder.items()}
    return built(TAESD, settings_of(encoder), weights, f"{encoder_file} and {decoder_file.name}")


def _read_weights(file: Path) -> Mapping[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, EOFError, UnpicklingError, *BUILD_FAULTS) as error:
        raise SpaceError(f"{file} is damaged, or holds more than weights ({told(error)}); fetch it again") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise SpaceError(f"{file} holds no weights by their names; expected the file that its authors publish")
    return {str(name): value for name, value in weights.items()}
