"""What ``--anew`` deletes, and what it leaves."""

from contextlib import suppress
from pathlib import Path

import pytest
from test_cli import call

from transfusion.cli.anew import check_run, clear
from transfusion.train.checkpoint import checkpoints, newest, publish, step_directory

OURS = (
    "metrics.jsonl",
    ".metrics.jsonl.partial",
    ".metrics.jsonl.0123456789abcdef.partial",
    "changes.jsonl",
    "quarantine.jsonl",
    "scores.json",
    "report.html",
    "samples/step_00000010.png",
    "samples/step_00000010.txt",
    "samples/prompts.json",
    "samples/.step_00000010.png.0123456789abcdef.partial",
    "best.json",
    "tensorboard/events.out.tfevents.1.host.2.0",
    "checkpoints/.step_00000003.partial/model.safetensors",
    "checkpoints/.step_00000002.replaced/model.safetensors",
    "checkpoints/.step_00000002.lock",
    "checkpoints/step_00000001/model.safetensors",  # damaged: without a manifest
    "checkpoints/kept_step_00000001_1/model.safetensors",
)
MINE = (
    "notes.md",
    "samples/mine.wav",
    "samples/step_1/deep.png",
    "tensorboard/other/events.txt",
    "checkpoints/step_notes.txt",
    "checkpoints/best/model.safetensors",
    "checkpoints/step_00000004/notes.md",
)


def fill(run: Path, names: tuple[str, ...]) -> None:
    """Write files."""
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)


def found(run: Path) -> set[str]:
    """List all files."""
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}


def save(run: Path) -> None:
    """Publish a checkpoint with a file of a name that only its manifest knows."""
    for step in (2, 4):
        publish(step_directory(run, step), lambda folder: (folder / "other.bin").write_text("x"))


def test_what_a_run_wrote_goes_and_its_folders_too(tmp_path: Path) -> None:
    fill(tmp_path, OURS)
    save(tmp_path)
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == []
    clear(tmp_path)


def test_what_the_user_put_there_stays(tmp_path: Path) -> None:
    save(tmp_path)
    fill(tmp_path, (*OURS, *MINE))
    clear(tmp_path)
    assert found(tmp_path) == set(MINE)


@pytest.mark.parametrize("name", ["checkpoints", "samples", "tensorboard"])
def test_it_works_through_links_and_leaves_them(tmp_path: Path, name: str) -> None:
    run, big = tmp_path / "run", tmp_path / "big"
    big.mkdir()
    run.mkdir()
    (run / name).symlink_to("../big")
    fill(run, (*OURS, *MINE))
    clear(run)
    assert (run / name).is_symlink() and big.is_dir()
    # Of samples and curves nothing says which run's they are, and another's may link there, too.
    left = MINE if name == "checkpoints" else (*MINE, *OURS)
    assert found(big) == {path.removeprefix(f"{name}/") for path in left if path.startswith(name)}
    assert found(run) == {path for path in MINE if not path.startswith(name)}


def test_a_linked_checkpoint_is_kept_and_not_gone_on_from(tmp_path: Path) -> None:
    big = publish(tmp_path / "big", lambda folder: (folder / "other.bin").write_text("x"))
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    step_directory(run, 2).symlink_to(big)
    for _ in range(2):
        clear(run)
        assert checkpoints(run) == []
        assert (run / "checkpoints" / "kept_step_00000002" / "other.bin").read_text() == "x"


def test_a_kill_leaves_the_run_as_it_was_with_fewer_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink, found = Path.unlink, list[list[str]]()
    for moment in range(6):
        run = tmp_path / str(moment)
        save(run)
        fill(run, ("metrics.jsonl",))
        left = [moment]

        def killed(path: Path, *, missing_ok: bool = False, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            unlink(path, missing_ok=missing_ok)

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(Path, "unlink", killed)
            clear(run)
        whole = newest(run)
        found.append([path.name for path in checkpoints(run)])
        assert (whole is None) == (moment > 2) and (whole is None or whole.name == "step_00000004")
        assert (run / "metrics.jsonl").exists() or not found[-1]
    assert found[0] == ["step_00000002", "step_00000004"] and found[-1] == []


def test_linked_files_and_checkpoints(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    fill(elsewhere, ("metrics.jsonl", "model/model.safetensors"))
    (run / "checkpoints").mkdir(parents=True)
    (run / "metrics.jsonl").symlink_to(elsewhere / "metrics.jsonl")
    (run / "checkpoints" / "step_00000001").symlink_to(elsewhere / "model")
    (run / "report.html").mkdir()
    clear(run)
    assert not (run / "metrics.jsonl").is_symlink() and found(elsewhere) == {"metrics.jsonl", "model/model.safetensors"}
    assert (run / "report.html").is_dir() and (run / "checkpoints" / "step_00000001").is_symlink()


NUMBERS = '{"step": 2, "loss/text": 1.0}\n'
BEGUN = '{"step": 0, "begun": true}\n'


@pytest.mark.parametrize(
    ("names", "is_run"),
    [
        ({}, True),
        ({".training.lock": "", ".report.html.0123456789abcdef.partial": ""}, True),
        ({"checkpoints/step_00000001/model.safetensors": "", "thesis.tex": ""}, True),
        ({"checkpoints/.step_00000003.partial/model.safetensors": ""}, True),
        ({"metrics.jsonl": NUMBERS, "report.html": ""}, True),
        ({"changes.jsonl": BEGUN}, True),
        ({"thesis.tex": ""}, False),
        ({"report.html": "", "scores.json": "", "samples/step_00000001.png": "", "best.json": "{}"}, False),
        ({"metrics.jsonl": '{"epoch": 3, "accuracy": 0.91}', "changes.jsonl": '{"step": "one", "begun": 1}'}, False),
        ({"checkpoints/best/model.safetensors": "", "checkpoints/step_notes.txt": ""}, False),
    ],
)
def test_a_folder_that_is_no_run_is_refused_and_keeps_all(names: dict[str, str], is_run: bool, tmp_path: Path) -> None:
    for name, text in names.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    if is_run:
        check_run(tmp_path)
        check_run(tmp_path / "not there")
        return
    command = ["--run", tmp_path, "--anew"]
    for told in (["train", "tiny"], ["train", "autoencoder/vq"], ["demo"]):
        assert "no sign of a run" in call(*told, *command, code=2).stderr
    assert found(tmp_path) == {*names}


def test_a_new_run_is_refused_among_files_of_its_names_also_without_anew(tmp_path: Path) -> None:
    mine = ("report.html", "scores.json")
    fill(tmp_path, mine)
    for told in (["train", "tiny"], ["train", "autoencoder/vq"], ["demo"]):
        assert "holds scores.json, report.html and no sign of a run" in call(*told, "--run", tmp_path, code=2).stderr
    assert found(tmp_path) == {*mine}
