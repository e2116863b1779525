"""Models on the Hugging Face hub: fetched by name, pushed with a card. Whatever goes wrong there is one error.

The library is imported when it is first needed. It must not know what is done with a model.
"""

import os
import re
from pathlib import Path

from transfusion.config import RunConfig
from transfusion.data.settings import FolderConfig, data_of
from transfusion.data.tasks import told_tasks
from transfusion.train.manifest import MANIFEST, OWN_FILES, RESUMED_FILES, CheckpointError

CARD = "README.md"
MODEL_FILES = sorted({MANIFEST, *OWN_FILES} - RESUMED_FILES)  # what use needs
USES = {
    "draw": 'picture = model.generate_images("a red circle", seed=0)',
    "caption": 'text = model.caption("picture.png")',
    "ask": 'answer = model.ask("picture.png", "how many circles are there?")',
    "edit": 'changed = model.edit("picture.png", "make the circle blue")',
    "write": 'text = "".join(str(piece) for piece in model.stream_text("Once"))',
}


def is_name(text: str) -> bool:
    """Return whether a text looks like the name of a model on the hub, ``organisation/name``."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text) is not None


def is_mistyped(text: str) -> bool:
    """Return whether a name of the hub is meant as a path here: its first part lies here, what follows does not."""
    return os.path.lexists(Path(text).parts[0])


def fetch(name: str, *, revision: str | None, token: str | None) -> Path:
    """Return the folder of a model on the hub, its files fetched where the library's cache lacks them.

    Raises:
        CheckpointError: There is no such model, or the hub is not to be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, token=token, allow_patterns=MODEL_FILES))
    except _faults() as error:
        where = name if revision is None else f"{name} at revision {revision!r}"
        raise CheckpointError(f"{where} cannot be fetched from the hub: {' '.join(str(error).split())}") from error


def push(folder: Path, name: str, *, private: bool | None, revision: str | None, token: str | None) -> str:
    """Put the files of a folder into a model's place on the hub, which is made where it is not there.

    Model files that lie there and are not in the folder go: they would be another model's. A card that lies there
    stays: people write there what a model is for.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: The hub does not take it.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    stale = sorted(set(MODEL_FILES) - {file.name for file in folder.iterdir()})
    try:
        api.create_repo(name, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        message = "Upload a model of transfusion"
        kept = [CARD] if CARD in api.list_repo_files(name, revision=revision) else []
        commit = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            revision=revision,
            commit_message=message,
            delete_patterns=stale,
            ignore_patterns=kept,
        )
    except _faults() as error:
        raise CheckpointError(f"{name} cannot be pushed to the hub: {' '.join(str(error).split())}") from error
    return str(commit.commit_url)


def _faults() -> tuple[type[Exception], ...]:
    """Return what goes wrong with a hub: also errors of whichever library it is reached by."""
    from huggingface_hub.errors import HfHubHTTPError

    kinds = (kind for kind in HfHubHTTPError.__mro__ if issubclass(kind, Exception) and kind is not Exception)
    return (ValueError, *kinds)


def card(name: str, config: RunConfig, num_parameters: int, num_steps: int | None = None) -> str:
    """Write what a model is, in the form that the hub shows: tasks, data, licence, how to use it.

    Args:
        name: ``"organisation/name"``.
        config: Its settings.
        num_parameters: How many it has.
        num_steps: How many it was trained for; None: nobody knows how many of those that were wanted.
    """
    tasks, data = told_tasks(config.data, config.encode), config.data
    each = [
        f"the folder `{d.path.name}`" if isinstance(d, FolderConfig) else "the built-in world of shapes"
        for d in data_of(data)
    ]
    told = " and ".join(each)
    has_pictures = bool(config.model.modalities) and tasks != ("write",)
    uses = "\n".join(USES[task] for task in tasks if task in USES)
    kind = "text-to-image" if "draw" in tasks else "text-generation"
    steps = f"up to {config.train.steps} steps" if num_steps is None else f"{num_steps} steps"
    size = f"{data.size[0]} × {data.size[1]} pixels" if has_pictures else "text alone"
    return f"""---
library_name: transfusion
pipeline_tag: {kind}
license: unknown  # say under which licence the weights may be used
---
# {name}

One transformer that predicts text and denoises pictures in the same sequence (Transfusion, arXiv 2408.11039).

* Tasks that it was told: {", ".join(tasks)}
* Data: {told}, {size}
* Parameters: {num_parameters / 1e6:.1f} M, {steps} of {config.train.batch_size} {config.train.batch_unit}
* Licence: to be stated by who publishes it

```python
from transfusion import Transfusion

model = Transfusion.from_pretrained("{name}")
{uses}
```
"""
