"""The application: verbs, options and exit codes. What the verbs do is in ``training`` and ``verbs``."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from transfusion.cli.allocator import keep_freed_memory
from transfusion.cli.defaults import TEMPERATURE
from transfusion.cli.help import UNWRAPPED, fitted
from transfusion.cli.json_text import json_text
from transfusion.cli.named import folder as folder_of
from transfusion.cli.named import text as text_of
from transfusion.cli.options import AsJson, Device, say
from transfusion.cli.preparing import preparing
from transfusion.cli.streams import prepare_streams, telling
from transfusion.memory import is_used_up

DONE, FAILED, USAGE, STOPPED = 0, 1, 2, 130
MAX_STEPS = 10**6  # more would take days, and the memory for their times
EPILOG = "Exit codes: 0 done, 1 the work failed, 2 bad usage or settings, 130 stopped (a training run is saved)."
USAGE_ERRORS = frozenset({"ConfigError"})
FAILURES = frozenset(
    {
        "CheckpointError",
        "DataError",
        "TokenizerError",
        "OSError",
        "FloatingPointError",
    }
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its tables cut words and the names of options where a terminal is narrow
    epilog=EPILOG,
    help="Transfusion: text and pictures.",
)

TARGET_HELP = (
    "Picture to write, several as one sheet; a folder (out/), or a name with {} for a number (out/star-{}.png), has "
    "a file for each"
)

Model = Annotated[Path, typer.Argument(help="A checkpoint, or the folder of a run such as runs/demo")]
Seed = Annotated[int, typer.Option(help="Key of all draws")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Picture to write")]
Anew = Annotated[bool, typer.Option("--anew", help="Begin anew, deleting what a run before wrote into the folder")]
Steps = Annotated[int | None, typer.Option(min=1, max=MAX_STEPS, help="Steps of the sampler")]
Sampler = Annotated[str | None, typer.Option(help="ddpm, ddim, euler, heun or dpm_solver_2m")]
Scale = Annotated[float | None, typer.Option(help="Scale of guidance; 1 is none")]
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16; auto is bf16 where the device is faster by it")]


@app.command()
def demo(
    run: Annotated[Path, typer.Option(parser=folder_of, metavar="<path>", help="Folder of the run")] = Path(
        "runs/demo"
    ),
    anew: Anew = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Train so many steps instead of the recipe's")] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts per category of the evaluation")] = 100,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train the tiny recipe, evaluate it and write a report: a model that draws, captions, answers and edits."""
    from transfusion.cli.training import run_demo

    raise typer.Exit(run_demo(run, is_anew=anew, steps=steps, num_prompts=prompts, device=device, as_json=as_json))


@app.command()
def train(
    recipe: Annotated[
        str,
        typer.Argument(parser=text_of, help="A recipe (see `recipes`), a saved config.json, or a run's folder"),
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings, such as train.steps=100")] = None,
    run: Annotated[
        Path | None,
        typer.Option(parser=folder_of, metavar="<path>", help="Folder of the run; default runs/<name of the recipe>"),
    ] = None,
    anew: Anew = False,
    device: Device = "auto",
    change: Annotated[
        bool,
        typer.Option("--change", help="Let a run go on with other steps, rates or losses' weights than it had"),
    ] = False,
) -> None:
    """Train; a run that has a checkpoint goes on from it, and train.init=MODEL begins a new one from its weights."""
    from transfusion.cli.training import run_training

    raise typer.Exit(run_training(recipe, overrides or [], run, is_anew=anew, device=device, is_change_wanted=change))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, such as runs/demo")], as_json: AsJson = False
) -> None:
    """Write a run's report.html again, from what lies in its folder."""
    from transfusion.cli.training import rewrite_report

    file = rewrite_report(run)
    say({"file": str(file)}, as_json=as_json, text=f"wrote {file}")


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """List the recipes: the question that each answers, and its command."""
    from transfusion.cli.listing import laid_out, listed, width
    from transfusion.recipes import AUTOENCODERS, RECIPES

    rows = [listed(name, recipe) for name, recipe in [*RECIPES.items(), *AUTOENCODERS.items()]]
    say({row.name: row.question for row in rows}, as_json=as_json, text=laid_out(rows, width()))


