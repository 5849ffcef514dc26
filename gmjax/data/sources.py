"""From arrays in memory to `Source`s, and the checks that guard the edge.

A source keeps discrete examples in the smallest unsigned type (a byte a pixel) and hands out
integers as int32 and real numbers as float32: the rest of the library sees one type of each. An
example is an array, or a dictionary of arrays (a row of a table, say).

Whether continuous examples lie in the space that their kind names (unit vectors, parts that sum
to one) is for that space to say: ``Space.check`` in the method's builder.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gmjax.data import checks
from gmjax.data.checks import Columns, as_indices, num_rows
from gmjax.types import Dataset, DataSpec, Source, UserError

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
RANDOM = ", by a random split"
ROWS = f"{RANDOM} (config.data.unique=True keeps equal examples on one side)"
NUMERIC = ("x", "source", "label")  # columns that are handed out in one type


def arrays(columns: Columns) -> Source:
    """A source over columns in memory.

    Args:
        columns: "x" [n, *S] numbers, or a dictionary of such; any others [n, ...]; "label" [n]
            integers.

    Returns:
        A source whose `take(indices)` gives every column's rows, those of `NUMERIC` as int32
        where they hold integers and as float32 otherwise.
    """

    def take(indices: Any) -> dict[str, Any]:
        rows = take_rows(columns, np.asarray(indices))
        return {k: jax.tree.map(_narrow, v) if k in NUMERIC else v for k, v in rows.items()}

    return Source(num_rows(columns["x"]), take)


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


def hold_out(
    size: int, count: int, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
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
    order = order[np.argsort(labels[order], kind="stable")]
    _, first, count_of = np.unique(labels[order], return_index=True, return_counts=True)
    quantile = np.empty(size)
    quantile[order] = (np.arange(size) - np.repeat(first, count_of) + 0.5) / np.repeat(
        count_of, count_of
    )
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
    """The rows kept and those held out by `chosen`, stratified by "label" where there is one."""
    columns = checks.tidy("train", columns)
    kept, held = chosen(columns["x"], config, columns.get("label"))
    return take_rows(columns, kept), take_rows(columns, held)


def chosen(
    x: Any, config: Mapping[str, Any], labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Which of the examples x are kept, and the `config.test_fraction` that is held out.

    With `config.unique` examples that are equal stay together, and the fraction is one of
    different examples.
    """
    size = num_rows(x)
    if not config.get("unique"):
        return hold_out(size, held_out_count(config, size), labels)
    place: dict[bytes, int] = {}
    group = np.array([place.setdefault(row, len(place)) for row in _bytes(x)])
    first = np.unique(group, return_index=True)[1]
    count = held_out_count(config, len(first))
    _, held = hold_out(len(first), count, None if labels is None else labels[first])
    apart = np.isin(group, held)
    return np.flatnonzero(~apart), np.flatnonzero(apart)


def build(
    train: Columns,
    test: Columns,
    num_values: int = 0,
    num_classes: int = 0,
    kind: str = "",
    ordinal: bool = False,
    drawn: str = "",
) -> Dataset:
    """Check the columns of both splits and make the data set.

    Args:
        train: "x" [n, *S], perhaps "label" [n], perhaps "observed" or "source" [n, *S], perhaps
            others [n, ...].
        test: the same names.
        num_values: S, or 0 to take it from the data (256 for images of bytes). Images of real
            numbers in [0, 1] become that many levels.
        num_classes: number of classes, or 0 to take it from the labels.
        kind: "image", "sequence" or "vector"; empty: an image where an example has rank 2
            or 3 (rank 2 gains a channel axis), otherwise a vector. Or a name in `SPACES`: real
            numbers (integers of at least 0 for "counts"), and no `num_values`.
        ordinal: whether neighbouring values mean nearly the same.
        drawn: how one set was split by chance, `RANDOM` or `ROWS`; the notes then tell how many
            held-out examples are training examples too.

    Raises:
        UserError: values outside 0..S-1, or splits and shapes that do not fit together.
    """
    sides = [checks.tidy(name, side) for name, side in (("train", train), ("test", test))]
    for name, side in zip(("train", "test"), sides, strict=True):
        if kind not in SPACES:
            side |= {k: shaped(side[k]) for k in ("x", "source") if k in side}
        if not len(side["x"]):
            raise UserError(f"config.data: the {name} split is empty")
        if "observed" in side:
            side["observed"] = checks.observed(name, side["observed"], side["x"].shape)
        if "source" in side and side["source"].shape != side["x"].shape:
            shape = side["source"].shape
            raise UserError(f"config.data: {name} has x {side['x'].shape}, source {shape}")
    shapes = [side["x"].shape[1:] for side in sides]
    if shapes[0] != shapes[1]:
        raise UserError(f"config.data: train examples are {shapes[0]}, test {shapes[1]}")
    if set(sides[0]) != set(sides[1]):
        odd = sorted(set(sides[0]) ^ set(sides[1]))
        raise UserError(f"config.data: only one of train and test has {', '.join(odd)}")
    kind = checked_kind(kind, shapes[0], KINDS | SPACES)
    notes: list[str] = []
    if kind in SPACES:
        _check_numbers(sides, num_values, kind, notes)
        num_values = 0
    else:
        num_values = _check_values(sides, num_values, kind, notes)
    if "label" in sides[0]:
        num_classes = _check("label", sides, num_classes, "num_classes")
    spec = DataSpec(
        shapes[0],
        num_values,
        kind=kind,
        ordinal=bool(ordinal),
        num_classes=num_classes if "label" in sides[0] else 0,
    )
    if drawn:
        notes += repeats(sides[0]["x"], sides[1]["x"], drawn)
    return Dataset(spec, arrays(sides[0]), arrays(sides[1]), tuple(notes))


