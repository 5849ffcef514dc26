"""The directory of a run: made by one configuration, and refused to any other.

config.json          the resolved configuration
metrics.jsonl        one JSON object a row
events/              the same for TensorBoard
checkpoints/<step>/  Orbax checkpoints
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax

from gmjax.types import UserError

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]

CONFIG = "config.json"

# Keys, or whole groups, that do not change what is trained. Everything else does: the number
# of steps too, because the learning-rate schedule is laid out over it.
FREE = (
    "mode",
    "mesh",
    "sample",
    "evaluate",
    "report",
    "data.dir",
    "train.log_every",
    "train.checkpoint_every",
    "train.evaluate_every",
    "train.keep",
    "train.patience",
    "train.workers",
)


def prepare(
    path: str | Path, config: Any, create: bool = True, hold: ExitStack | None = None
) -> Path:
    """Claims a directory for `config`: new, empty, or made by the same configuration.

    Call it when everything else in the configuration has been checked, since it writes. Every
    process may call it; only the first writes.

    Args:
        path: the directory.
        config: a ConfigDict or a mapping, as it will be used.
        create: may the directory be new? If not, nothing is written.
        hold: keeps the directory for this run until it is closed.

    Returns:
        The absolute path.

    Raises:
        UserError: the directory holds other files or a run of another configuration, is held by
            another process, cannot be written, or is new and `create` is false.
    """
    directory = Path(path).expanduser().resolve()
    record = to_dict(config)
    try:
        before = _read(directory)
        if before is None and not create:
            raise UserError(f"workdir={path} holds no run; valid: a directory that was trained in")
        if before is not None:
            _compare(path, before, record)
        if jax.process_index() == 0:
            directory.mkdir(parents=True, exist_ok=True)
            if hold:
                hold.enter_context(held(directory))
                for litter in directory.glob(".*.*"):  # of a write that was killed
                    if litter.name.rpartition(".")[2].isdigit() and litter.is_file():
                        litter.unlink()
            if create and before != record:
                write(directory / CONFIG, json.dumps(record, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"workdir={path}: {reason}; valid: a directory to write in") from None
    return directory


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Keeps a directory for this process; the kernel lets go of it if the process is killed.

    Raises:
        UserError: another process has it.
    """
    if fcntl is None:
        yield
        return
    place = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"workdir={directory} is held by {_holder(place)};"
                " valid: wait for it, or use another --workdir"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(place)


def _holder(place: int) -> str:
    """Who holds the lock on an open file, as far as the system tells."""
    node = os.fstat(place).st_ino
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        lines = []
    found = [f[4] for f in map(str.split, lines) if f[1] == "FLOCK" and f[5].endswith(f":{node}")]
    return f"process {found[0]} on {socket.gethostname()}" if found else "another process"


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as JSON would give it back: plain dicts, lists, numbers, strings."""
    plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return json.loads(json.dumps(plain))


def write(path: Path, text: str) -> None:
    """Writes a file so that a reader sees all of it or none, whenever we are killed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys whose values differ, with both values.

    Args:
        old: a nested mapping.
        new: another.
        prefix: the key under which both stand.

    Returns:
        Lines such as `train.steps (10 there, 20 here)`, sorted by key.
    """
    found = []
    for name in sorted(old.keys() | new.keys()):
        key, a, b = f"{prefix}{name}", old.get(name, "nothing"), new.get(name, "nothing")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{key}.")
        elif a != b:
            found.append(f"{key} ({_short(a)} there, {_short(b)} here)")
    return found


def shorten(lines: list[str], limit: int = 4) -> str:
    """The first few of `lines` on one line."""
    more = f" and {len(lines) - limit} more" if len(lines) > limit else ""
    return ", ".join(lines[:limit]) + more


def _read(directory: Path) -> dict[str, Any] | None:
    """The configuration that made `directory`, or None where there is nothing yet."""
    if not directory.exists():
        return None
    if not (directory / CONFIG).exists():
        strangers = [item.name for item in directory.iterdir() if not _temporary(item.name)]
        if strangers:
            raise UserError(
                f"workdir={directory} holds {shorten(sorted(strangers))} but no {CONFIG};"
                " valid: a new or empty directory, or one that gmjax made"
            )
        return None
    try:
        record = json.loads((directory / CONFIG).read_text())
        if not isinstance(record, dict):
            raise ValueError("no object")
        return record
    except (ValueError, RecursionError):
        raise UserError(
            f"workdir={directory}: {CONFIG} cannot be read;"
            " valid: restore it, or use another --workdir"
        ) from None


def _temporary(name: str) -> bool:
    return name.startswith(f".{CONFIG}.")


def _compare(path: str | Path, before: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    # What a trained model is judged by may be another file.
    keys = FREE if record.get("mode") == "train" else (*FREE, "data.test_file")

    def free(line: str) -> bool:
        return any(line.startswith((f"{key} ", f"{key}.")) for key in keys)

    changed = [line for line in differences(before, record) if not free(line)]
    if changed:
        raise UserError(
            f"workdir={path} was made by a different config: {shorten(changed)};"
            " valid: the same config, or another --workdir"
        )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
