"""Checkpoints: the newest few and the best, written beside the training, never half.

A checkpoint `<step>/` has two items: `state`, the arrays, and `meta`, a JSON object with what
is needed to trust and continue it: every leaf's path, shape and type (is it this model?), a
checksum of every leaf (is it whole?), the step, the configuration, the evaluation, what the loop
remembers, and a checksum of all this. Orbax writes into a temporary directory in a background
thread and renames it at the end, so that whenever we are killed a checkpoint is there or not.

The checksum of an array whose entries are the 32-bit words b_0, b_1, ... in row-major order is

    sum_i mix(b_i xor mix(i))  mod 2^32,

mix the finaliser of MurmurHash3, a bijection of words in which every bit depends on every other.
It is computed where the array lives, is the same for every sharding, and notices what
a file format cannot: a lost chunk that reads as zeros, or chunks that changed places.
"""

import contextlib
import hashlib
import json
import logging
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from gmjax.training import workdir as workdirs
from gmjax.training.monitors import TrainingError
from gmjax.types import PyTree, UserError

WORDS = {8: jnp.uint8, 16: jnp.uint16}  # bits -> how to see them; wider ones as several
VITAL = ("params", "ema")


class Restored(NamedTuple):
    """A checkpoint that was read."""

    step: int
    state: PyTree
    meta: dict[str, Any]
    damaged: tuple[int, ...]  # newer steps that could not be read


class Keep(NamedTuple):
    """Which checkpoints stay, for Orbax: the `newest` last ones and the one of least value."""

    newest: int
    values: dict[int, float]  # step -> value, filled in by whoever evaluates

    def should_preserve(
        self,
        checkpoints: Sequence[policies.PolicyCheckpointInfo],
        *,
        context: policies.PreservationContext,
    ) -> list[bool]:
        """One answer a checkpoint; they come in the order of their steps."""
        steps = [info.step for info in checkpoints]
        kept = {*steps[-self.newest :], best({step: self.values.get(step) for step in steps})}
        return [step in kept for step in steps]


class Store(NamedTuple):
    """A directory of checkpoints open for writing."""

    save: Callable[..., None]  # (step, state, meta, value=None): returns once copied
    wait: Callable[[], None]  # until all is written


def steps(directory: Path) -> list[int]:
    """The steps of the complete checkpoints in a directory, from the oldest."""
    names = [item.name for item in directory.iterdir()] if directory.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())  # others: written, put aside


def best(values: dict[int, float | None]) -> int | None:
    """The step of least value, the latest of equals; None where there are no values."""
    known = [(value, -step) for step, value in values.items() if value is not None]
    return -min(known)[1] if known else None


def read_meta(directory: Path, step: int) -> dict[str, Any] | None:
    """The `meta` item, or None where it cannot be read or is not as it was written."""
    try:
        meta = ocp.JsonCheckpointHandler().restore(directory / str(step) / "meta")
        return meta if meta["digest"] == digest(meta) and meta["step"] == step else None
    except Exception:  # damage has no particular type
        return None


def values(directory: Path) -> dict[int, float | None]:
    """The evaluation of every checkpoint: step -> value, where it has one."""
    metas = {step: read_meta(directory, step) or {} for step in steps(directory)}
    return {step: meta.get("value") for step, meta in metas.items()}


@contextlib.contextmanager
def _literal(directory: Path) -> Iterator[Path]:
    """A path of `directory` without the characters that Orbax, which globs it, would expand."""
    if not set("[]*?{}") & set(str(directory)):
        yield directory
        return
    with tempfile.TemporaryDirectory() as place:
        link = Path(place) / "checkpoints"
        link.symlink_to(directory, target_is_directory=True)
        yield link