def parted(columns: Columns, rows: tuple[np.ndarray, np.ndarray], **keys: Any) -> Dataset:
    """`build` of the rows kept and of those held out of one set by chance."""
    train, test = (take_rows(columns, side) for side in rows)
    return build(train, test, **keys, drawn=RANDOM)


def repeats(train: Any, test: Any, drawn: str) -> tuple[str, ...]:
    """How many held-out examples are training examples too: one line, or none.

    Args:
        train, test: arrays [n, *S], or dictionaries of such.
        drawn: how the set was split.
    """
    known = set(_bytes(train))
    count = sum(row in known for row in _bytes(test))
    share = f"{count} of {num_rows(test)} held-out examples ({count / num_rows(test):.1%})"
    return (f"data: {share} are training examples too{drawn}",) if count else ()


def _bytes(tree: Any) -> list[bytes]:
    """Every example as bytes, the same for 0.0 and -0.0."""
    zero = lambda leaf: np.zeros((), leaf.dtype)
    flat = [(leaf + zero(leaf)).reshape(len(leaf), -1) for leaf in jax.tree.leaves(tree)]
    return [b"".join(parts) for parts in zip(*(map(bytes, leaf) for leaf in flat), strict=True)]


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
    fits = {name: rank == len(shape) for name, rank in ranks.items()}
    if "rotations" in fits:
        fits["rotations"] &= shape == (3, 3)
    if not fits.get(kind):
        fits["image"] |= len(shape) == 2
        fitting = [name for name, good in fits.items() if good]
        raise UserError(
            f"config.data.kind={kind!r} does not fit examples of shape {shape}; "
            f"valid: {', '.join(fitting) or 'none: examples have rank 1, 2 or 3'}"
        )
    return kind


def _check(name: str, sides: list[dict[str, Any]], size: int, key: str, otherwise: str = "") -> int:
    """Check column `name` of both splits against one size; returns the size."""
    checked = [as_indices(side[name], size, key, otherwise) for side in sides]
    for side, (values, _) in zip(sides, checked, strict=True):
        side[name] = _small(values)
    return max(found for _, found in checked)


def _check_values(sides: list[dict[str, Any]], num_values: int, kind: str, notes: list[str]) -> int:
    """Discrete data of both splits become the smallest integers; returns their number."""
    if kind == "image":
        for name in ("x", "source"):
            if name in sides[0]:
                turns = sides[0]["x"].shape[1:] == (3, 3, 1)
                otherwise = ", or config.data.kind=rotations" if turns else ""
                found = checks.levels([side[name] for side in sides], num_values, otherwise)
                for side, values in zip(sides, found, strict=True):
                    side[name] = values
        if not num_values and all(side["x"].dtype == np.uint8 for side in sides):
            num_values, most = 256, max(int(side["x"].max()) for side in sides) + 1
            if most <= 128:
                notes.append(
                    f"data: bytes of an image have 256 values; of these only the first {most} occur"
                    f" (config.data.num_values={most})"
                )
    spaces = [name for name, rank in SPACES.items() if rank == sides[0]["x"].ndim - 1]
    otherwise = f", or config.data.kind one of {', '.join(spaces)}" if spaces else ""
    size = _check("x", sides, num_values, "num_values", otherwise)
    if "source" in sides[0]:
        size = max(size, _check("source", sides, num_values or size, "num_values"))
    return size


def _check_numbers(
    sides: list[dict[str, Any]], num_values: int, kind: str, notes: list[str]
) -> None:
    """Continuous data of both splits become float32, counts stay integers."""
    if num_values:
        raise UserError(f"config.data.num_values={num_values}: {kind} data have none; valid: 0")
    for name in ("x", "source"):
        if name not in sides[0]:
            continue
        if kind == "counts":
            found = [_small(checks.as_counts(side[name])) for side in sides]
        else:
            found = [checks.real(name, side[name]) for side in sides]
        if kind == "torus":
            found, wrapped = checks.angles(found)
            if wrapped:
                notes.append("data: angles beyond [-pi, pi) were brought there by full turns")
        for side, values in zip(sides, found, strict=True):
            side[name] = values if kind == "counts" else values.astype(np.float32)


def _small(values: np.ndarray) -> np.ndarray:
    return values.astype(np.min_scalar_type(values.max()))
