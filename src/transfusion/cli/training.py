"""Training from the command line: progress, signals, resuming; and the demo from first step to report."""

import time
from collections.abc import Sequence
from contextlib import closing
from difflib import get_close_matches
from pathlib import Path

from rich.console import Console

from transfusion.cli.anew import check_run, clear
from transfusion.cli.autoencoder import check_kind, is_autoencoder, run_autoencoder
from transfusion.cli.places import Asked, place_of, run_of, said_paths
from transfusion.cli.signals import stop_on_signals
from transfusion.cli.stepping import Shown, say_stopped, say_where_it_stands, show_steps
from transfusion.cli.verbs import check_num_prompts
from transfusion.config import CONFIG_FILE, ConfigError, RunConfig, from_json, override
from transfusion.data.found import counted
from transfusion.data.loader import Source
from transfusion.data.readers import QUARANTINE_FILE
from transfusion.data.tasks import is_text_alone
from transfusion.devices import AUTO, find_device
from transfusion.evaluate.suite import Items, Scores, evaluate_shapes, scores_table, summarise
from transfusion.pretrained import Transfusion
from transfusion.recipes import AUTOENCODERS, RECIPES
from transfusion.report import REPORT_FILE, write_report, write_run_report
from transfusion.run import RunReport, open_run, train_run
from transfusion.tokenizer import TOKENIZER_FILE
from transfusion.train.best import BEST, meant, read_best
from transfusion.train.changes import Said, with_taken
from transfusion.train.checkpoint import CHECKPOINTS, checkpoints
from transfusion.train.facts import step_of
from transfusion.train.init import begun_from
from transfusion.train.lock import RunLock, hold_run
from transfusion.train.optimizer import num_trained
from transfusion.train.saved import check_no_model, find_checkpoint, load_settings
from transfusion.train.state import TrainState

DONE, STOPPED = 0, 130
INIT_SETTINGS = ("train.init", "train.new_parts")


def find_config(name: str, overrides: Sequence[str], *, run: Path | None = None) -> RunConfig:
    """Return the settings that a recipe's name, a config.json or a run's folder means, with overrides.

    With ``train.init`` a recipe's model, tokenizer and diffusion give way to those of the weights.

    Args:
        name: What is asked for.
        overrides: Settings, as for ``override``.
        run: A run's folder, where one goes on: what it took from trained weights is then read there.

    Raises:
        ConfigError: There is no such recipe or file, or a setting is bad.
    """
    name = str(meant(Path(name)))
    base = _base(name)
    given = override(base, [text for text in overrides if text.partition("=")[0] in INIT_SETTINGS])
    is_told = base.train.init is not None  # a file that names weights has been made for them
    if given.train.init is None or is_told or (name not in RECIPES and Path(name).is_dir()):
        return override(base, overrides)
    begun = None if run is None or not checkpoints(run) else _settings_of(run)
    return begun_from(given, overrides, begun)


