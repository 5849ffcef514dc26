"""From arrays in memory to `Source`s, and the checks that guard the edge.

A source keeps its examples in the smallest unsigned type (a byte a pixel) and hands out
``x`` and ``label`` as int32: the rest of the library sees one integer type.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gmjax.types import Dataset, DataSpec, Source, UserError

Columns = Mapping[str, np.ndarray]

KINDS = {"image": 3, "sequence": 1, "vector": 1}  # kind -> rank of one example


def positive(config: Mapping[str, Any], key: str) -> int:
    """`config[key]` as an integer of at least 1.

    Raises:
        UserError: it is anything else.
    """
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise UserError(f"config.data.{key}={value!r}; valid: an integer of at least 1")
    return int(value)


def as_indices(values: np.ndarray, size: int, key: str) -> tuple[np.ndarray, int]:
    """Check that an array holds integers 0 .. size-1 and find the size where it is 0.

    Args:
        values: any shape; integers, or floats that are whole.
        size: the number of values, or 0 for the largest value plus one.
        key: the key of `config.data` that gives the size, for the message.

    Returns:
        The integers and the size.

    Raises:
        UserError: an entry is not an integer, or not in 0 .. size-1.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "biuf":
        raise UserError(f"config.data.{key}: data of type {values.dtype}; valid: integers")
    if values.dtype.kind == "f":
        whole = np.isfinite(values) & (values == np.round(values))
        if not whole.all():
            raise UserError(f"config.data.{key}: data hold {values[~whole][0]}; valid: integers")
        values = values.astype(np.int64)
    if size < 0:
        raise UserError(f"config.data.{key}={size}; valid: 0 (take it from the data) or more")
    if values.size == 0:
        return values, size
    low, high = int(values.min()), int(values.max())
    size = size or high + 1
    if low < 0 or high >= size:
        bad = low if low < 0 else high
        raise UserError(f"config.data.{key}={size}: data hold {bad}; valid: 0..{size - 1}")
    return values, size


def arrays(columns: Columns) -> Source:
    """A source over columns in memory.

    Args:
        columns: "x" [n, *S] integers and any others [n, ...]; "label" [n] integers.

    Returns:
        A source whose `take(indices)` gives every column's rows, "x" and "label" as int32.
    """

    def take(indices: Any) -> dict[str, np.ndarray]:
        rows = {name: column[np.asarray(indices)] for name, column in columns.items()}
        return {k: v.astype(np.int32) if k in ("x", "label") else v for k, v in rows.items()}

    return Source(len(columns["x"]), take)


def windows(tokens: np.ndarray, starts: np.ndarray, length: int, given: int = 0) -> Source:
    """A source of pieces of one long sequence: x_i = tokens[starts_i : starts_i + length].

    Args:
        tokens: [n] integers.
        starts: [m] first positions, at most n - length.
        length: tokens a piece.
        given: if positive, `take` also returns "observed" [n, length] bool, true on the
            first `given` tokens.
    """
    known = np.arange(length) < given

    def take(indices: Any) -> dict[str, np.ndarray]:
        at = starts[np.asarray(indices)][:, None] + np.arange(length)
        x = tokens[at].astype(np.int32)
        return {"x": x, "observed": np.tile(known, (len(x), 1))} if given else {"x": x}

    return Source(len(starts), take)


