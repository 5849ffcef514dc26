"""Reading the file formats of the data room: idx, npz and plain text, gzipped or not.

Files are named relative to one directory, ``config.data.dir``, or ``GMJAX_DATA_DIR`` where
that is empty; an absolute name needs neither. Whatever is wrong with a file ends in a
``UserError`` that names it.

A small file can promise or unpack to more than the machine holds. So sizes in headers are
compared with the bytes that are there, nothing larger than a share of the memory is read, and
compressed data may not grow more than `GROWTH`-fold once they pass `SMALL` bytes.
"""

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
IDX_RANKS = range(1, 5)
GROWTH, SMALL = 200, 2**26
PIECE = 2**24  # bytes decompressed at a time
# One part of the memory that a file may fill: arrays are copied, the cells of a table become
# Python strings, up to fifty bytes to a character.
ARRAYS, TEXT = 4, 64


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
    path = os.path.expanduser(path)
    if not os.path.isdir(path):
        raise UserError(f"{source}={path!r} is no directory; expected one that holds {expected}")
    return Path(path)


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
    path = Path(os.path.expanduser(name))
    if not path.is_absolute():
        path = directory(config, name) / path
    for candidate in (path, path.with_name(path.name + ".gz")):
        if os.path.isfile(candidate):
            return candidate
    if os.path.isdir(path):
        raise UserError(f"config.data.{key}: {path} is a directory; valid: a file")
    raise UserError(
        f"config.data.{key}: no file {path} (nor {path.name}.gz); "
        "set config.data.dir or GMJAX_DATA_DIR to the directory that holds it"
    )


def memory() -> int:
    """Bytes of memory: the machine's, or its control group's where that is less."""
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        pages = 2**34
    try:
        return min(pages, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return pages


def read_bytes(path: Path, share: int = ARRAYS) -> bytes:
    """The contents of a file, decompressed where its name ends in .gz.

    Args:
        path: the file.
        share: it may fill one part in so many of the memory.

    Raises:
        UserError: it cannot be read, the compressed file is damaged, or it holds too much.
    """
    limit = memory() // share
    try:
        size = path.stat().st_size
        if path.suffix == ".gz":
            return _decompressed(path, size, limit)
        _check_size(path, size, limit)
        return path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is no intact gzip file: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _decompressed(path: Path, size: int, limit: int) -> bytes:
    parts, total = [], 0
    with gzip.open(path) as stream:
        while part := stream.read(PIECE):
            total += len(part)
            _check_size(path, total, limit)
            _check_growth(path, size, total, "unpack it with gunzip first, if it is in order")
            parts.append(part)
    return b"".join(parts)


def _check_size(path: Path, size: int, limit: int) -> None:
    if size > limit:
        raise UserError(
            f"{path} holds {size / 2**20:.0f} MiB or more; valid: at most {limit / 2**20:.0f} MiB"
            " with this machine's memory (numbers take the least room in npz files)"
        )


def _check_growth(path: Path, size: int, total: int, cure: str) -> None:
    if total > max(SMALL, GROWTH * size):
        raise UserError(
            f"{path} grows from {size} bytes to {total / 2**20:.0f} MiB or more when it is"
            f" decompressed; valid: {GROWTH}-fold ({cure})"
        )


def read_text(path: Path) -> str:
    """The contents of a UTF-8 text file, line ends as \\n, without a byte-order mark.

    Raises:
        UserError: the file is not UTF-8, or no text.
    """
    data = read_bytes(path, TEXT)
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text: byte {error.start}; valid: a text saved as UTF-8"
        ) from error
    if "\0" in text:
        raise UserError(f"{path} is no text: character {text.index(chr(0)) + 1} is a zero byte")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_idx(path: Path) -> np.ndarray:
    """An array in the idx format of the MNIST files.

    Two zero bytes, a type code, the rank, the sizes as big-endian uint32, the entries.

    Raises:
        UserError: wrong magic number or rank, or other than the entries that the sizes promise.
    """
    data = read_bytes(path)
    rank = data[3] if len(data) > 3 else 0
    start = 4 + 4 * rank
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in IDX_TYPES:
        raise UserError(f"{path} is no idx file: it begins with {data[:4].hex()!r}")
    if rank not in IDX_RANKS or len(data) < start:
        raise UserError(
            f"{path}: an idx file of rank {rank}, {len(data)} bytes; valid: rank 1 to 4"
        )
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
    data = read_bytes(path)
    if data.startswith(b"\x93NUMPY"):
        raise UserError(f"{path} is no npz file but one array; valid: np.savez(file, x=array)")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
            total = sum(member.file_size for member in members)
            _check_size(path, total, memory() // ARRAYS)
            _check_growth(path, len(data), total, "np.savez leaves arrays as they are")
            arrays = {m.filename.removesuffix(".npy"): _array(archive, m) for m in members}
    except UserError:
        raise
    except Exception as error:  # zipfile and NumPy raise what they meet, from KeyError to OSError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is no npz file of plain arrays: {reason}") from error
    for name in required:
        if name not in arrays:
            held = ", ".join(sorted(arrays)) or "none"
            raise UserError(f"{path} has no array {name!r}; it holds {held}")
    return arrays


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array, whose header promises as many bytes as there are."""
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in read:
            raise ValueError(f"{member.filename} is of version {version}")
        shape, _, dtype = read[version](stream)
        size = math.prod(shape) * dtype.itemsize + stream.tell()
    if size != member.file_size and not dtype.hasobject:
        raise ValueError(
            f"{member.filename} promises {dtype} {shape}, {size} bytes, of {member.file_size}"
        )
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)