def _base(name: str) -> RunConfig:
    path = Path(name)
    if name in RECIPES:
        return RECIPES[name]()
    if path.is_dir():
        return _settings_of(path)
    if not path.is_file():
        near = get_close_matches(name, [*RECIPES, *AUTOENCODERS], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; it comes before the settings" if "=" in name else ""
        raise ConfigError(f"no recipe or file {name!r}; recipes: {', '.join([*RECIPES, *AUTOENCODERS])}{hint}")
    try:
        return from_json(path.read_text(), name)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is no text; expected a recipe ({', '.join(RECIPES)}) or a config.json") from error


def _settings_of(folder: Path) -> RunConfig:
    """Read the settings of a checkpoint; of a run, with what it took since its newest one."""
    # Of the other files only the sizes are checked: who loads the weights reads them all.
    found = find_checkpoint(folder, hashed={CONFIG_FILE, TOKENIZER_FILE})
    config, step = load_settings(found).config, step_of(found)
    return config if step is None else with_taken(config, config, folder, step)


def _asked(name: str, overrides: Sequence[str], run: Path | None, *, is_anew: bool) -> Asked[RunConfig]:
    """Settle what to train and where, so that no weights that are named are ignored.

    Raises:
        ConfigError: They would be.
    """
    path = meant(Path(name))
    if name not in RECIPES and path.is_dir():
        place = place_of(Path(name), run, is_anew=is_anew)
        return Asked(Said(find_config(name, overrides), said_paths(overrides, is_file=False)), *place)
    directory = run or Path("runs") / override(_base(name), _only(overrides, "name")).name
    check_no_model(directory)
    config = find_config(name, overrides, run=None if is_anew else directory)
    _check_outside(config, directory)
    return Asked(Said(config, said_paths(overrides, is_file=name not in RECIPES)), directory)


def _only(overrides: Sequence[str], setting: str) -> list[str]:
    return [text for text in overrides if text.partition("=")[0] == setting]


def _check_outside(config: RunConfig, run: Path) -> None:
    init = config.train.init
    if init is not None and init.resolve().is_relative_to(run.resolve()):
        raise ConfigError(f"train.init={init} lies in the folder of the run, {run}; name another with --run runs/NEW")


def run_training(
    name: str,
    overrides: Sequence[str],
    run: Path | None,
    *,
    is_anew: bool,
    device: str,
    is_change_wanted: bool = False,
) -> int:
    """Train to the end or to Ctrl-C, a model or an autoencoder; return the exit code."""
    if is_autoencoder(name):
        return run_autoencoder(name, overrides, run, is_anew=is_anew, device=device, is_change_wanted=is_change_wanted)
    asked = _asked(name, overrides, run, is_anew=is_anew)
    if is_anew:
        check_run(asked.directory)
    else:
        check_kind(asked.directory, is_wanted=False)
    console = _console()
    with hold_run(asked.directory) as lock:
        _say_where(device, lock, console)
        opened = open_run(
            asked.wanted,
            asked.directory,
            is_resumed=not is_anew,
            device=device,
            lock=lock,
            goes_on_from=asked.goes_on_from,
            is_change_wanted=is_change_wanted,
        )
        state, source = _told(opened, lock, is_anew=is_anew, console=console)
        if not _train(state, source, lock, console):
            say_stopped(asked.directory, state.step, f"transfusion train {asked.directory}", console)
            return STOPPED
    _say_done(asked.directory, console)
    return DONE


def rewrite_report(path: Path) -> Path:
    """Write the report of a run again, from what lies in its folder.

    Raises:
        ConfigError: The path is no run's.
        CheckpointError: The run has no checkpoint yet.
    """
    run = run_of(meant(path))
    if not (run / CHECKPOINTS).is_dir():
        raise ConfigError(f"{path} is not the folder of a run, which has a folder {CHECKPOINTS} in it, as runs/demo")
    settings = load_settings(find_checkpoint(run, hashed={CONFIG_FILE, TOKENIZER_FILE}))
    return write_run_report(run, settings.config)


def run_demo(
    run: Path, *, is_anew: bool, steps: int | None, num_prompts: int, device: str = AUTO, as_json: bool
) -> int:
    """Train the tiny recipe, evaluate it, write scores and report; return the exit code."""
    check_num_prompts(num_prompts)
    if is_anew:
        check_run(run)
    with hold_run(run) as lock:
        return _demo(lock, is_anew=is_anew, steps=steps, num_prompts=num_prompts, device=device, as_json=as_json)


def _demo(lock: RunLock, *, is_anew: bool, steps: int | None, num_prompts: int, device: str, as_json: bool) -> int:
    begun = time.perf_counter()
    console, run = _console(), lock.run
    overrides = [] if steps is None else [f"train.steps={steps}"]
    _say_where(device, lock, console)
    wanted = Said(find_config("tiny", overrides), said_paths(overrides, is_file=False))
    opened = open_run(wanted, run, is_resumed=not is_anew, device=device, lock=lock)
    state, source = _told(opened, lock, is_anew=is_anew, console=console)
    if not _train(state, source, lock, console):
        say_stopped(run, state.step, f"transfusion demo --run {run}", console)
        return STOPPED
    console.print("evaluating on prompts and scenes that training never drew ...")
    model = Transfusion(state.best_model, state.tokenizer, state.config, space=state.latents)
    items = evaluate_shapes(model, model.prompts.size[0], num_prompts=num_prompts)
    scores = _scores(items, state, begun)
    try:
        if as_json:
            print(scores.to_json(), flush=True)
        else:
            Console().print(scores_table(scores))
    finally:  # also where the reader of a pipe is gone
        scores.save(run)
        report = write_report(run, scores, items, source.preview_prompts(), state.config)
    console.print(f"report: {report}")
    return DONE


def _scores(items: Items, state: TrainState, begun: float) -> Scores:
    seconds = time.perf_counter() - begun
    return summarise(
        items, train_seconds=state.train_seconds, total_seconds=seconds, parameters=state.model.num_parameters
    )


def _console() -> Console:
    """Make what says where a run stands, on standard error: a command that it names is not broken into lines."""
    return Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def _say_where(device: str, lock: RunLock, console: Console) -> None:
    """Say what computes, before the data are read: that may take long."""
    console.print(f"{find_device(device)}, run {lock.run}")


def _told(
    opened: tuple[TrainState, Source], lock: RunLock, *, is_anew: bool, console: Console
) -> tuple[TrainState, Source]:
    """Clear the folder of a run that begins anew, and say what was opened."""
    (state, source), run = opened, lock.run
    if is_anew:
        clear(run)
    console.print(f"{_parameters(state)}, {state.config.train.precision}{_pictures(state)}")
    say_where_it_stands(run, state.step, state.config.train.steps, console)
    _tell_left_out(source, run, console)
    return state, source


def _pictures(state: TrainState) -> str:
    height, width = state.config.data.size
    is_text = is_text_alone(state.config.data, state.config.encode)
    return "" if is_text else f", pictures of {height} x {width}{_space(state)}"


def _space(state: TrainState) -> str:
    """Say what they become, where that is not their pixels."""
    space = state.latents
    return "" if not space.is_network else f" as latents of {space.name}"


def _parameters(state: TrainState) -> str:
    """Say how many parameters there are, and how many of them are trained."""
    whole, trained = state.model.num_parameters, num_trained(state.model)
    frozen = f" ({trained:,} trained, {whole - trained:,} frozen)" if trained < whole else ""
    return f"{whole / 1e6:.1f} M parameters{frozen}"


def _tell_left_out(source: Source, run: Path, console: Console) -> None:
    """Say what was found of the data, and what is not trained on."""
    console.print(source.found.line())
    if source.quarantine:
        file = run / QUARANTINE_FILE  # the run writes it
        console.print(f"{counted(len(source.quarantine), 'record')} left out; {file} says why")


def _say_done(run: Path, console: Console) -> None:
    best = read_best(run)
    if best is not None:
        console.print(f"best held-out losses at step {best.step}: {run / BEST} is that checkpoint")
    if (run / REPORT_FILE).exists():
        console.print(f"report: {run / REPORT_FILE}")


def _train(state: TrainState, source: Source, lock: RunLock, console: Console) -> bool:
    """Train with progress; return whether the run reached its end."""
    with stop_on_signals() as stop, closing(train_run(state, source, lock.run, stop, lock=lock)) as reports:
        show_steps(map(_shown, reports), state.step, state.config.train.steps, console)
    return state.step >= state.config.train.steps and not stop.is_set()


def _shown(report: RunReport) -> Shown:
    """Take what is shown of a report."""
    step = report.step
    return Shown(step.step, {**step.losses, "slots/s": step.num_slots / step.seconds}, report.held_out)
