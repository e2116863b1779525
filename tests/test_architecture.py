"""The house's rules, checked: directions of imports, budgets, one place for each rule. The checkers are tested too."""

import ast
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "transfusion"
FILES = sorted(SOURCE.rglob("*.py"))

# What a module or package may import of ours; "segments" stands for transfusion.segments.
BASE = {"keyed", "segments", "layout", "mask"}
NETWORK = {*BASE, "batch", "model", "diffusion", "tokenizer"}
LOWER = {*NETWORK, "objective", "generate", "data", "autoencoder", "config", "memory", "pictures", "files"}
SIGNING = {"notes", "provenance"}
ALLOWED: dict[str, set[str]] = {
    "keyed": set(),
    "memory": set(),
    "segments": {"keyed"},
    "layout": {"segments"},
    "mask": {"layout"},
    "batch": {"segments", "layout"},
    "diffusion": {"diffusion"},
    "tokenizer": set(),
    "autoencoder": {"keyed", "files", "autoencoder"},
    "pictures": set(),
    "notes": set(),
    "provenance": {"notes", "generate"},
    "files": set(),
    "model": {*BASE, "model"},
    "objective": {*BASE, "batch", "model", "diffusion"},
    "generate": {*BASE, "model", "diffusion", "generate"},
    "data": {*BASE, "batch", "tokenizer", "autoencoder", "files", "data"},
    "config": {"autoencoder", "data", "diffusion", "generate", "model", "objective", "tokenizer", "train"},
    "devices": {"config"},
    "prompts": {"segments", "tokenizer", "autoencoder", "data", "config"},
    "asking": {*BASE, "batch", "model", "diffusion", "tokenizer", "objective", "generate", "data", "config", "prompts"},
    "drawing": {"diffusion", "generate", "config", "prompts", "asking"},
    "describing": {"data", "prompts", "asking"},
    "hub": {"data", "config", "train"},
    "pretrained": {*LOWER, "devices", "train", "prompts", "asking", "drawing", "describing", "hub"},
    "evaluate": {*LOWER, "evaluate"},
    "train": {*LOWER, "devices", "train"},
    "samples": {*LOWER, "pretrained"},
    "written": {"config", "data", "evaluate", "files", "report", "samples", "train"},
    "autoencoder_run": {*LOWER, "written", "devices", "samples", "train"},
    "run": {*LOWER, "written", "devices", "evaluate", "pretrained", "report", "samples", "train"},
    "report": {*LOWER, "evaluate", "samples", "train"},
    "recipes": {*LOWER, "train", "recipes"},
    "cli": {
        *LOWER,
        *SIGNING,
        "written",
        "devices",
        "pretrained",
        "train",
        "run",
        "autoencoder_run",
        "report",
        "samples",
        "evaluate",
        "recipes",
        "cli",
    },
}
MANY_NAMES = {"generate_images"}  # takes the names that users of other libraries know beside our own
MAX_FILE, MAX_CLASS, MAX_FUNCTION, MAX_TRAIN, MAX_PARAMETERS, MAX_POSITIONAL = 450, 250, 60, 120, 8, 5
ONE_PLACE: dict[str, set[str]] = {
    ".begin_token(": {"layout.py", "segments.py", "generate/row.py"},
    ".end_token(": {"layout.py", "segments.py"},
    "softmax(": {"generate/token_sampling.py", "model/transformer.py"},
    "multinomial(": set(),
    "torch.distributed": set(),
    "torchvision": {"cli/doctor.py"},
    "import pickle": set(),
    "torch.load(": {"autoencoder/opening.py"},  # others' weights, as weights only
    "np.random.seed": set(),
    "os.environ": set(),
    "BlockMask(": set(),
}
BAD_NAMES = {"utils", "misc", "helpers", "common"}


