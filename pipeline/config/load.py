"""From files and command-line overrides to validated configuration, with errors that name file, field and remedy."""

from __future__ import annotations

import difflib
import os
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.config import yaml
from pipeline.config.cluster import DEFAULT, AnyCluster, Clusters
from pipeline.config.model import RunConfig
from pipeline.errors import InputError

RESOLVED = "resolved"
"""Key under which a run directory's run.yaml keeps versions and fingerprints; ignored on reading."""

CLUSTER_FILE = "cluster.yaml"
CLUSTER_FILE_VARIABLE = "NTK_CLUSTER_FILE"


def load_run(path: yaml.File, overrides: Sequence[str] = ()) -> RunConfig:
    """The validated configuration in a file, after `a.b=value` overrides; data paths are made absolute.

    Raises:
        InputError: with every problem found, each by the path of its field.
    """
    data = yaml.read(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping with `data` and `kernel`, got {_kind(data)}")
    data.pop(RESOLVED, None)
    for text in overrides:
        _override(data, text)
    return _absolute(validate(RunConfig, data, str(path)), _folder(path))


def load_cluster(name: str, beside: Path) -> AnyCluster:
    """The cluster of that name, from the first of: $NTK_CLUSTER_FILE, cluster.yaml in folder `beside`, cluster.yaml in
    the current directory, the built-in entries.

    Raises:
        InputError: no such cluster, or a cluster.yaml that does not validate.
    """
    chosen = os.environ.get(CLUSTER_FILE_VARIABLE)
    candidates = [Path(chosen)] if chosen else [beside / CLUSTER_FILE, Path.cwd() / CLUSTER_FILE]
    known: dict[str, Any] = dict(DEFAULT)
    where = "the built-in clusters"
    for file in candidates:
        if chosen or file.is_file():
            known |= validate(Clusters, yaml.read(file) or {}, str(file)).root
            where = str(file)
            break
    if name not in known:
        raise InputError(
            f"cluster {name!r} is not in {where}: known are {', '.join(sorted(known))}",
            hint=_nearest(name, known)
            or f"--cluster chooses another; ${CLUSTER_FILE_VARIABLE} names a cluster.yaml",
        )
    return known[name]


def origin(path: yaml.File) -> Path:
    """The folder that names in a run.yaml are relative to: where the file lies, or, for the run.yaml of a run
    directory, where the file it was made from lay (if that is still there)."""
    data = yaml.read(path)
    facts = data.get(RESOLVED) if isinstance(data, dict) else None
    folder = Path(facts["folder"]) if isinstance(facts, dict) and "folder" in facts else None
    return folder if folder is not None and folder.is_dir() else _folder(path)


def _folder(path: yaml.File) -> Path:
    """The folder of a configuration, which for one in a bucket is the current one."""
    parent = path.resolve().parent
    return parent if isinstance(parent, Path) else Path.cwd()


def is_resolved(path: yaml.File) -> bool:
    """Whether a run.yaml is the one inside a run directory."""
    data = yaml.read(path)
    return isinstance(data, dict) and RESOLVED in data


def validate[M: BaseModel](model: type[M], data: Any, name: str) -> M:
    """Plain data checked against a model; `name` is what errors call the document.

    Raises:
        InputError: one line per problem.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [_explain(model, problem) for problem in error.errors(include_url=False)]
    # A field that may be one of several kinds fails once for each of them: one line, the kinds joined by "or".
    messages: dict[tuple[str, str], list[str]] = {}
    for field, message, got, _ in problems:
        messages.setdefault((field, got), []).append(message)
    lines = []
    for (field, got), several in messages.items():
        distinct = list(dict.fromkeys(several))
        text = distinct[0] + "".join(f" or {message.removeprefix('must be ')}" for message in distinct[1:])
        lines.append(f"{name}: {field + ': ' if field else ''}{text}{got}")
    hints = list(dict.fromkeys(hint for *_, hint in problems if hint))
    raise InputError("\n".join(lines), hint="; ".join(hints) or None)


def _explain(model: type[BaseModel], problem: Any) -> tuple[str, str, str, str | None]:
    """One validation problem as (field, message, got, hint)."""
    # Discriminator tags and union branches appear in pydantic's locations below the name of the field or cluster.
    # A cluster of kind `address` has a field of that name below its tag.
    parts = problem["loc"]
    location = [
        part
        for depth, part in enumerate(parts)
        if depth == 0 or not _is_branch(part) or (depth > 1 and part == parts[depth - 1])
    ]
    field = ".".join(str(part) for part in location)
    got = problem.get("input")
    kind = problem["type"]
    if kind == "extra_forbidden":
        key = str(location[-1])
        known = _fields(model, location[:-1])
        return field, "unknown key", "", _nearest(key, known) or f"known keys: {', '.join(sorted(known))}"
    if kind == "missing":
        return field, "missing, and it has no default", "", None
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    for theirs, ours in _WORDING.items():
        message = message.replace(theirs, ours)
    return field, message, "" if isinstance(got, dict | list) else f", got {got!r}", None


def _is_branch(part: Any) -> bool:
    return isinstance(part, str) and (part in _BRANCHES or "[" in part)


_WORDING = {
    "input should be": "must be",
    "a valid dictionary or instance of": "a mapping, as for",
    "a valid tuple": "a list",
    "a valid list": "a list",
    "a valid dictionary": "a mapping",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "text",
    "a valid boolean": "true or false",
    "greater than or equal to": ">=",
    "greater than": ">",
    "less than or equal to": "<=",
    "less than": "<",
}


_BRANCHES = frozenset(
    {
        "int",
        "float",
        "str",
        "list",
        "dict",
        "tuple",
        "local",
        "serial",
        "slurm",
        "local-gpu",
        "ssh",
        "address",
        "hypothetical",
        "constrained-int",
        "constrained-str",
    }
)


def _fields(model: type[BaseModel], location: Sequence[Any]) -> set[str]:
    """The keys that the mapping at a location may have."""
    if model is Clusters:
        return {name for kind in typing.get_args(AnyCluster) for name in kind.model_fields}
    current: Any = model
    for part in location:
        if isinstance(part, str) and isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(part)
            current = None if field is None else _inner_model(field.annotation)
    return (
        set(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else set()
    )


def _inner_model(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for option in typing.get_args(annotation):
            if isinstance(option, type) and issubclass(option, BaseModel):
                return option
    return annotation


def _nearest(word: str, known: Any) -> str | None:
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean `{match[0]}`?" if match else None


def _override(data: dict[str, Any], text: str) -> None:
    """Put `a.b=value` into nested mappings; the value is YAML."""
    path, separator, value = text.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise InputError(f"--set {text}: expected a.b=value", hint="for example --set solve.ridge=[1e-6]")
    parsed = yaml.parse(value, f"--set {path}")
    here = data
    for key in keys[:-1]:
        below = here.get(key)
        if below is None:
            below = {}
        if not isinstance(below, dict):
            raise InputError(f"--set {text}: {key} is not a mapping, it holds {_kind(below)}")
        here[key] = below = dict(below)
        here = below
    here[keys[-1]] = parsed


def _absolute(config: RunConfig, folder: Path) -> RunConfig:
    """The same configuration with data paths that no longer depend on where the file lay."""

    def resolve(source: Any) -> Any:
        if source is None or source.x is None:
            return source
        places = {key: value for key in ("x", "y") if (value := getattr(source, key)) is not None}
        changed = {key: str(folder / value) for key, value in places.items()}
        return source.model_copy(update=changed)

    data = config.data.model_copy(
        update={"train": resolve(config.data.train), "test": resolve(config.data.test)}
    )
    return config.model_copy(update={"data": data})


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__} ({value!r:.60})"
