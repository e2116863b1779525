"""A page of what training will see, from the same settings as training."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from transfusion.cli.output import check_folder
from transfusion.cli.training import INIT_SETTINGS, find_config
from transfusion.config import ConfigError, RunConfig
from transfusion.data.loader import Source, Steps
from transfusion.diffusion.process import make_process
from transfusion.files import write_whole
from transfusion.objective import KeyedDraw
from transfusion.recipes import RECIPES
from transfusion.report.preview import TITLE, Reading, preview_page
from transfusion.run import open_run
from transfusion.train.best import meant
from transfusion.train.loop import loading
from transfusion.train.state import TrainState

NUM_NAMED = 10
HEAD = 1000  # letters of a page, in which its title stands


def write_preview(name: str, overrides: Sequence[str], file: Path, *, num_rows: int, step: int) -> Path:
    """Open a run as training would, and write down what a step takes.

    Args:
        name: Recipe, file of settings or folder of a run.
        overrides: Settings.
        file: Page to write.
        num_rows: Rows to show, at most.
        step: Which step, from 0.

    Returns:
        The file.

    Raises:
        ConfigError: A setting is bad, the data cannot be trained on, or the file is something else.
    """
    if file.is_dir() or (file.exists() and TITLE not in file.read_text(errors="replace")[:HEAD]):
        raise ConfigError(f"--to {file} is there and no preview; name another file")
    check_folder(file)
    config = _to_look_at(name, find_config(name, overrides), overrides)
    with TemporaryDirectory() as folder:
        state, source = open_run(config, Path(folder) / "run", is_resumed=False, device="cpu")
    settings, vocabulary = state.config, state.model.vocabulary
    draw = KeyedDraw(settings.diffusion, settings.train.seed)
    batches = Steps(source, loading(settings.train), vocabulary, draw)[step]
    reading = Reading(state.tokenizer, vocabulary, state.latents, make_process(settings.diffusion))
    facts = [("settings", " ".join([name, *overrides])), ("step", str(step)), *_facts(state, source)]
    return write_whole(file, preview_page(batches, reading, facts, num_rows))


def _to_look_at(name: str, config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Return settings by which data are opened as a training would, where nothing is computed: on any device; and of a
    run by the tokenizer and the latents of its checkpoint, whatever it began from and wherever that is now.
    """
    tree = config.model_dump()
    tree["objective"]["attention"] = "dense"
    has_init = any(text.partition("=")[0] in INIT_SETTINGS for text in overrides)
    if name not in RECIPES and meant(Path(name)).is_dir() and not has_init:
        tree["train"] |= {"init": Path(name), "init_weights": "trained", "new_parts": False}
    return RunConfig.model_validate(tree)


def _facts(state: TrainState, source: Source) -> Iterator[tuple[str, str]]:
    yield "found", source.found.line()
    yield "tokens", f"{state.tokenizer.size} of the tokenizer ({state.config.tokenizer.kind})"
    for number, (name, reason) in enumerate(source.quarantine.items()):
        if number == NUM_NAMED:
            yield "left out", f"{len(source.quarantine) - NUM_NAMED} more"
            return
        yield "left out", f"{name}: {reason}"