def owner(path: Path) -> str:
    """Return the top-level module or package of a file."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the top-level names of ours that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("transfusion."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.module == "transfusion":
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("transfusion."))


def function_faults(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Yield what is wrong with one function."""
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    if length > (MAX_TRAIN if node.name == "train" else MAX_FUNCTION):
        yield f"{node.name} has {length} lines"
    arguments = node.args
    positional = [a for a in (*arguments.posonlyargs, *arguments.args) if a.arg not in ("self", "cls")]
    count = len(positional) + len(arguments.kwonlyargs)
    is_exempt = node.name in MANY_NAMES or any(isinstance(d, ast.Call) for d in node.decorator_list)
    if count > MAX_PARAMETERS and not is_exempt:
        yield f"{node.name} has {count} parameters"
    if len(positional) > MAX_POSITIONAL and not any(isinstance(d, ast.Call) for d in node.decorator_list):
        yield f"{node.name} has {len(positional)} positional parameters"
    if arguments.kwarg is not None:
        yield f"{node.name} takes **{arguments.kwarg.arg}"
    everything = (*positional, *arguments.kwonlyargs)
    if node.returns is None or any(a.annotation is None for a in everything):
        yield f"{node.name} is not annotated"
    yield from (f"{node.name} has a flag {a.arg}" for a in everything if a.arg.startswith("return_"))


def faults(source: str) -> list[str]:
    """Return what is wrong with the units of a module."""
    found: list[str] = []
    lines = source.count("\n")
    if lines > MAX_FILE:
        found.append(f"file has {lines} lines")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found += function_faults(node)
        elif isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno + 1 > MAX_CLASS:
            found.append(f"class {node.name} is too long")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    if path.parent == SOURCE and path.name.startswith("__"):
        return
    assert set(imports(ast.parse(path.read_text()))) - {owner(path)} <= ALLOWED[owner(path)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_budgets(path: Path) -> None:
    assert faults(path.read_text()) == []
    assert path.stem not in BAD_NAMES and not path.stem.endswith("_v2")
    assert "print(" not in path.read_text().replace("console.print(", "") or owner(path) == "cli"


@pytest.mark.parametrize("text", ONE_PLACE)
def test_one_rule_one_place(text: str) -> None:
    found = {path.relative_to(SOURCE).as_posix() for path in FILES if text in path.read_text()}
    assert found <= ONE_PLACE[text], text


def test_objective_and_engine_do_not_know_each_other() -> None:
    assert "generate" not in ALLOWED["objective"] and "objective" not in ALLOWED["generate"]
    assert ALLOWED["diffusion"] == {"diffusion"}


def closure(name: str, seen: set[str]) -> set[str]:
    """Collect the distributions that one needs, without extras."""
    try:
        requirements = distribution(name).requires or []
    except PackageNotFoundError:
        return seen
    for requirement in requirements:
        needed = requirement.split(";")[0].split("[")[0].split(">")[0].split("=")[0].split("<")[0].split("!")[0]
        needed = needed.split("~")[0].strip().lower()
        if "extra ==" not in requirement and needed not in seen:
            seen.add(needed)
            closure(needed, seen)
    return seen


def test_torchvision_is_no_core_dependency() -> None:
    names = closure("transfusion", set())
    assert {"torch", "pydantic"} <= names and "torchvision" not in names


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def f(a): ...", "f is not annotated"),
        ("def f(a: int, **rest: int) -> None: ...", "f takes **rest"),
        ("def f(*, return_mask: bool) -> None: ...", "f has a flag return_mask"),
        ("def f(a: int, b: int, c: int, d: int, e: int, g: int) -> None: ...", "f has 6 positional parameters"),
        ("def f(*," + ",".join(f"a{i}: int" for i in range(9)) + ") -> None: ...", "f has 9 parameters"),
        ("def f() -> None:\n" + "    x = 1\n" * 60, "f has 61 lines"),
        ("class C:\n" + "    x = 1\n" * 250, "class C is too long"),
        ("x = 1\n" * 451, "file has 451 lines"),
    ],
)
def test_the_checkers_find_faults(source: str, fault: str) -> None:
    assert fault in faults(source)


def test_the_import_checker_looks_inside_functions() -> None:
    assert set(imports(ast.parse("from transfusion import hub, run"))) == {"hub", "run"}
    assert set(imports(ast.parse("def f():\n    from transfusion.train.loop import train\n"))) == {"train"}
