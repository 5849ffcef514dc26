"""What arrays must be before they are data, checked once for every row.

Integers are handed out as int32, so none may reach 2^31; a number of values or of classes that
is taken from the data may not pass `MANY`, because identifiers are no classes. Angles are brought
to [-pi, pi) where they lie within a full turn of zero.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gmjax.types import UserError

Columns = Mapping[str, Any]  # name -> [n, ...]; "x" may be a dictionary of such

LARGEST = 2**31 - 1  # of the integers that are handed out
MANY = 2**20  # values, or classes, that the data themselves may make
TURN = 2 * np.pi


def positive(config: Mapping[str, Any], key: str) -> int:
    """`config[key]` as an integer of at least 1.

    Raises:
        UserError: it is anything else.
    """
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise UserError(f"config.data.{key}={value!r}; valid: an integer of at least 1")
    return int(value)


def as_indices(
    values: np.ndarray, size: int, key: str, otherwise: str = ""
) -> tuple[np.ndarray, int]:
    """Check that an array holds integers 0 .. size-1 and find the size where it is 0.

    Args:
        values: any shape; integers, or floats that are whole.
        size: the number of values, or 0 for the largest value plus one.
        key: the key of `config.data` that gives the size, for the message.
        otherwise: what else is valid where they are no integers.

    Returns:
        The integers and the size.

    Raises:
        UserError: an entry is not an integer, or not in 0 .. size-1; without a size, one that
            would make more than `MANY`.
    """
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 0:
        raise UserError(f"config.data.{key}={size}; valid: 0 (take it from the data) or more")
    values = whole(values, key, otherwise)
    if values.size == 0:
        return values, size
    low, high = int(values.min()), int(values.max())
    most = size or MANY
    if size > LARGEST:
        raise UserError(f"config.data.{key}={size}; valid: 0 or at most {LARGEST}")
    if low < 0 or high >= most:
        bad = low if low < 0 else high
        valid = f"0..{most - 1}"
        if not size and bad > 0:
            valid += (
                f", or {high + 1} for config.data.{key}" * (high < LARGEST)
                + " (np.unique(a, return_inverse=True)[1] numbers what an array a holds)"
            )
        raise UserError(f"config.data.{key}={size}: data hold {bad}; valid: {valid}")
    return values, size or high + 1


def as_counts(values: np.ndarray) -> np.ndarray:
    """Check that an array holds integers from 0 that int32 can hold."""
    values = whole(values, "kind", " from 0 for counts")
    if values.size and not 0 <= int(values.min()) <= int(values.max()) <= LARGEST:
        bad = int(values.min()) if values.min() < 0 else int(values.max())
        raise UserError(f"config.data.kind='counts': data hold {bad}; valid: 0..{LARGEST}")
    return values


def whole(values: np.ndarray, key: str, otherwise: str = "") -> np.ndarray:
    """An array of integers, of whatever type, as it is or, of whole floats, int64."""
    values = np.asarray(values)
    if values.dtype.kind not in "biuf":
        raise UserError(f"config.data.{key}: data of type {values.dtype}; valid: integers")
    if values.dtype.kind != "f":
        return values
    odd = ~(np.isfinite(values) & (values == np.round(values)))
    if odd.any():
        raise UserError(
            f"config.data.{key}: data hold {values[odd][0]}; valid: integers{otherwise}"
        )
    if values.size and float(np.abs(values).max()) > 2**53:
        worst = values.flat[np.abs(values).argmax()]
        raise UserError(f"config.data.{key}: data hold {worst:g}; valid: integers below 2^31")
    return values.astype(np.int64)


def real(name: str, values: np.ndarray) -> np.ndarray:
    """Check that an array holds finite numbers, every one of them, and still does as float32.

    Args:
        name: what the array is called, for the message.
        values: [n, ...].

    Returns:
        The array.

    Raises:
        UserError: it does not; the message says where.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "biuf":
        raise UserError(f"config.data: {name} of type {values.dtype}; valid: real numbers")
    if values.dtype.kind == "f":
        wrong = ~(np.abs(values) <= np.finfo(np.float32).max)
        if wrong.any():
            at = ", ".join(map(str, np.argwhere(wrong)[0]))
            raise UserError(
                f"config.data: {name}[{at}] is {values[wrong][0]}, the first of {wrong.sum()} among"
                f" {wrong.size} that are not finite; valid: finite numbers below 3.4e38"
            )
    return values