def hold_out(size: int, count: int, labels: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """A fixed random split, the same on every machine and for every seed of a run.

    Every example gets its quantile within its own class in a fixed shuffle, and the `count`
    smallest quantiles are held out: each class is held out in proportion to its size.

    Args:
        size: number of examples.
        count: how many to hold out.
        labels: [size] classes to stratify by; None for a plain random split.

    Returns:
        Indices of the examples kept and of those held out, each ascending.
    """
    labels = np.zeros(size, int) if labels is None else labels
    order = np.random.default_rng(0).permutation(size)
    quantile = np.empty(size)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        quantile[members] = (np.arange(len(members)) + 0.5) / len(members)
    ranked = np.argsort(quantile, kind="stable")
    return np.sort(ranked[count:]), np.sort(ranked[:count])


def held_out_count(config: Mapping[str, Any], size: int) -> int:
    """How many of `size` examples `config.test_fraction` (default 0.1) holds out.

    Raises:
        UserError: the fraction is not in (0, 1), or leaves one side empty.
    """
    fraction = config["test_fraction"]
    if not 0 < fraction < 1:
        raise UserError(f"config.data.test_fraction={fraction}; valid: between 0 and 1")
    count = round(fraction * size)
    if not 0 < count < size:
        raise UserError(
            f"config.data.test_fraction={fraction} of {size} examples leaves train or test empty"
        )
    return count


def split(columns: Columns, config: Mapping[str, Any]) -> tuple[Columns, Columns]:
    """Hold out `config.test_fraction` of the rows, stratified by "label" where there is one."""
    size = len(columns["x"])
    kept, held = hold_out(size, held_out_count(config, size), columns.get("label"))
    return {k: v[kept] for k, v in columns.items()}, {k: v[held] for k, v in columns.items()}


def build(
    train: Columns,
    test: Columns,
    num_values: int = 0,
    num_classes: int = 0,
    kind: str = "",
    ordinal: bool = False,
) -> Dataset:
    """Check the columns of both splits and make the data set.

    Args:
        train: "x" [n, *S], perhaps "label" [n], perhaps others [n, ...].
        test: the same names.
        num_values: S, or 0 to take it from the data.
        num_classes: number of classes, or 0 to take it from the labels.
        kind: "image", "sequence" or "vector"; empty: an image where an example has rank 2
            or 3 (rank 2 gains a channel axis), otherwise a vector.
        ordinal: whether neighbouring values mean nearly the same.

    Raises:
        UserError: values outside 0..S-1, or splits and shapes that do not fit together.
    """
    sides = [dict(train), dict(test)]
    for name, side in zip(("train", "test"), sides, strict=True):
        side["x"] = shaped(np.asarray(side["x"]))
        _check_rows(name, side)
    if sides[0]["x"].shape[1:] != sides[1]["x"].shape[1:]:
        shapes = [side["x"].shape[1:] for side in sides]
        raise UserError(f"config.data: train examples are {shapes[0]}, test {shapes[1]}")
    if set(sides[0]) != set(sides[1]):
        odd = sorted(set(sides[0]) ^ set(sides[1]))
        raise UserError(f"config.data: only one of train and test has {', '.join(odd)}")
    num_values = _check("x", sides, num_values, "num_values")
    if "label" in sides[0]:
        num_classes = _check("label", sides, num_classes, "num_classes")
    shape = sides[0]["x"].shape[1:]
    spec = DataSpec(
        shape,
        num_values,
        kind=checked_kind(kind, shape),
        ordinal=bool(ordinal),
        num_classes=num_classes if "label" in sides[0] else 0,
    )
    return Dataset(spec, arrays(sides[0]), arrays(sides[1]))


def shaped(x: np.ndarray) -> np.ndarray:
    """Examples with a channel axis where they are images without one: [n, H, W] -> [n, H, W, 1]."""
    return x[..., None] if x.ndim == 3 else x


def checked_kind(kind: str, shape: tuple[int, ...]) -> str:
    """The kind of examples of this shape: `kind`, or by their rank where it is empty.

    Raises:
        UserError: no such kind, or one of another rank.
    """
    kind = kind or ("image" if len(shape) == 3 else "vector")
    if KINDS.get(kind) != len(shape):
        fitting = [name for name, rank in KINDS.items() if rank == len(shape)]
        raise UserError(
            f"config.data.kind={kind!r} does not fit examples of shape {shape}; "
            f"valid: {', '.join(fitting) or 'none: examples have rank 1, 2 or 3'}"
        )
    return kind


def _check(name: str, sides: list[dict[str, np.ndarray]], size: int, key: str) -> int:
    """Check column `name` of both splits against one size; returns the size."""
    checked = [as_indices(side[name], size, key) for side in sides]
    for side, (values, _) in zip(sides, checked, strict=True):
        side[name] = values.astype(np.min_scalar_type(values.max()))
    return max(found for _, found in checked)


def _check_rows(name: str, side: dict[str, np.ndarray]) -> None:
    """Every column has as many rows as "x", and "observed" its shape."""
    shape = side["x"].shape
    if shape[0] == 0:
        raise UserError(f"config.data: the {name} split is empty")
    for column, values in side.items():
        if len(values) != shape[0]:
            raise UserError(
                f"config.data: {name} has {shape[0]} of x but {len(values)} of {column}"
            )
    if "observed" in side:
        side["observed"] = shaped(side["observed"]).astype(bool)
        if side["observed"].shape != shape:
            raise UserError(f"config.data: {name} has x {shape}, observed {side['observed'].shape}")
