"""The command line as a user runs it: every verb, every exit code, stopping and going on."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfusion.cli import main
from transfusion.recipes import AUTOENCODERS, RECIPES
from transfusion.train.lock import hold_run

GRID = "model.modalities.0.max_grid=[4,4]"
SMALL = [
    "train.steps=4",
    "train.batch_size=4",
    "train.num_workers=0",
    "train.preview_every=2",
    "train.checkpoint_every=2",
    "model.trunk.dim=32",
    "model.trunk.depth=1",
    "denoising.num_steps=2",
]


def command(*arguments: str | Path) -> list[str]:
    """Build a command line."""
    return [sys.executable, "-m", "transfusion", *map(str, arguments)]


def call(*arguments: str | Path, code: int = 0, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a verb in this process, which saves the seconds of starting one, and check its exit code."""
    told, failed = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(told), redirect_stderr(failed):
        patch.setattr(sys, "argv", ["transfusion", *map(str, arguments)])
        patch.setattr(sys, "stdin", StringIO(text))
        with pytest.raises(SystemExit) as ended:
            main()
    assert (ended.value.code or 0) == code, failed.getvalue()
    return subprocess.CompletedProcess([*map(str, arguments)], code, told.getvalue(), failed.getvalue())


def call_apart(*arguments: str | Path, code: int = 0, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a verb as a user does and check its exit code."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, input=text, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a tiny run of the built-in world once."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    call_apart("train", "tiny", *SMALL, "--run", folder)
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Write a picture."""
    Image.new("RGB", (40, 32), "white").save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_a_run_leaves_checkpoints_metrics_and_samples(run: Path) -> None:
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step_00000002", "step_00000004"]
    names = ["prompts.json", "step_00000002.png", "step_00000004.png"]
    assert [path.name for path in sorted((run / "samples").iterdir())] == names
    assert json.loads((run / "best.json").read_text())["step"] in (2, 4)
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 4
    assert any((run / "tensorboard").iterdir())


def test_the_report_is_written_again_from_the_folder(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "copy"
    shutil.copytree(run, folder)
    written = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    (folder / "scores.json").write_text('{"geneval": {"overall": 0.5}, "caption": 0.25}')
    assert json.loads(call("report", folder, "--json").stdout) == {"file": str(folder / "report.html")}
    page = (folder / "report.html").read_text()
    assert "step 4 of 4" in written and "step 4 of 4" in page and "data:image/png" in page
    assert "geneval overall" in page and "0.25" in page and "held out" in page
    assert "is not the folder of a run" in call("report", tmp_path, code=2).stderr
    assert "is not the folder of a run" in call("report", tmp_path / "no", code=2).stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "runs"]


def test_a_finished_run_says_so_and_the_best_checkpoint_is_named(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    told = call("train", "tiny", *SMALL, "--run", folder).stderr
    assert (
        "finished: step 4 of 4" in told
        and "train.steps=8 --change" in " ".join(told.split())
        and "resuming at" not in told
    )
    assert f"{folder / 'best'} is that checkpoint" in " ".join(told.split()) and "report: " in told
    call("generate", folder / "best", "a star", "-o", tmp_path / "p.png", "--steps", "1")
    assert "no checkpoint at" in call("generate", folder / "worst", "a star", "-o", tmp_path / "p.png", code=1).stderr


def test_generate(run: Path, tmp_path: Path) -> None:
    done = call_apart("generate", run, "a red circle", "a star", "-o", tmp_path / "o.png", "--steps", "2", "--json")
    assert json.loads(done.stdout)["file"] == str(tmp_path / "o.png")
    assert Image.open(tmp_path / "o.png").size == (204, 104)
    call("generate", run, "a star", "-o", tmp_path / "p.png", "--sampler", "heun", "--guidance", "1", "--seed", "3")
    assert Image.open(tmp_path / "p.png").size == (32, 32)
    assert "bad sampling options" in call("generate", run, "x", "--sampler", "magic", code=2).stderr


def test_look_at_pictures(run: Path, picture: Path, tmp_path: Path) -> None:
    rows = json.loads(call("caption", run, picture, "--json").stdout)
    assert rows[0]["file"] == str(picture) and isinstance(rows[0]["caption"], str)
    assert "answer" in json.loads(call("ask", run, picture, "how many stars are there", "--json").stdout)
    call("edit", run, picture, "remove the star", "-o", tmp_path / "e.png")
    assert np.asarray(Image.open(tmp_path / "e.png")).shape == (32, 32, 3)
    (tmp_path / "broken.png").write_text("no")
    assert "broken.png" in call("caption", run, tmp_path / "broken.png", code=1).stderr


def test_two_trainings_at_once(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    shutil.copytree(run, folder)
    before = sorted(folder.rglob("*"))
    with hold_run(folder):
        for verb in (("train", "tiny", *SMALL), ("demo",)):
            told = call(*verb, "--run", folder, "--anew", code=1).stderr
            assert f"{folder} is being trained in by another process" in told and told.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_an_error_in_the_middle_is_one_line_that_says_where_the_run_is(tmp_path: Path) -> None:
    """The second of two checkpoints finds no room for its metrics: a limit stands for a full disk."""
    folder = tmp_path / "r"
    script = (
        "import sys; from transfusion.cli import main; import transfusion.train.loop as loop\n"
        "def full(self, step, values):\n"
        "    if step == 3: raise OSError(28, 'No space left on device')\n"
        "loop.Metrics.write = full; sys.argv = sys.argv[:1] + sys.argv[2:]; main()\n"
    )
    arguments = [*SMALL, "train.log_every=1", "train.preview_every=0", "train.checkpoint_every=100"]
    done = subprocess.run(
        [sys.executable, "-c", script, "-", "train", "tiny", *arguments, "--run", folder],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"No space left on device; the state after step 3 is saved in {folder}" in done.stderr.splitlines()[-1]


def test_chat_draws_and_looks(run: Path, picture: Path, tmp_path: Path) -> None:
    turns = f"a red circle\n/image {picture}\nmake it blue\n/image nothing.png\n/new\n/quit\n"
    turns = turns.replace("/new", "/image ~nobody/x.png\n/new")
    done = call_apart("chat", run, "--folder", tmp_path / "chat", text=turns)
    assert "no such file" in done.stdout


def test_evaluate_and_listing(run: Path) -> None:
    scores = json.loads(call("evaluate", run, "--prompts", "2", "--json").stdout)
    assert "draw: overall" in call("evaluate", run, "--prompts", "1").stdout
    assert set(scores["geneval"]) >= {"overall", "counting"}
    assert set(json.loads(call("recipes", "--json").stdout)) == {*RECIPES, *AUTOENCODERS}
    assert json.loads(call("config", "tiny", "train.steps=3").stdout)["train"]["steps"] == 3
    findings = json.loads(call("doctor", "--json").stdout)
    assert {"torch", "threads", "disk"} <= {finding["name"] for finding in findings}


def test_usage_errors_have_code_two(tmp_path: Path) -> None:
    assert "did you mean 'train.steps'" in call("train", "tiny", "train.step=3", "--run", tmp_path, code=2).stderr
    assert "no recipe or file 'nothing'" in call("train", "nothing", code=2).stderr
    assert "No such command" in call_apart("fly", code=2).stderr


def test_failures_have_code_one(tmp_path: Path) -> None:
    assert "no checkpoint at" in call("generate", tmp_path, "x", code=1).stderr
    assert (
        "is not a folder" in call("train", "folder", f"data.path={tmp_path}/no", "--run", tmp_path / "r", code=1).stderr
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_saves_and_the_same_command_goes_on(tmp_path: Path, number: int) -> None:
    settings = [*SMALL, "train.steps=100000", "train.preview_every=0", "train.num_workers=1"]
    arguments = ["train", "tiny", *settings, "--run", tmp_path / "r"]
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    while "M parameters" not in (line := process.stderr.readline()):
        assert line, "the run ended before it began"
    while not (tmp_path / "r" / "metrics.jsonl").exists():
        assert process.poll() is None
    os.killpg(process.pid, number)
    rest = process.stderr.read()
    assert process.wait() == 130 and "the state is saved" in rest and "Traceback" not in rest
    steps = [
        json.loads((path / "state.json").read_text())["step"] for path in (tmp_path / "r" / "checkpoints").iterdir()
    ]
    shorter = [
        argument if argument != "train.steps=100000" else f"train.steps={max(steps) + 2}" for argument in arguments
    ]
    assert "made with other settings" in call(*shorter, code=2).stderr


def test_demo_from_first_step_to_report(tmp_path: Path) -> None:
    done = call_apart("demo", "--run", tmp_path / "demo", "--steps", "2", "--prompts", "1", "--json")
    scores = json.loads((tmp_path / "demo" / "scores.json").read_text())
    assert json.loads(done.stdout) == scores and scores["parameters"] > 1e6
    assert (tmp_path / "demo" / "report.html").read_text().startswith("<!doctype html>")


def test_own_pictures_and_text(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for i in range(4):
        Image.new("RGB", (20, 30), (60 * i, 0, 0)).save(data / f"{i}.png")
    (data / "3.png").write_bytes(b"broken")
    rows = [json.dumps({"file": f"{i}.png", "text": f"picture {i}"}) for i in range(4)]
    (data / "captions.jsonl").write_text("\n".join(rows))
    folder = [setting for setting in SMALL if "preview" not in setting]
    held = [f"data.path={data}", *folder, "data.hold_out=0.5"]
    call("train", "folder", *held, "--run", tmp_path / "h")
    assert "split 'test'" in call("evaluate", tmp_path / "h", "data.split=test").stdout
    other = call("evaluate", tmp_path / "h", "data.split=test", "data.hold_out=0.7", code=2).stderr
    assert "was trained on" in other and "with 0.5" in other
    done = call("train", "folder", f"data.path={data}", *folder, "train.preview_every=4", "--run", tmp_path / "r")
    assert f"found in {data} (layout captions): 4 pictures, 4 captions, no splits; trains on 3 records" in done.stderr
    assert "1 record left out; " in done.stderr and (tmp_path / "r" / "quarantine.jsonl").exists()
    assert "image" in call("evaluate", tmp_path / "r").stdout
    assert "has no splits" in call("evaluate", tmp_path / "r", "data.split=test", code=1).stderr
    assert "no setting of the data" in call("evaluate", tmp_path / "r", "train.steps=1", code=2).stderr
    (tmp_path / "t.txt").write_text("to be or not to be " * 200)
    call("train", "folder", f"data.path={tmp_path}/t.txt", *folder, "--run", tmp_path / "t")
    assert set(json.loads(call("evaluate", tmp_path / "t", "--json").stdout)["losses"]) == {"text"}
    (tmp_path / "t.txt").unlink()  # a run knows without its data what they were
    assert "text alone" in call("generate", tmp_path / "t", "a star", code=2).stderr
    large = call("train", "folder", f"data.path={data}", *folder, "data.resolution=128", "--run", tmp_path / "l")
    saved = json.loads(next((tmp_path / "l" / "checkpoints").glob("*/config.json")).read_text())
    assert saved["model"]["modalities"][0]["max_grid"] == [16, 16] and saved["train"]["row_length"] == 320
    assert large.stderr.splitlines()[0] == f"cpu, run {tmp_path / 'l'}"


def test_anew_deletes_what_a_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    run = tmp_path / "r"
    (run / "checkpoints" / "step_00000001").mkdir(parents=True)
    (run / "mine.png").write_bytes(b"kept")
    broken = call("train", "tiny", *SMALL, "--run", run, code=1).stderr
    assert "begin anew with --anew" in broken
    call("train", "folder", "data.path=typo", *SMALL, "--run", run, "--anew", code=1)
    assert (run / "checkpoints" / "step_00000001").exists()
    call("train", "tiny", *SMALL, "--run", run, "--anew")
    assert (run / "mine.png").read_bytes() == b"kept" and not (run / "checkpoints" / "step_00000001").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "RUN", "a star", "-o", "out.xyz"), "ends with .png"),
        (("generate", "RUN", "a star", "-o", "out.psd"), "ends with .png"),
        (("generate", "RUN", "a star", "-o", "PICTURE/out.png"), "cannot write to"),
        (("edit", "RUN", "PICTURE", "remove it", "-o", "PICTURE/out.png"), "cannot write to"),
        (("evaluate", "RUN", "--out", "RUN"), "cannot write to"),
        (("evaluate", "RUN", "data.resolution=64"), "data.resolution=64' reaches nothing"),
        (("chat", "RUN", "--folder", "PICTURE"), "cannot write to"),
        (("evaluate", "RUN", "--prompts", "100000"), "--prompts 100000 is too many"),
        (("demo", "--run", "NEW", "--prompts", "100000"), "--prompts 100000 is too many"),
        (("train", "tiny", "--run", "NEW", "data.resolution=64", GRID), "the model has positions for (4, 4)"),
        (("generate", "RUN", "a star", "--device", "tpu"), "device 'tpu' is unknown; expected auto, cpu, cuda"),
        (("caption", "RUN", "PICTURE", "--device", "cuda:99"), "device 'cuda:99' is not here"),
        (("edit", "RUN", "PICTURE", "remove it", "--precision", "fp8"), "precision 'fp8' is unknown"),
        (("evaluate", "RUN", "--device", ""), "device '' is unknown"),
        (("chat", "RUN", "--device", "tpu"), "device 'tpu' is unknown"),
        (("demo", "--run", "NEW", "--device", "tpu"), "device 'tpu' is unknown"),
        (("generate", "RUN", "caf\udce9"), "a prompt is not UTF-8"),
        (("ask", "RUN", "PICTURE", "caf\udce9"), "the question is not UTF-8"),
        (("edit", "RUN", "PICTURE", "caf\udce9"), "the instruction is not UTF-8"),
        (("write", "RUN", "caf\udce9"), "the prompt is not UTF-8"),
        (("write", "RUN", ""), "the prompt is empty"),
        (("write", "RUN", "-"), "the prompt is empty"),
        (("write", "RUN", "x" * 999), "the prompt takes 1000 slots"),
        (("generate", "RUN", "x " * 999), "the prompt takes"),
        (("edit", "RUN", "PICTURE", "x " * 999), "the prompt takes"),
        (("ask", "RUN", "PICTURE", "x " * 999), "the prompt takes"),
        (("write", "RUN", "x", "--tokens", "0"), "tokens"),
        (("write", "RUN", "x", "--tokens", "-1"), "tokens"),
        (("write", "RUN", "x", "--top-p", "2"), "top_p: Input should be less than"),
        (("write", "RUN", "x", "--top-k", "0"), "top_k: Input should be greater than"),
        (("write", "RUN", "x", "--temperature", "-1"), "temperature: Input should be greater than"),
        (("write", "RUN", "x", "--images", "-1"), "images"),
        (("write", "RUN", "x", "--folder", "PICTURE"), "cannot write to"),
        (("generate", "RUN", "a star", "-o", ""), "the output is empty"),
        (("generate", "RUN", "a star", "-o", "PICTURE/"), "cannot write to"),
        (("generate", "RUN", "a star", "--steps", "99999999999999999999"), "steps"),
        (("generate", "RUN", "a star", "--num", "0"), "num"),
        (("train", "tiny", "--run", "NEW", "train.optimizer.betas=[0.9,1.5]"), "should be less than 1"),
        (("train", "tiny", "--run", "NEW", "model.text_vocab_size=9999"), "the tokenizer has"),
        (("train", "tiny", "--run", "NEW", "objective.attention=flex"), "needs a CUDA device"),
        (("generate", "RUN", "  "), "a prompt is empty"),
        (("generate", "RUN", "a star", "--steps", "0"), "steps"),
        (("generate", "RUN", "a star", "--guidance", "inf"), "guidance.scale: Input should be a finite number"),
        (("ask", "RUN", "PICTURE", "?"), "a question is empty"),
        (("evaluate", "RUN", "--prompts", "0"), "prompts"),
        (("train", "tiny", "--device", "tpu"), "device 'tpu' is unknown"),
        (("train", "tiny", "--run", "NEW", "train.row_length=20"), "document 0 (shapes 0) takes"),
        (("train", "tiny", "--run", "NEW", "data.resolution=33"), "does not fit the model"),
        (("config", "PICTURE"), "is no text"),
    ],
)
def test_bad_usage_is_one_line(
    run: Path, picture: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    known = {"RUN": run, "PICTURE": picture, "NEW": tmp_path / "new"}
    done = call(*(_named(part, known) for part in arguments), code=2)
    assert message in done.stderr and not (tmp_path / "new" / "checkpoints").exists()


def _named(part: str, known: dict[str, Path]) -> str:
    name, slash, rest = part.partition("/")
    return f"{known[name]}{slash}{rest}" if name in known else part


def test_a_pipe_that_closes_loses_no_result(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    with subprocess.Popen(command("evaluate", run, "--prompts", "1", "--out", out), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
    assert json.loads(out.read_text())["geneval"]


def test_a_folder_named_like_a_recipe_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    call("train", "tiny", *SMALL, "train.preview_every=0")
    assert list((tmp_path / "tiny").iterdir()) == [] and (tmp_path / "runs" / "demo" / "checkpoints").is_dir()


def test_a_run_does_not_lie_in_its_classes(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "a.png")
    for folder in (tmp_path, tmp_path / "run"):
        assert (
            "lies within the data" in call("train", "folder", f"data.path={tmp_path}", "--run", folder, code=2).stderr
        )


def test_results_are_printed_before_they_are_written(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "scores.json"
    printed = call_apart("evaluate", run, "--prompts", "1", "--json", "--out", out).stdout
    assert json.loads(printed) == json.loads(out.read_text())


def test_chat_asks_without_the_mark(run: Path, picture: Path) -> None:
    turns = [f"/image {picture}\nhow many stars are there{mark}\n/quit\n" for mark in ("?", " ?", "")]
    assert len({call("chat", run, text=text).stdout for text in turns}) == 1
    assert "there is no /foo" in call("chat", run, text="/foo\n").stdout


def test_help_does_not_import_torch() -> None:
    code = "import sys, transfusion.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