def tidy(name: str, columns: Columns) -> dict[str, Any]:
    """Columns [n, ...] in the shapes that are expected, all with as many rows as "x".

    Numbers [n] become examples [n, 1], labels [n, 1] become [n] integers.

    Raises:
        UserError: a column of another shape or another number of rows.
    """
    out = dict(columns)
    for key, value in columns.items():
        if isinstance(value, Mapping):
            continue
        values = np.asarray(value)
        if values.ndim == 0:
            raise UserError(f"config.data: {key} of {name} is one number; valid: a row an example")
        if values.ndim == 1 and key in ("x", "source", "observed"):
            values = values[:, None]
        out[key] = _labels(name, values) if key == "label" else values
    size = num_rows(out["x"])
    for key, values in out.items():
        if num_rows(values) != size:
            raise UserError(f"config.data: {name} has {size} of x but {num_rows(values)} of {key}")
    if size and not all(leaf.size for leaf in jax.tree.leaves(out["x"])):
        raise UserError(f"config.data: x of {name} has no coordinates; valid: one or more")
    return out


def num_rows(tree: Any) -> int:
    """n, for an array [n, ...] or a dictionary of such."""
    return len(jax.tree.leaves(tree)[0])


def _labels(name: str, label: np.ndarray) -> np.ndarray:
    label = label[:, 0] if label.ndim == 2 and label.shape[1] == 1 else label
    if label.ndim != 1:
        raise UserError(
            f"config.data: label of {name} is {label.shape}; valid: one class a row, such as"
            " label.argmax(1) of a one-hot code"
        )
    return whole(label, "num_classes")


def observed(name: str, marks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which entries of x are given, as booleans of its shape."""
    marks = marks[..., None] if marks.ndim == 3 and marks.shape != shape else marks
    if marks.shape != shape:
        raise UserError(f"config.data: {name} has x {shape}, observed {marks.shape}")
    if marks.dtype.kind not in "biuf" or not np.isin(marks, (0, 1)).all():
        raise UserError(f"config.data: observed of {name} is {marks.dtype}; valid: only 0 and 1")
    return marks.astype(bool)


def levels(sides: list[np.ndarray], num_values: int, otherwise: str = "") -> list[np.ndarray]:
    """Images of real numbers in [0, 1] as levels, round((num_values - 1) x).

    Whole numbers stay as they are.

    Raises:
        UserError: there is no `num_values`, or they lie elsewhere.
    """
    sides = [real("x", x) for x in sides]
    if all(x.dtype.kind != "f" or (x == np.round(x)).all() for x in sides):
        return sides
    low, high = (float(f(list(map(f, sides)))) for f in (np.min, np.max))
    advice = f"with config.data.num_values=256, so many levels{otherwise}"
    if low < -1e-6 or high > 1 + 1e-6:
        raise UserError(
            f"config.data.num_values={num_values}: images hold numbers from {low} to {high}, some"
            f" of them not whole; valid: integers, or (x - {low}) / {high - low} {advice}"
        )
    if num_values < 2:
        some = next(x[x != np.round(x)][0] for x in sides if (x != np.round(x)).any())
        raise UserError(
            f"config.data.num_values={num_values}: images hold {some}; valid: integers, or numbers"
            f" in [0, 1] {advice}"
        )
    scaled = ((num_values - 1) * np.clip(x.astype(np.float64), 0, 1) for x in sides)
    return [np.round(x).astype(np.int64) for x in scaled]


def angles(sides: list[np.ndarray]) -> tuple[list[np.ndarray], bool]:
    """Angles in radians brought to [-pi, pi) where some lie outside; did some?

    Raises:
        UserError: an angle is more than a turn away from zero.
    """
    far = max(float(np.abs(x).max(initial=0)) for x in sides)
    if far > TURN * (1 + 1e-6):
        raise UserError(
            f"config.data.kind='torus': angles reach {far:.6g}; valid: radians from -2 pi to 2 pi"
            " (np.mod(x, 2 * np.pi)), or degrees with config.data.degrees=True"
        )
    half = np.float32(np.pi)
    within = [(x >= -half) & (x.astype(np.float32) < half) for x in sides]
    wrapped = [np.where(near, x, wrap(x)) for near, x in zip(within, sides, strict=True)]
    return wrapped, not all(near.all() for near in within)


def wrap(angles: np.ndarray) -> np.ndarray:
    """Angles in radians brought to [-pi, pi) as float32, whose rounding may not reach pi."""
    wrapped = (np.asarray(angles, np.float64) + np.pi) % TURN - np.pi
    single = wrapped.astype(np.float32)
    return np.where(single >= np.float32(np.pi), np.float32(-np.pi), single)