def hush() -> None:
    """Silences what Orbax's threads print of errors that `save`, `wait` and `restore` tell.

    For a command, whose errors are one line each: a full disk or a damaged checkpoint otherwise
    comes with hundreds of lines of tracebacks, some of them as the process ends.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    threading.excepthook = lambda arguments: None
    sys.unraisablehook = lambda unraisable: None
    own = sys.excepthook

    def elsewhere(*arguments: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            own(*arguments)

    sys.excepthook = elsewhere


def digest(meta: dict[str, Any]) -> str:
    """The checksum of a `meta` without its own."""
    rest = {name: value for name, value in meta.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


@jax.jit
def _audit(leaf: jax.Array) -> jax.Array:
    """[2] uint32: is every entry finite, and the checksum."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
    finite = jnp.all(jnp.isfinite(leaf)) if inexact else jnp.array(True)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag])
    width = leaf.dtype.itemsize * 8
    if inexact:
        leaf = jax.lax.bitcast_convert_type(leaf, WORDS.get(width, jnp.uint32))
    words = leaf.astype(jnp.uint32)
    index, stride = jnp.uint32(0), 1
    for axis in reversed(range(words.ndim)):  # not a reshape, which would move a split array
        place = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        index, stride = index + place * jnp.uint32(stride % 2**32), stride * words.shape[axis]
    total = jnp.sum(_mix(words ^ _mix(index)), dtype=jnp.uint32)
    return jnp.stack([finite.astype(jnp.uint32), total])


def _mix(word: jax.Array) -> jax.Array:
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)


def audit(state: PyTree) -> tuple[list[int], list[str]]:
    """The checksum of every leaf, and the paths of those with entries that are not finite.

    Args:
        state: a pytree of arrays.
    """
    leaves = jax.tree_util.tree_leaves_with_path(state)
    found = jax.device_get([_audit(leaf) for _, leaf in leaves])
    broken = [_name(path) for (path, _), pair in zip(leaves, found, strict=True) if not pair[0]]
    return [int(pair[1]) for pair in found], broken


def describe(state: PyTree) -> dict[str, str]:
    """The shape and type of every leaf, such as `{"params/w": "float32[4, 8]"}`."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {_name(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


@contextlib.contextmanager
def opened(directory: Path, keep: int, damaged: Sequence[int] = ()) -> Iterator[Store]:
    """Opens a directory of checkpoints for writing, in every process at once.

    Args:
        directory: made if missing.
        keep: how many of the newest to keep, besides the best.
        damaged: checkpoints to put aside as `damaged-<step>`, which keeps them for a look and
            frees their steps.

    Returns:
        Its `save(step, state, meta, value)` returns once the state is copied to the host; a
        save of a step that is there does nothing. `value` is the evaluation, less is better.
        `save` and `wait` raise `TrainingError` where the parameters are not finite, or a
        checkpoint cannot be written.
    """
    if jax.process_index() == 0:
        directory.mkdir(parents=True, exist_ok=True)
        for step in damaged:
            _put_aside(directory, step)
    _meet("gmjax:checkpoints")
    kept = Keep(keep, {s: v for s, v in values(directory).items() if v is not None})
    options = ocp.CheckpointManagerOptions(
        preservation_policy=kept,  # type: ignore[arg-type]  # a structural type
        cleanup_tmp_directories=True,
        # Made by a thread, a directory that cannot be made leaves the others waiting for it.
        async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        save_root_metadata=False,
    )
    with contextlib.ExitStack() as stack:
        manager = ocp.CheckpointManager(stack.enter_context(_literal(directory)), options=options)
        yield from _store(manager, kept)


def _store(manager: ocp.CheckpointManager, kept: Keep) -> Iterator[Store]:
    """See `opened`."""

    def save(step: int, state: PyTree, meta: dict[str, Any], value: float | None = None) -> None:
        if step in manager.all_steps():
            return
        sums, broken = audit(state)
        if fatal := [name for name in broken if _vital(state, name)]:
            raise TrainingError(f"{workdirs.shorten(fatal)} not finite at step {step}")
        if value is not None:
            kept.values[step] = value
        record = {**meta, "step": step, "value": value}
        record = json.loads(json.dumps({**record, "leaves": describe(state), "checksums": sums}))
        record["digest"] = digest(record)
        with _writing():
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(record)
            )
            manager.save(step, args=items, force=True)

    def wait() -> None:
        with _writing():
            manager.wait_until_finished()

    try:
        yield Store(save, wait)
    finally:
        with contextlib.suppress(Exception):  # `wait` is where a failed write is told
            manager.close()


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a full disk comes in many types
        raise TrainingError(f"a checkpoint cannot be written ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """The beginning of what Orbax has to say, on one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:120]


