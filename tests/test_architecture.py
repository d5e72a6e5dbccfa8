"""The house rules: imports go one way, heavy libraries have one door each, and packages are cheap to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LEVELS = [
    ("pipeline.documents", "pipeline.errors"),
    ("pipeline.config",),
    ("pipeline.plan",),
    ("pipeline.report", "pipeline.runtime", "pipeline.store"),
    ("pipeline.data_files", "pipeline.data_teacher"),
    ("pipeline.data_targets",),
    ("pipeline.data",),
    ("pipeline.stages",),
    ("pipeline.opened", "pipeline.estimators", "pipeline.cli"),
    ("pipeline.__main__",),
]
"""From the ground up: a module imports from levels below its own; within a level only from its own package."""

DOORS = {
    "zarr": "pipeline.store",
    "dask": "pipeline.runtime",
    "distributed": "pipeline.runtime",
    "prometheus_client": "pipeline.runtime",
    "typer": "pipeline.cli",
    "rich": "pipeline.cli",
    "matplotlib": "pipeline.report",
    "jinja2": "pipeline.report",
}
"""Libraries that one package only may import."""

NTK_MAY_IMPORT = {"jax", "numpy", "scipy", "threadpoolctl", "ntk"}


def modules(package: str) -> list[tuple[str, Path]]:
    """(dotted name, file) of every module in a package."""
    found = []
    for file in sorted((ROOT / package).rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), file))
    return found


def imports(file: Path) -> set[str]:
    """Every absolute module name that a file imports, wherever in it, type checking included."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add(str(node.module))
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def level(module: str) -> tuple[int, str] | None:
    """Level of a pipeline module and the package of that level it belongs to."""
    for height, packages in enumerate(LEVELS):
        for package in packages:
            if module == package or module.startswith(package + "."):
                return height, package
    return None


def dotted(value: object) -> str:
    """Test ids show the module, not its file."""
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(("name", "file"), modules("pipeline"), ids=dotted)
def test_pipeline_imports_go_one_way(name: str, file: Path) -> None:
    if name == "pipeline":
        return  # names what it exports, and imports it on first use
    own = level(name)
    assert own is not None, f"{name} has no place in the house: give it one in LEVELS"
    for imported in imports(file):
        other = level(imported)
        if other is not None:
            assert other[1] == own[1] or other[0] < own[0], f"{name} may not import {imported}"


@pytest.mark.parametrize(("name", "file"), modules("pipeline"), ids=dotted)
def test_each_library_has_one_door(name: str, file: Path) -> None:
    for imported in imports(file):
        door = DOORS.get(imported.split(".")[0])
        assert door is None or name.startswith(door), f"{name} imports {imported}; only {door} may"


@pytest.mark.parametrize(("name", "file"), modules("ntk"), ids=dotted)
def test_the_library_stands_alone(name: str, file: Path) -> None:
    for imported in imports(file):
        top = imported.split(".")[0]
        assert top in NTK_MAY_IMPORT or top in sys.stdlib_module_names, f"{name} imports {imported}"


@pytest.mark.parametrize("stage", ["gram", "solve", "predict", "spectrum", "report"])
def test_no_stage_imports_another(stage: str) -> None:
    others = {f"pipeline.stages.{other}" for other in ("gram", "solve", "predict", "spectrum", "report")} - {
        f"pipeline.stages.{stage}"
    }
    assert not imports(ROOT / "pipeline" / "stages" / f"{stage}.py") & others


@pytest.mark.parametrize(("name", "file"), modules("ntk") + modules("pipeline"), ids=dotted)
def test_only_public_jax(name: str, file: Path) -> None:
    assert not any("._src" in imported for imported in imports(file)), name


@pytest.mark.parametrize(
    "statement",
    [
        "import ntk",
        "from ntk import stax",
        "import pipeline",
        "import pipeline.cli.app",
        "import pipeline.stages.status",
    ],
)
def test_imports_are_cheap(statement: str) -> None:
    """None of these may pull in the libraries that take a second to import."""
    heavy = {"jax", "zarr", "distributed", "dask", "scipy", "matplotlib"}
    probe = f"{statement}; import sys; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_names_that_say_nothing() -> None:
    for name, _ in modules("ntk") + modules("pipeline"):
        assert name.rsplit(".", 1)[-1] not in {"utils", "helpers", "common", "misc"}
