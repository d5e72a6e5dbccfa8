"""Reading and writing YAML: YAML 1.2, plain data only, errors with file and line.

ruamel.yaml's safe pure reader takes `1e-6` for a number and refuses a key given twice, both of which PyYAML gets
wrong; tags are refused by it, and the size is bounded here so that a nest of aliases cannot blow up.
"""

from __future__ import annotations

import io
from typing import Any, Protocol

from pipeline.errors import InputError, PipelineError

MAX_NODES = 100_000
"""Values a configuration may hold once every alias is written out."""


class File(Protocol):
    """A file that can be read as text: a `Path`, or an object in a bucket."""

    @property
    def parent(self) -> Any: ...

    def read_text(self, encoding: str = ...) -> str: ...

    def resolve(self) -> Any: ...


def read(path: File) -> Any:
    """The plain data in a YAML file.

    Raises:
        InputError: the file is missing, not UTF-8, not YAML, has a key twice, a tag, or too many aliases.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file", hint="`ntk init PATH` writes a run.yaml to start from"
        ) from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a directory, expected a YAML file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except PipelineError:
        raise  # an object store's, which says for itself what is wrong
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Any:
    """The plain data in a YAML text; `name` is what errors call it."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        data = YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        raise InputError(
            f"{name}{_where(error)}: {_first_line(error.problem)}", hint="keep one of the two"
        ) from None
    except ConstructorError as error:
        raise InputError(
            f"{name}{_where(error)}: {error.problem}", hint="YAML tags are not accepted: write plain values"
        ) from None
    except MarkedYAMLError as error:
        raise InputError(f"{name}{_where(error)}: not YAML: {error.problem}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{name}: not YAML: {_first_line(str(error)) or type(error).__name__}") from None
    _bounded(data, name)
    return data


def write(data: Any, header: str = "") -> str:
    """A YAML text of plain data, keys in the order given; `header` becomes leading comment lines."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    yaml.width = 110
    stream = io.StringIO()
    yaml.dump(data, stream)
    return "".join(f"# {line}\n" for line in header.splitlines()) + stream.getvalue()


def _where(error: Any) -> str:
    mark = error.problem_mark
    return "" if mark is None else f":{mark.line + 1}:{mark.column + 1}"


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]


def _bounded(data: Any, name: str) -> None:
    """Walk the data as if every alias were written out, and stop at the limit; refuse what JSON cannot hold."""
    pending, seen = [data], 0
    while pending:
        value = pending.pop()
        seen += 1
        if seen > MAX_NODES:
            raise InputError(
                f"{name}: more than {MAX_NODES:,} values once aliases are written out",
                hint="a configuration is small: remove the nested aliases",
            )
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise InputError(f"{name}: key {key!r} is not text")
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif value is not None and not isinstance(value, str | int | float | bool):
            raise InputError(
                f"{name}: {value!r} ({type(value).__name__}) is not a plain value", hint="put it in quotes"
            )