@app.command()
def config(
    recipe: Annotated[str, typer.Argument(help="A recipe, a file of settings, or a run")],
    overrides: Annotated[list[str] | None, typer.Argument(help="PATH=VALUE; or a group to explain")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each means")] = False,
    as_json: AsJson = False,
) -> None:
    """Print all settings of a recipe or a run, overrides applied, as JSON; or explain them."""
    from transfusion.cli.autoencoder import find_autoencoder, is_autoencoder
    from transfusion.cli.explain import as_value, explained, told
    from transfusion.cli.listing import width
    from transfusion.cli.training import find_config

    paths = [part for part in overrides or [] if explain and "=" not in part]
    find = find_autoencoder if is_autoencoder(recipe) else find_config
    found = find(recipe, [part for part in overrides or [] if part not in paths])
    if not explain:
        print(found.model_dump_json(indent=2))
        return
    rows = explained(found, paths)
    say(as_value(rows), as_json=as_json, text=told(rows, width()))


@app.command()
def show(
    path: Annotated[Path, typer.Argument(help="A picture, or a model's folder")],
    as_json: AsJson = False,
) -> None:
    """Say where a picture comes from and what draws it again; or what is known of a model."""
    from transfusion.cli.show import show as tell

    verbs = typer.main.get_command(app)
    assert isinstance(verbs, TyperGroup)
    flags = {name: {flag for part in verb.params for flag in part.opts} for name, verb in verbs.commands.items()}
    value, text = tell(path, flags)
    say(value, as_json=as_json, text=text)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A run or a checkpoint")],
    folder: Annotated[Path, typer.Argument(parser=folder_of, help="Folder to write")],
    weights: Annotated[str | None, typer.Option(help="averaged or trained")] = None,
    dtype: Annotated[str, typer.Option(help="fp32, or bf16 for half the size")] = "fp32",
    as_json: AsJson = False,
) -> None:
    """Write a model without what only training needs: what others load."""
    from transfusion.cli.export import export as write

    told = write(model, folder, weights=weights, dtype=dtype)
    size = f"{told['weights']} weights, {told['dtype']}, {told['bytes'] / 1e6:.1f} MB"
    say(told, as_json=as_json, text=f"wrote {folder}: {size}")


