"""Reading the file formats of the data room: idx, npz, csv and plain text, gzipped or not.

Files are named relative to one directory, ``config.data.dir``, or ``GMJAX_DATA_DIR`` where
that is empty; an absolute name needs neither. Whatever is wrong with a file ends in a
``UserError`` that names it.
"""

import csv
import gzip
import io
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gmjax.types import UserError

Config = Mapping[str, Any]

IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def directory(config: Config, expected: str) -> Path:
    """The data directory: `config.dir`, or the environment's GMJAX_DATA_DIR.

    Args:
        config: the data configuration.
        expected: what the caller looks for in it, for the message.

    Raises:
        UserError: neither is set, or there is no such directory.
    """
    named = config["dir"]
    source = "config.data.dir" if named else "GMJAX_DATA_DIR"
    path = named or os.environ.get("GMJAX_DATA_DIR", "")
    if not path:
        raise UserError(
            "config.data.dir='' and GMJAX_DATA_DIR is unset; "
            f"valid: a directory that holds {expected}"
        )
    if not Path(path).expanduser().is_dir():
        raise UserError(f"{source}={path!r} is no directory; expected one that holds {expected}")
    return Path(path).expanduser()


def locate(config: Config, name: str, key: str = "dir") -> Path:
    """The file `name` of the data directory, or its gzipped twin.

    Args:
        config: the data configuration.
        name: relative to the data directory, or absolute.
        key: the key that named the file, for the message.

    Raises:
        UserError: there is no such file.
    """
    if not name:
        raise UserError(f"config.data.{key}='' names no file; valid: a file of config.data.dir")
    path = Path(name).expanduser()
    if not path.is_absolute():
        path = directory(config, name) / path
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    raise UserError(
        f"config.data.{key}: no file {path} (nor {path.name}.gz); "
        "set config.data.dir or GMJAX_DATA_DIR to the directory that holds it"
    )


def read_bytes(path: Path) -> bytes:
    """The contents of a file, decompressed where its name ends in .gz.

    Raises:
        UserError: the compressed file is damaged.
    """
    data = path.read_bytes()
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is no intact gzip file: {error}") from error


def read_text(path: Path) -> str:
    """The contents of a UTF-8 text file, line ends as \\n.

    Raises:
        UserError: the file is not UTF-8.
    """
    try:
        text = read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: byte {error.start}") from error
    return text.replace("\r\n", "\n")


def read_idx(path: Path) -> np.ndarray:
    """An array in the idx format of the MNIST files.

    Two zero bytes, a type code, the rank, the sizes as big-endian uint32, the entries.

    Raises:
        UserError: wrong magic number, or more or fewer entries than the sizes promise.
    """
    data = read_bytes(path)
    rank = data[3] if len(data) > 3 else 0
    start = 4 + 4 * rank
    if len(data) < start or data[:2] != b"\0\0" or data[2] not in IDX_TYPES:
        raise UserError(f"{path} is no idx file: it begins with {data[:4].hex()!r}")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", rank, 4))
    dtype = np.dtype(IDX_TYPES[data[2]])
    if len(data) - start != math.prod(shape) * dtype.itemsize:
        raise UserError(f"{path} is damaged: {len(data) - start} bytes for entries {shape}")
    array = np.frombuffer(data, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def read_npz(path: Path, *required: str) -> dict[str, np.ndarray]:
    """All arrays of an npz file.

    Args:
        path: the file.
        *required: names that must be there.

    Raises:
        UserError: the file cannot be read (pickled objects are refused) or lacks a name.
    """
    try:
        with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except TypeError:
        raise UserError(
            f"{path} is no npz file but one array; valid: np.savez(file, x=array)"
        ) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is no npz file of plain arrays: {error}") from error
    for name in required:
        if name not in arrays:
            raise UserError(f"{path} has no array {name!r}; it holds {', '.join(sorted(arrays))}")
    return arrays


def read_csv(path: Path, delimiter: str = ",") -> list[list[str]]:
    """The cells of a table, without its header; as `read_table`."""
    return read_table(path, delimiter)[1]


def read_table(path: Path, delimiter: str = ",") -> tuple[list[str], list[list[str]]]:
    """The header of a table, or an empty list, and its cells.

    A first row in which no cell is a number, above one in which some cell is, is a header.

    Raises:
        UserError: no rows, or rows of unequal length.
    """
    reader = csv.reader(io.StringIO(read_text(path)), delimiter=delimiter, skipinitialspace=True)
    rows = [[cell.strip() for cell in row] for row in reader if row]
    header: list[str] = []
    if len(rows) > 1 and not any(map(is_number, rows[0])) and any(map(is_number, rows[1])):
        header, rows = rows[0], rows[1:]
    if not rows:
        raise UserError(f"{path} has no rows")
    for i, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise UserError(f"{path}: row {i + 1} has {len(row)} cells, row 1 has {len(rows[0])}")
    return header, rows


def is_number(cell: str) -> bool:
    """Does a cell hold a number?"""
    try:
        float(cell)
    except ValueError:
        return False
    return True
