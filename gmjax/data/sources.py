"""From arrays in memory to `Source`s, and the checks that guard the edge.

A source keeps discrete examples in the smallest unsigned type (a byte a pixel) and hands out
integers as int32 and real numbers as float32: the rest of the library sees one type of each. An
example is an array, or a dictionary of arrays (a row of a table, say).

Whether continuous examples lie in the space that their kind names (unit vectors, angles in
range, parts that sum to one) is for that space to say: ``Space.check`` in the method's builder.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gmjax.types import Dataset, DataSpec, Source, UserError

Columns = Mapping[str, Any]  # name -> [n, ...]; "x" may be a dictionary of such

KINDS = {"image": 3, "sequence": 1, "vector": 1}  # kind -> rank of one example
SPACES = {  # likewise, of data without a finite number of values
    "euclidean": 1,
    "half_line": 1,
    "counts": 1,
    "sphere": 1,
    "hyperbolic": 1,
    "torus": 1,
    "simplex": 1,
    "rotations": 2,
}
HINTS = {
    "num_values": f", or config.data.kind one of {', '.join(SPACES)}",
    "num_classes": "",
    "kind": " from 0 for counts",
}


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
            raise UserError(
                f"config.data.{key}: data hold {values[~whole][0]}; valid: integers{HINTS[key]}"
            )
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
        columns: "x" [n, *S] numbers, or a dictionary of such; any others [n, ...]; "label" [n]
            integers.

    Returns:
        A source whose `take(indices)` gives every column's rows, "x" and "label" as int32 where
        they hold integers and as float32 otherwise.
    """

    def take(indices: Any) -> dict[str, Any]:
        rows = take_rows(columns, np.asarray(indices))
        return {k: jax.tree.map(_narrow, v) if k in ("x", "label") else v for k, v in rows.items()}

    return Source(num_rows(columns["x"]), take)


def num_rows(tree: Any) -> int:
    """n, for an array [n, ...] or a dictionary of such."""
    return len(jax.tree.leaves(tree)[0])


def take_rows(tree: Any, rows: np.ndarray) -> Any:
    """The rows [m] of every array [n, ...] in a tree."""
    return {k: jax.tree.map(lambda a: a[rows], v) for k, v in tree.items()}


def _narrow(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32 if values.dtype.kind == "f" else np.int32)


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


def tenths(size: int, config: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """A random split into 80 % training, 10 % validation and 10 % test examples.

    Args:
        size: number of examples, 10 or more.
        config: `split_seed`, of the split; `held_out`, "test" or "valid".

    Returns:
        Indices of the training examples and of those of the side held out, each ascending.

    Raises:
        UserError: a seed that is no integer of at least 0, or another name of a side.
    """
    seed = config["split_seed"]
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise UserError(f"config.data.split_seed={seed!r}; valid: an integer of at least 0")
    order = np.random.default_rng(seed).permutation(size)
    tenth = size // 10
    sides = {"test": order[:tenth], "valid": order[tenth : 2 * tenth]}
    return np.sort(order[2 * tenth :]), np.sort(sides[held_out_name(config)])


def held_out_name(config: Mapping[str, Any]) -> str:
    """`config.held_out`: "test" (the default) or "valid".

    Raises:
        UserError: it is neither.
    """
    name = config["held_out"]
    if name not in ("test", "valid"):
        raise UserError(f"config.data.held_out={name!r}; valid: test, valid")
    return name


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
    size = num_rows(columns["x"])
    _check_lengths("train", columns)
    kept, held = hold_out(size, held_out_count(config, size), columns.get("label"))
    return take_rows(columns, kept), take_rows(columns, held)


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
            or 3 (rank 2 gains a channel axis), otherwise a vector. Or a name in `SPACES`: real
            numbers (integers of at least 0 for "counts"), and no `num_values`.
        ordinal: whether neighbouring values mean nearly the same.

    Raises:
        UserError: values outside 0..S-1, or splits and shapes that do not fit together.
    """
    sides = [dict(train), dict(test)]
    for name, side in zip(("train", "test"), sides, strict=True):
        side["x"] = np.asarray(side["x"])
        if kind not in SPACES:
            side["x"] = shaped(side["x"])
        _check_rows(name, side)
    if sides[0]["x"].shape[1:] != sides[1]["x"].shape[1:]:
        shapes = [side["x"].shape[1:] for side in sides]
        raise UserError(f"config.data: train examples are {shapes[0]}, test {shapes[1]}")
    if set(sides[0]) != set(sides[1]):
        odd = sorted(set(sides[0]) ^ set(sides[1]))
        raise UserError(f"config.data: only one of train and test has {', '.join(odd)}")
    if kind in SPACES:
        _check_numbers(sides, num_values, kind)
        num_values = 0
    else:
        num_values = _check("x", sides, num_values, "num_values")
    if "label" in sides[0]:
        num_classes = _check("label", sides, num_classes, "num_classes")
    shape = sides[0]["x"].shape[1:]
    spec = DataSpec(
        shape,
        num_values,
        kind=checked_kind(kind, shape, KINDS | SPACES),
        ordinal=bool(ordinal),
        num_classes=num_classes if "label" in sides[0] else 0,
    )
    return Dataset(spec, arrays(sides[0]), arrays(sides[1]))


def shaped(x: np.ndarray) -> np.ndarray:
    """Examples with a channel axis where they are images without one: [n, H, W] -> [n, H, W, 1]."""
    return x[..., None] if x.ndim == 3 else x


def checked_kind(kind: str, shape: tuple[int, ...], ranks: Mapping[str, int] = KINDS) -> str:
    """The kind of examples of this shape: `kind`, or by their rank where it is empty.

    Args:
        kind: a name in `ranks`, or empty.
        shape: of one example.
        ranks: kind -> rank of one example.

    Raises:
        UserError: no such kind, or one of another rank.
    """
    kind = kind or ("image" if len(shape) == 3 else "vector")
    if ranks.get(kind) != len(shape):
        fitting = [name for name, rank in ranks.items() if rank == len(shape)]
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


def _check_numbers(sides: list[dict[str, np.ndarray]], num_values: int, kind: str) -> None:
    """Continuous data of both splits become float32, counts stay integers."""
    if num_values:
        raise UserError(f"config.data.num_values={num_values}: {kind} data have none; valid: 0")
    if kind == "counts":
        _check("x", sides, 0, "kind")
        return
    for side in sides:
        if side["x"].dtype.kind not in "biuf":
            raise UserError(f"config.data: x of type {side['x'].dtype}; valid: real numbers")
        side["x"] = side["x"].astype(np.float32)


def _check_lengths(name: str, side: Columns) -> None:
    """Every column has as many rows as "x"."""
    sizes = {column: num_rows(values) for column, values in side.items()}
    for column, size in sizes.items():
        if size != sizes["x"]:
            raise UserError(f"config.data: {name} has {sizes['x']} of x but {size} of {column}")


def _check_rows(name: str, side: dict[str, np.ndarray]) -> None:
    """Every column has as many rows as "x", and "observed" its shape."""
    shape = side["x"].shape
    if shape[0] == 0:
        raise UserError(f"config.data: the {name} split is empty")
    _check_lengths(name, side)
    if "observed" in side:
        same = side["observed"].shape == shape
        side["observed"] = (side["observed"] if same else shaped(side["observed"])).astype(bool)
        if side["observed"].shape != shape:
            raise UserError(f"config.data: {name} has x {shape}, observed {side['observed'].shape}")
