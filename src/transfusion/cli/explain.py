"""What ``config --explain`` tells: every setting with its value, its default, what it means and what it may be.

All of it follows from the tree of settings; nothing of a setting is written here.
"""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel

from transfusion.config import MOOT, NEEDS, ConfigError, RunConfig, kinds_at
from transfusion.train.autoencoder import settings

KIND = "kind"
INDENT = "    "
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
    "minLength": "characters, at least",
    "minItems": "entries, at least",
}
WORDS = {"string": "text", "boolean": "true | false", "integer": "a whole number", "number": "a number"}


@dataclass(frozen=True)
class Explained:
    """One setting.

    Attributes:
        path: How it is named on the command line.
        value: As it stands, in JSON.
        default: What it is where nothing else is said.
        meaning: What it decides, with its unit.
        allowed: Choices and bounds.
        needs: What must be so that it reaches anything; empty if it always does.
    """

    path: str
    value: object
    default: object
    meaning: str
    allowed: str
    needs: str


def explained(config: BaseModel, paths: Sequence[str] = ()) -> list[Explained]:
    """Explain every setting of a tree, or those at and below paths; of several kinds the chosen, the others by name.

    Raises:
        ConfigError: There is nothing at a path.
    """
    rows = list(_explained(config, "", type(config)))
    for path in paths:
        if not any(_is_below(row.path, path) for row in rows):
            groups = sorted({_group(row.path) for row in rows} - {""})
            raise ConfigError(f"there is no setting {path!r} to explain; groups are {', '.join(groups)}")
    return [row for row in rows if not paths or any(_is_below(row.path, path) for path in paths)]


def _is_below(setting: str, path: str) -> bool:
    return f"{setting}.".startswith(f"{path.rstrip('.')}.")


def told(rows: Iterable[Explained], width: int) -> str:
    """Lay explanations out in lines of a width, in groups; names and values are never broken."""
    lines: list[str] = []
    group = None
    for row in rows:
        if _group(row.path) != group:
            group = _group(row.path)
            lines += ["", f"[{group or 'the run'}]"]
        lines.append(f"{row.path}={json.dumps(row.value, ensure_ascii=False)}")
        default = "" if row.default == row.value else f"default {json.dumps(row.default, ensure_ascii=False)}"
        for text in (row.meaning, row.allowed, default, row.needs):
            lines += textwrap.wrap(
                text,
                width,
                initial_indent=INDENT,
                subsequent_indent=INDENT,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines).strip("\n")


def as_value(rows: Iterable[Explained]) -> list[dict[str, object]]:
    """Return explanations as a JSON value."""
    return [asdict(row) for row in rows]


def _group(path: str) -> str:
    return path.rpartition(".")[0]


def _explained(node: BaseModel, prefix: str, root: type[BaseModel]) -> Iterator[Explained]:
    tree, schema = node.model_dump(mode="json"), node.model_json_schema()["properties"]
    for name in type(node).model_fields:
        path, value = f"{prefix}{name}", getattr(node, name)
        parts = value if isinstance(value, tuple) else ()
        if isinstance(value, BaseModel):
            yield from _explained(value, f"{path}.", root)
        elif parts and all(isinstance(part, BaseModel) for part in parts):
            for number, part in enumerate(parts):
                yield from _explained(part, f"{path}.{number}.", root)
        else:
            yield _leaf(type(node), path, tree[name], schema[name], root)


def _leaf(
    model: type[BaseModel], path: str, value: object, schema: Mapping[str, Any], root: type[BaseModel]
) -> Explained:
    kinds = kinds_at(_group(path).split("."), root) if path.endswith(f".{KIND}") else {}
    meaning = str(schema.get("description", "")) or (_first_line(model) if kinds else "")
    choices = "; ".join(f"{kind}: {_first_line(found)}" for kind, found in kinds.items())
    return Explained(
        path=path,
        value=value,
        default=schema.get("default"),
        meaning=re.sub(r"\bNone\b", "null", meaning),  # as it is written on the command line
        allowed=choices or ", ".join([_kind_of(schema), *_bounds(schema)]),
        needs=_needs(path, root),
    )


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _kind_of(schema: Mapping[str, Any]) -> str:
    """Say in words what a JSON schema allows."""
    if "anyOf" in schema:
        return " | ".join(_kind_of(part) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " | ".join(map(str, schema.get("enum", [schema.get("const")])))
    if "prefixItems" in schema:
        return f"[{', '.join(_kind_of(part) for part in schema['prefixItems'])}]"
    if "items" in schema:
        return f"a list, each {_kind_of(schema['items'])}"
    kind = str(schema.get("type", "settings of its own"))
    return "a path" if schema.get("format") == "path" else WORDS.get(kind, kind)


def _bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    for part in [schema, *schema.get("anyOf", ())]:
        if "prefixItems" not in part:  # its length is in its kind
            yield from (f"{words} {part[name]}" for name, words in BOUNDS.items() if name in part)


def _needs(path: str, root: type[BaseModel]) -> str:
    needs, moot = (NEEDS, MOOT) if root is RunConfig else ({**NEEDS, **settings.NEEDS}, settings.MOOT)
    if path in needs:
        other, wanted = needs[path]
        return f"reaches something only with {other}={wanted}"
    if path in moot:
        other, value = moot[path]
        return f"means nothing at {other}={value}"
    return ""
