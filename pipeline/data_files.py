"""Arrays from the file formats that a run accepts: `.npy`, `.npz#key`, `.zarr/path`, `.csv#column`.

Nothing read here is ever unpickled.
"""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import numpy as np

from pipeline.errors import InputError

FORMATS = ".npy, .npz#key, .zarr/path, .csv or .csv#column"


def read_array(location: str, field: str, *, drop: str | None = None) -> np.ndarray:
    """The array at `file` or `file#part`; `field` is what errors call it, `drop` a CSV column to leave out.

    Raises:
        InputError: no such file or part, an unknown format, a pickled or damaged file.
    """
    file, part = split_location(location)
    path = Path(file)
    if any(name.endswith(".zarr") for name in path.parts) and not path.is_file():
        return _zarr(path, field)
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "no such file"
        raise InputError(f"{field}: {file}: {what}", hint=f"name a file, of {FORMATS}")
    readers = {".npy": _npy, ".npz": _npz, ".csv": _csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{field}: {file}: unknown format {path.suffix!r}", hint=f"formats are {FORMATS}")
    if part and reader is _npy:
        raise InputError(f"{field}: {location}: a .npy file has no parts, leave out #{part}")
    return (
        reader(path, part or drop or "", field, bool(part)) if reader is _csv else reader(path, part, field)
    )


def split_location(location: str) -> tuple[str, str]:
    """`file#part` → (file, part); only the last component of a path can name a part."""
    folder, slash, name = location.rpartition("/")
    file, _, part = name.partition("#")
    return folder + slash + file, part


def _npy(path: Path, part: str, field: str) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _unreadable(field, path, error) from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(
            f"{field}: {path}: holds an archive, not one array", hint="name it .npz and add #key"
        )
    return array


def _npz(path: Path, part: str, field: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if isinstance(archive, np.ndarray):
                return archive
            keys = archive.files
            if not part and len(keys) != 1:
                raise InputError(
                    f"{field}: {path}: holds {len(keys)} arrays", hint=f"add #key: {', '.join(keys[:20])}"
                )
            name = part or keys[0]
            if name not in keys:
                raise InputError(
                    f"{field}: {path}: no array {name!r}", hint=f"it holds {', '.join(keys[:20])}"
                )
            return archive[name]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise _unreadable(field, path, error) from None


def _csv(path: Path, column: str, field: str, only: bool) -> np.ndarray:
    """All columns, or just one (`only`), or all but one; a first row with a cell that is no number is a header."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise _unreadable(field, path, error) from None
    if not rows:
        raise InputError(f"{field}: {path}: empty file")
    header = [cell.strip() for cell in rows[0]] if not all(_is_number(cell) for cell in rows[0]) else None
    body = rows[1:] if header else rows
    ragged = next((i for i, row in enumerate(body) if len(row) != len(rows[0])), None)
    if ragged is not None:
        line = ragged + (2 if header else 1)
        raise InputError(
            f"{field}: {path}:{line}: {len(body[ragged])} columns, but the first row has {len(rows[0])}"
        )
    if column:
        index = _column(column, header, len(rows[0]), path, field)
        body = [[row[index]] if only else row[:index] + row[index + 1 :] for row in body]
    try:
        values = np.array(body, dtype=np.float64)
    except ValueError:
        if only:
            return np.array([row[0].strip() for row in body])
        row, cell = next((i, c) for i, line in enumerate(body) for c in line if not _is_number(c))
        line = row + (2 if header else 1)
        raise InputError(
            f"{field}: {path}:{line}: {cell!r} is not a number", hint="features must be numbers"
        ) from None
    return values[:, 0] if only else values


def _column(name: str, header: list[str] | None, width: int, path: Path, field: str) -> int:
    if header and name in header:
        return header.index(name)
    if name.isdigit() and int(name) < width:
        return int(name)
    known = ", ".join(header[:20]) if header else f"0 … {width - 1} (the file has no header)"
    raise InputError(f"{field}: {path}: no column {name!r}", hint=f"columns are {known}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _zarr(path: Path, field: str) -> np.ndarray:
    from pipeline.store.external import read_zarr

    return read_zarr(path, field)


def _unreadable(field: str, path: Path, error: Exception) -> InputError:
    text = str(error).split("\n")[0]
    # What is none of its files NumPy takes for a pickle.
    if "pickle" in text.lower():
        with path.open("rb") as stream:
            if not stream.read(6).startswith((b"\x93NUMPY", b"PK")):
                return InputError(
                    f"{field}: {path}: is no file of NumPy's, whatever its name",
                    hint=f"formats are {FORMATS}",
                )
        return InputError(
            f"{field}: {path}: holds pickled objects, which are never loaded",
            hint="save plain numbers with numpy.save(..., allow_pickle=False)",
        )
    return InputError(f"{field}: {path}: cannot be read: {text or type(error).__name__}")


def numeric(array: np.ndarray, field: str) -> np.ndarray:
    """As float64, refusing what is no number and what is not finite."""
    if array.dtype.kind not in "fiub":
        raise InputError(f"{field}: expected real numbers, got dtype {array.dtype}")
    array = np.ascontiguousarray(array, dtype=np.float64)
    finite = (
        np.isfinite(array).reshape(len(array), -1).all(axis=1) if array.size else np.ones(len(array), bool)
    )
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise InputError(
            f"{field}: NaN or Inf in {len(bad)} of {len(array)} rows: {some(bad)}",
            hint="remove or impute these rows (numbered from 0)",
        )
    return array


def some(indices: np.ndarray, most: int = 10) -> str:
    """The first row numbers, for a message."""
    shown = ", ".join(str(i) for i in indices[:most])
    return shown if len(indices) <= most else f"{shown}, …"
