"""The hub: pushed, fetched and refused, against a local stand-in that answers what the library asks of it."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tiny import equal, small

from transfusion import CheckpointError, ConfigError, Transfusion
from transfusion.hub import card, is_name
from transfusion.train.checkpoint import step_directory
from transfusion.train.manifest import OPTIMIZER_FILE, verify

NAME = "people/shapes"
MODEL = small()


class Hub(ThreadingHTTPServer):
    """Repositories in memory: for each the files of its branches."""

    def __init__(self) -> None:
        """Listen on a free port of this machine."""
        super().__init__(("127.0.0.1", 0), Answers)
        self.branches: dict[str, dict[str, bytes]] = {}
        self.fetched: list[str] = []
        self.made: list[dict[str, object]] = []

    def files(self, revision: str) -> dict[str, bytes]:
        """Return the files of a branch, or of the commit that it stands at."""
        return next(files for name, files in self.branches.items() if revision in (name, commit(name)))


def commit(branch: str) -> str:
    """Name the commit that a branch stands at."""
    return hashlib.sha1(branch.encode()).hexdigest()


class Answers(BaseHTTPRequestHandler):
    """What the hub answers."""

    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def answer(self, body: object, status: int = 200, **headers: str) -> None:
        """Send JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def missing(self, kind: str) -> None:
        """Say that something is not there."""
        self.answer({"error": f"{kind} not found"}, 404, X_Error_Code=kind)

    def do_HEAD(self) -> None:
        """Answer as a GET without a body."""
        self.do_GET()

    def do_GET(self) -> None:
        """Tell of a repository, list its files, or give one."""
        parts = urlsplit(self.path).path.strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        name, rest = ("/".join(parts[2:4]), parts[4:]) if is_api else ("/".join(parts[:2]), parts[2:])
        if name != NAME:
            return self.missing("RepoNotFound")
        revision = rest[1] if len(rest) > 1 else "main"
        if not any(revision in (branch, commit(branch)) for branch in self.server.branches):
            return self.missing("RevisionNotFound")
        files = self.server.files(revision)
        sha = next(commit(branch) for branch in self.server.branches if revision in (branch, commit(branch)))
        if is_api and rest[:1] == ["tree"]:
            listed = [{"type": "file", "path": n, "size": len(d), "oid": blob(d)} for n, d in sorted(files.items())]
            return self.answer(listed)
        if is_api:
            return self.answer({"id": name, "sha": sha, "siblings": [{"rfilename": found} for found in files]})
        if self.command == "GET":
            self.server.fetched.append(rest[2])
        return self.answer(files[rest[2]], ETag=f'"{blob(files[rest[2]])}"', X_Repo_Commit=sha)

    def do_POST(self) -> None:
        """Make a repository or a branch, or take a commit."""
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        parts = urlsplit(self.path).path.strip("/").split("/")
        if self.path == "/api/repos/create":
            self.server.made.append(json.loads(body))
            self.server.branches.setdefault("main", {})
            return self.answer({"url": f"https://huggingface.co/{NAME}"})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        kind, branch = parts[4], parts[5]
        if self.headers["Authorization"] == "Bearer wrong":
            return self.answer({"error": "you may not write here"}, 403)
        if kind == "branch":
            self.server.branches.setdefault(branch, {})
            return self.answer({})
        if kind == "preupload":
            asked = json.loads(body)["files"]
            return self.answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]}
            )
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.server.branches[branch][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del self.server.branches[branch][value["path"]]
        return self.answer(
            {"commitUrl": f"https://huggingface.co/{NAME}/commit/{commit(branch)}", "commitOid": commit(branch)}
        )


def blob(data: bytes) -> str:
    """Return git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Let the library find the stand-in for the hub, and an empty cache."""
    server = Hub()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    yield server
    server.shutdown()
    server.server_close()


def test_what_is_pushed_is_loaded_by_its_name(hub: Hub, tmp_path: Path) -> None:
    assert (
        MODEL.push_to_hub(NAME, private=True, token="key") == f"https://huggingface.co/{NAME}/commit/{commit('main')}"
    )
    assert hub.made[0]["name"] == "shapes" and hub.made[0]["organization"] == "people"
    assert sorted(hub.branches["main"]) == ["README.md", "config.json", "manifest.json", "model.safetensors"]
    again = Transfusion.from_pretrained(NAME, device="cpu", precision="fp32")
    assert equal(again.model.state_dict(), MODEL.model.state_dict()) and again.config == MODEL.config
    assert sorted(hub.fetched) == ["config.json", "manifest.json", "model.safetensors"]
    hub.fetched.clear()
    assert Transfusion.from_pretrained(NAME, precision="fp32").config == MODEL.config
    assert hub.fetched == []  # the cache has them
    for name, data in hub.branches["main"].items():  # as one clones it: with the card beside
        (tmp_path / "cloned").mkdir(exist_ok=True)
        (tmp_path / "cloned" / name).write_bytes(data)
    verify(tmp_path / "cloned")
    assert Transfusion.from_pretrained("cloned").config == MODEL.config


def test_another_branch_is_another_model(hub: Hub) -> None:
    MODEL.push_to_hub(NAME)
    other = small("model.trunk.depth=2")
    other.push_to_hub(NAME, revision="deeper")
    assert Transfusion.from_pretrained(NAME).config.model.trunk.depth == 1
    assert Transfusion.from_pretrained(NAME, revision="deeper").config == other.config
    with pytest.raises(CheckpointError, match="people/shapes at revision 'none' cannot be fetched"):
        Transfusion.from_pretrained(NAME, revision="none")


def test_only_the_files_of_a_model_are_fetched_and_kept(hub: Hub) -> None:
    MODEL.push_to_hub(NAME)
    hub.branches["main"] |= {OPTIMIZER_FILE: b"moments", "samples.png": b"png", "ema.safetensors": b"another's"}
    assert equal(
        Transfusion.from_pretrained(NAME, precision="fp32").model.state_dict(), MODEL.model.state_dict()
    )  # what the manifest does not name is not read
    assert OPTIMIZER_FILE not in hub.fetched and "samples.png" not in hub.fetched
    MODEL.push_to_hub(NAME)
    assert "ema.safetensors" not in hub.branches["main"] and "samples.png" in hub.branches["main"]


def test_damage_on_the_way_is_found(hub: Hub) -> None:
    MODEL.push_to_hub(NAME)
    data = hub.branches["main"]["model.safetensors"]
    hub.branches["main"]["model.safetensors"] = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(CheckpointError, match="differs from its manifest's SHA-256"):
        Transfusion.from_pretrained(NAME)


def test_what_lies_here_comes_first(hub: Hub) -> None:
    MODEL.push_to_hub(NAME)
    other = small("model.trunk.depth=2")
    other.save_pretrained(NAME)
    assert Transfusion.from_pretrained(NAME).config == other.config and hub.fetched == []
    with pytest.raises(ConfigError, match="revision='main' is of the hub, and people/shapes lies here"):
        Transfusion.from_pretrained(NAME, revision="main")
    (Path(NAME) / "model.safetensors").unlink()  # damaged, and still what is meant
    with pytest.raises(CheckpointError, match=r"lacks model\.safetensors"):
        Transfusion.from_pretrained(NAME)
    step = other.save_pretrained(step_directory(Path("runs/mine"), 1))
    assert Transfusion.from_pretrained("runs/mine").weights_file == step / "model.safetensors"
    assert hub.fetched == []


def test_what_is_nowhere_is_told(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at runs/demo; .*nor .* from the hub: .*runs/demo"):
        Transfusion.from_pretrained("runs/demo")
    for path in (Path("runs/demo"), "nowhere", "a/b/c", "./runs/demo", "/runs/demo"):
        with pytest.raises(CheckpointError, match="no checkpoint at") as caught:
            Transfusion.from_pretrained(path)
        assert "hub" not in str(caught.value)
    hub.branches["main"] = {}
    with pytest.raises(CheckpointError, match="people/shapes cannot be pushed to the hub: .*you may not write here"):
        MODEL.push_to_hub(NAME, token="wrong")
    with pytest.raises(CheckpointError, match="cannot be pushed to the hub"):
        MODEL.push_to_hub("a/b/c")


def test_a_path_of_which_the_first_part_lies_here_is_never_asked_for(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del hub
    monkeypatch.chdir(tmp_path)
    asked: list[object] = []
    monkeypatch.setattr("transfusion.hub.fetch", lambda *names, **more: asked.append(names))  # pyright: ignore
    (tmp_path / "mine").mkdir()
    for name in ("mine/dmo", "./runs/demo", "runs/demo/checkpoints", "/runs/demo", "../runs", "nowhere"):
        with pytest.raises(CheckpointError, match="no checkpoint") as raised:
            Transfusion.from_pretrained(name)
        assert ("a path here, so that the hub is not asked" in str(raised.value)) == (name == "mine/dmo")
    assert asked == []


def test_a_hub_that_is_not_there_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    for ask in (lambda: Transfusion.from_pretrained(NAME), lambda: MODEL.push_to_hub(NAME)):
        with pytest.raises(CheckpointError, match="people/shapes cannot be (fetched|pushed)"):
            ask()


def test_a_card_says_what_a_model_is() -> None:
    told = card(NAME, MODEL.config, 2_800_000)
    assert told.startswith("---\nlibrary_name: transfusion\n") and "pipeline_tag: text-to-image" in told
    for part in ("license: unknown", "draw, caption, ask, edit", "built-in world", "32 × 32", "2.8 M", NAME, ".edit("):
        assert part in told
    written = card(NAME, small("model.modalities=[]", "data.kind=folder", "data.path=/home/me/verse.txt").config, 1)
    assert "text-generation" in written and "verse.txt" in written and "/home/me" not in written
    assert "stream_text" in written and "pixels" not in written


def test_a_card_says_how_many_steps_were_taken(hub: Hub) -> None:
    MODEL.push_to_hub(NAME)
    assert f"up to {MODEL.config.train.steps} steps of" in hub.branches.pop("main")["README.md"].decode()
    folder = MODEL.save_pretrained("some")
    model = Transfusion.from_pretrained(folder, precision="fp32")
    (folder / "state.json").write_text('{"step": 7, "train_seconds": 1, "data": null, "origin": null}')
    model.push_to_hub(NAME)
    assert ", 7 steps of" in hub.branches.pop("main")["README.md"].decode()
    (folder / "state.json").write_text("{")
    model.push_to_hub(NAME)
    assert "up to" in hub.branches["main"]["README.md"].decode()


def test_a_card_that_people_wrote_stays(hub: Hub) -> None:
    MODEL.push_to_hub(NAME)
    hub.branches["main"]["README.md"] = b"mine"
    small("model.trunk.depth=2").push_to_hub(NAME)
    assert hub.branches["main"]["README.md"] == b"mine"
    assert Transfusion.from_pretrained(NAME).config.model.trunk.depth == 2


def test_names_of_the_hub() -> None:
    assert all(map(is_name, ("org/name", "me/my-model_2.0", "runs/demo")))
    assert not any(map(is_name, ("name", "a/b/c", "/a/b", "./a/b", "../a", "~/a", "a/", "a b/c", "a/.b", "")))
