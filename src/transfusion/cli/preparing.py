"""The verbs of ``transfusion prepare``; what they do is in ``prepare`` and ``preview``."""

from pathlib import Path
from typing import Annotated

import typer

from transfusion.cli.named import folder as folder_of
from transfusion.cli.named import text as text_of
from transfusion.cli.options import AsJson, Device, say

Recipe = Annotated[str, typer.Argument(parser=text_of, metavar="RECIPE", help="As for train")]
Settings = Annotated[list[str] | None, typer.Argument(help="As for train, such as data.path=pets")]

preparing = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Do once what training would do again.")


@preparing.callback()
def prepare() -> None:
    """Do once what training would do again."""


@preparing.command()
def latents(
    data: Annotated[Path, typer.Argument(help="Folder of captioned pictures, in any layout")],
    to: Annotated[
        Path,
        typer.Option(parser=folder_of, metavar="<path>", help="Folder to write; one that was begun is gone on with"),
    ],
    autoencoder: Annotated[
        str, typer.Option(help="Its folder, a run that trained one, or a name on the hub", show_default=False)
    ] = "",
    like: Annotated[
        str | None,
        typer.Option(
            parser=text_of,
            metavar="<path>",
            help="In place of --autoencoder: a run, checkpoint, folder of latents or name on the hub, of which "
            "autoencoder, normalisation and size are taken",
        ),
    ] = None,
    resolution: Annotated[
        str | None, typer.Option(help="Side in pixels, or height x width as 96x128; else 128, or that of --like")
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Also encode the flipped pictures, for data.flip=true")] = False,
    posterior: Annotated[
        bool, typer.Option("--posterior", help="Also store spreads, for autoencoder.posterior=sample")
    ] = False,
    dtype: Annotated[str, typer.Option(help="fp32, or fp16 or bf16 for half the size")] = "fp32",
    processes: Annotated[int, typer.Option(min=1, max=1024, help="How many processes encode")] = 1,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Encode a folder of pictures once: `transfusion train photos data.path=TO` then reads the latents."""
    from transfusion.cli.prepare import Wanted, prepare_latents, told

    made = prepare_latents(Wanted(data, autoencoder, to, resolution, flip, posterior, dtype, device, processes, like))
    say(made, as_json=as_json, text=told(made))


@preparing.command()
def preview(
    recipe: Recipe,
    settings: Settings = None,
    to: Annotated[Path, typer.Option(help="Page to write")] = Path("preview.html"),
    rows: Annotated[int, typer.Option(min=1, max=1000, help="Rows to show")] = 8,
    step: Annotated[int, typer.Option(min=0, help="Step whose rows are shown, from 0")] = 0,
) -> None:
    """Write a page of what the model will see: rows as packed, pictures, tokens, targets, times, masks."""
    from transfusion.cli.preview import write_preview

    print(f"wrote {write_preview(recipe, settings or [], to, num_rows=rows, step=step)}")


@preparing.command()
def tokenizer(
    recipe: Recipe,
    to: Annotated[Path, typer.Option(help="The tokenizer.json to write")],
    settings: Settings = None,
    size: Annotated[int, typer.Option(min=257, max=2**20, help="Tokens, the 256 bytes among them")] = 4096,
    as_json: AsJson = False,
) -> None:
    """Learn a byte-level BPE from the texts of a training's data, for tokenizer.kind=file."""
    from transfusion.cli.learn_tokenizer import learn_tokenizer, told

    learnt = learn_tokenizer(recipe, settings or [], to, size)
    say(learnt, as_json=as_json, text=told(learnt))


@preparing.command()
def verify(
    recipe: Recipe,
    to: Annotated[Path, typer.Option(help="Digests: written where the file is not there, else compared with")],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Read every record and write down what it holds; the next time, say what changed, broke, went or came.

    The exit code is 1 where something did.
    """
    from transfusion.cli.verify import is_alike, told
    from transfusion.cli.verify import verify as verified

    found = verified(recipe, settings or [], to)
    say(found, as_json=as_json, text=told(found))
    raise typer.Exit(0 if is_alike(found) else 1)