def _vital(state: PyTree, name: str) -> bool:
    """Must this leaf be finite? An optimizer may remember an infinity."""
    return name.split("/")[0] in VITAL or not any(hasattr(state, field) for field in VITAL)


def restore(
    directory: Path, target: PyTree, say: Callable[[str], None] = print, best_first: bool = False
) -> Restored | None:
    """Reads the newest checkpoint that is whole, in every process at once.

    Args:
        directory: of the checkpoints.
        target: a pytree of `jax.ShapeDtypeStruct` with shardings; they need not be those that
            the checkpoint was written with.
        say: told about every checkpoint that is damaged.
        best_first: try the best one before the newest.

    Returns:
        The checkpoint, or None where there is none at all.

    Raises:
        UserError: the checkpoint is of another model, or all of them are damaged.
    """
    order = steps(directory)[::-1]
    if best_first and (first := best(values(directory))) is not None:
        order = [first, *(step for step in order if step != first)]
    damaged: list[int] = []
    for step in order:
        meta, state, reason = _read(directory, step, target)
        if _everywhere(not reason):
            return Restored(step, state, meta, tuple(damaged))
        damaged.append(step)
        say(f"checkpoint {step} in {directory} is damaged ({reason or 'on another process'})")
    if order:
        raise UserError(
            f"workdir={directory.parent}: all its checkpoints are damaged"
            f" ({', '.join(map(str, damaged))}); valid: restore one, delete {directory},"
            " or use another --workdir"
        )
    return None


def _read(directory: Path, step: int, target: PyTree) -> tuple[dict[str, Any], PyTree, str]:
    """(meta, state, why it cannot be read, or "")."""
    meta = read_meta(directory, step)
    if not _everywhere(meta is not None and {"leaves", "checksums"} <= meta.keys()):
        return {}, None, "its meta cannot be read"
    assert meta is not None
    _same_model(directory, step, meta["leaves"], describe(target))
    state, reason = None, ""
    try:
        # The handler and not the manager, whose barrier would hang if one process fails to read.
        with _literal(directory) as place:
            state = ocp.StandardCheckpointHandler().restore(
                place / str(step) / "state", args=ocp.args.StandardRestore(target)
            )
    except Exception as error:  # damage has no particular type
        reason = _reason(error)
    if _everywhere(not reason) and audit(state)[0] != meta["checksums"]:
        reason = "its checksums differ"
    held = int(getattr(state, "step", step))
    if not reason and held != step:
        reason = f"it holds step {held}"
    return meta, state, reason


def _same_model(directory: Path, step: int, there: dict[str, str], here: dict[str, str]) -> None:
    changed = workdirs.differences(there, here)
    if changed:
        # The optimizer repeats what differs in the parameters, and sorts before them.
        changed.sort(key=lambda line: not line.startswith(VITAL))
        raise UserError(
            f"workdir={directory.parent}: checkpoint {step} is of another model:"
            f" {workdirs.shorten(changed)}; valid: the config that made it, or another --workdir"
        )


def _put_aside(directory: Path, step: int) -> None:
    source, number = directory / str(step), 0
    while (goal := directory / f"damaged-{step}{f'-{number}' if number else ''}").exists():
        number += 1
    source.rename(goal)


def _everywhere(condition: bool) -> bool:
    """Does `condition` hold in every process?"""
    if jax.process_count() == 1:
        return condition
    return bool(np.all(multihost_utils.process_allgather(np.array(condition))))


def _meet(name: str) -> None:
    """Waits for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