@app.command()
def generate(
    model: Model,
    prompts: Annotated[list[str], typer.Argument(help="What to draw")],
    output: Annotated[str, typer.Option("--output", "-o", help=TARGET_HELP)] = "generated.png",
    num: Annotated[int, typer.Option("--num", "--images-per-prompt", min=1, help="Pictures of each prompt")] = 1,
    seed: Seed = 0,
    steps: Steps = None,
    sampler: Sampler = None,
    guidance: Scale = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What guidance leads away from")] = None,
    apart: Annotated[
        bool, typer.Option("--apart", help="Draw each by itself: slower; in bf16, too, no bit depends on the others")
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Draw pictures; several become one sheet, or a file each."""
    from transfusion.cli.verbs import Sampling, Use, draw

    sampling = Sampling(steps, sampler, guidance, negative_prompt, is_apart=apart)
    files = draw(Use(model, device, precision), prompts, output, num=num, seed=seed, sampling=sampling)
    names = [str(file) for file in files]
    told = {"files": names, "prompts": prompts, "seed": seed}
    say({"file": names[0], **told}, as_json=as_json, text="\n".join(f"wrote {name}" for name in names))


@app.command()
def caption(
    model: Model,
    images: list[Path],
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Describe pictures."""
    from transfusion.cli.verbs import Use, load_for_pictures

    texts = load_for_pictures(Use(model, device, precision)).caption(images)
    rows = [{"file": str(image), "caption": text} for image, text in zip(images, texts, strict=True)]
    say(rows, as_json=as_json, text="\n".join(f"{row['file']}: {row['caption']}" for row in rows))


@app.command()
def ask(
    model: Model,
    image: Path,
    question: str,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Answer a question about a picture."""
    from transfusion.cli.texts import plain
    from transfusion.cli.verbs import Use, load_for_pictures

    asked = plain(question, "the question")
    answer = load_for_pictures(Use(model, device, precision)).ask(image, asked)
    say({"question": asked, "answer": answer}, as_json=as_json, text=answer)


@app.command()
def edit(
    model: Model,
    image: Path,
    instruction: str,
    output: Output = Path("edited.png"),
    seed: Seed = 0,
    steps: Steps = None,
    sampler: Sampler = None,
    guidance: Scale = None,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Change a picture as an instruction says."""
    from transfusion.cli.verbs import Sampling, Use, change

    sampling = Sampling(steps, sampler, guidance)
    file = change(Use(model, device, precision), image, instruction, output, seed=seed, sampling=sampling)
    say({"file": str(file), "instruction": instruction}, as_json=as_json, text=f"wrote {file}")


@app.command()
def write(
    model: Model,
    prompt: Annotated[str, typer.Argument(help="What to go on from; - reads standard input")],
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens to write; default: what a row of training has room for")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Divides the logits; 0 takes the likeliest token")] = TEMPERATURE,
    top_k: Annotated[int | None, typer.Option(help="Draw among the likeliest tokens, so many")] = None,
    top_p: Annotated[float, typer.Option(help="Draw among the fewest tokens with so much probability")] = 1.0,
    images: Annotated[int, typer.Option(min=0, help="Most pictures to draw, where the model begins one")] = 1,
    folder: Annotated[
        Path, typer.Option(parser=folder_of, metavar="<path>", help="Where drawn pictures are saved")
    ] = Path("written"),
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Go on with a text, as it comes, until the model ends it; standard output has what is written, and no more."""
    from transfusion.cli.texts import prompt_text
    from transfusion.cli.verbs import Use
    from transfusion.cli.write import Wanted, go_on

    wanted = Wanted(tokens, images, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    written = go_on(Use(model, device, precision), prompt_text(prompt), wanted, folder, is_shown=not as_json)
    if as_json:
        print(json_text(written._asdict()))


@app.command()
def chat(
    model: Model,
    folder: Annotated[
        Path, typer.Option(parser=folder_of, metavar="<path>", help="Where drawn pictures are saved")
    ] = Path("chat"),
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Talk to a model: what you write goes on one document; /image FILE shows it a picture, if it knows any."""
    from transfusion.cli.chat import converse
    from transfusion.cli.verbs import Use, load

    converse(load(Use(model, device, precision)), folder, seed=seed)


@app.command()
def evaluate(
    model: Model,
    overrides: Annotated[list[str] | None, typer.Argument(help="Other data, such as data.split=test")] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts per category")] = 100,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON to this file")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a model: exactly in the built-in world, elsewhere by its losses on the run's data or on other data."""
    from transfusion.cli.output import check_file
    from transfusion.cli.verbs import Use, score
    from transfusion.files import write_whole

    if out is not None:
        check_file(out)
    text, rendered = score(Use(model, device, precision), overrides or [], num_prompts=prompts, seed=seed)
    try:
        print(text if as_json else rendered, flush=True)
    finally:  # also where the reader of a pipe is gone
        if out is not None:
            write_whole(out, text + "\n")


app.add_typer(preparing, name="prepare")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine has, what is wrong with it and how to mend it."""
    from transfusion.cli.doctor import examine

    findings = examine()
    lines = [f"{f.level:5} {f.name}: {f.value}" + (f"\n      {f.remedy}" if f.remedy else "") for f in findings]
    say([f._asdict() for f in findings], as_json=as_json, text="\n".join(lines))
    raise typer.Exit(FAILED if any(f.level == "error" for f in findings) else DONE)


def main() -> None:
    """Run the command line and turn user errors and Ctrl-C into one message and an exit code."""
    prepare_streams()
    with telling():
        keep_freed_memory()
        try:
            fitted(typer.main.get_command(app))(terminal_width=UNWRAPPED)
        except (KeyboardInterrupt, SystemExit) as ended:
            interrupt = next((cause for cause in _causes(ended) if isinstance(cause, KeyboardInterrupt)), None)
            if interrupt is None:
                raise
            print(": ".join(["stopped", *getattr(interrupt, "__notes__", [])]), file=sys.stderr)
            sys.exit(STOPPED)
        except Exception as error:
            names = {kind.__name__ for kind in type(error).__mro__}
            if not names & (USAGE_ERRORS | FAILURES) and not is_used_up(error):
                raise
            print(f"error: {_told(error)}", file=sys.stderr)
            sys.exit(USAGE if names & USAGE_ERRORS else FAILED)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came of, the last first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _told(error: BaseException) -> str:
    """Say an error and its notes in one line; of one that a data worker sent with its traceback, the error alone."""
    text = str(error) or type(error).__name__
    if text.startswith("Caught ") and "Original Traceback" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2] or text
    return "; ".join([text, *getattr(error, "__notes__", [])])
