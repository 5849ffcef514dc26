"""Tables of mixed columns: numbers and classes side by side.

An example is a dictionary, {"numeric": [d] float32, "classes": [m] int32}. A numeric column is
standardised with the mean and the standard deviation of its training rows, z = (a - mean) / scale;
a column of classes holds the position of each word in the sorted list of that column's words. All
columns of classes share one number of values K, that of the column with the most: a column with
fewer words never holds the values above its own. `describe` gives the way back.

Numbers in tables are rounded (ages to years, lengths to half a centimetre), so a density can
gain on them without bound by standing on the grid; compare likelihoods of tables with care.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gmjax.data.cells import (
    Grid,
    all_numbers,
    check_words,
    holds_words,
    holes,
    is_missing,
    numbers,
    read_grid,
    read_sides,
)
from gmjax.data.files import Config, locate
from gmjax.data.sources import RANDOM, ROWS, arrays, chosen, repeats, take_rows, tenths
from gmjax.types import Dataset, DataSpec, UserError


class Table(NamedTuple):
    """The columns of a table, and what turns examples back into its cells."""

    numeric: tuple[str, ...]  # names, d
    classes: tuple[str, ...]  # names, m
    words: tuple[tuple[str, ...], ...]  # the words of each column of classes
    mean: np.ndarray  # [d] float64, in the table's units
    scale: np.ndarray  # [d] float64, standard deviations

    def units(self, numeric: np.ndarray) -> np.ndarray:
        """Standardised numbers [n, d] in the units of the table, float64."""
        return self.mean + self.scale * np.asarray(numeric, np.float64)


class Columns(NamedTuple):
    """A table as it was read: its columns [n], and the split."""

    numeric: dict[str, np.ndarray]  # name -> float64
    classes: dict[str, Sequence[str]]  # name -> words
    train: np.ndarray
    test: np.ndarray
    drawn: str = RANDOM  # how the split was


ABALONE = (
    "sex",
    "length",
    "diameter",
    "height",
    "whole weight",
    "meat weight",
    "viscera weight",
    "shell weight",
    "rings",
)
WINE = (
    "fixed acidity",
    "volatile acidity",
    "citric acid",
    "residual sugar",
    "chlorides",
    "free sulfur dioxide",
    "total sulfur dioxide",
    "density",
    "pH",
    "sulphates",
    "alcohol",
    "quality",
    "colour",
)


def _abalone(config: Config) -> Columns:
    grid = read_grid(locate(config, "uci_classification/abalone.csv"), ",", "no")
    return _columns([grid], ABALONE, ("sex",), tenths(len(grid.lines), config))


def _wine(config: Config) -> Columns:
    colours = ("red", "white")
    files = [f"uci_classification/winequality-{colour}.csv" for colour in colours]
    grids = [read_grid(locate(config, file), ",", "no") for file in files]
    sizes = [len(grid.lines) for grid in grids]
    read = _columns(grids, WINE[:-1], ("quality",), tenths(sum(sizes), config))
    colour = [c for c, size in zip(colours, sizes, strict=True) for _ in range(size)]
    return read._replace(classes={**read.classes, WINE[-1]: colour})


def _table(config: Config) -> Columns:
    keys = [key for key in ("train_file", "test_file") if config[key] or key == "train_file"]
    grids = read_sides([locate(config, config[key], key) for key in keys], config)
    first, size = len(grids[0].lines), sum(len(grid.lines) for grid in grids)
    names = grids[0].names
    sides = np.arange(first), np.arange(first, size)
    read = _columns(grids, names, _among(names, config, "class_columns"), sides)
    if len(grids) > 1:
        return read._replace(drawn="")
    codes = [np.unique(words, return_inverse=True)[1] for words in read.classes.values()]
    train, test = chosen([*read.numeric.values(), *codes], config)
    return read._replace(train=train, test=test, drawn=ROWS)


def _columns(
    grids: Sequence[Grid],
    names: tuple[str, ...],
    asked: tuple[str, ...],
    sides: tuple[np.ndarray, np.ndarray],
) -> Columns:
    """The columns of grids one below the other; those that hold words, or are `asked`, classes."""
    if any(len(grid.names) != len(names) for grid in grids):
        raise UserError(f"{grids[0].path} has {len(grids[0].names)} columns; valid: {len(names)}")
    read = Columns({}, {}, *sides)
    for i, name in enumerate(names):
        cure = f", or config.data.class_columns={name} for a column of classes"
        if name not in asked and not holds_words(grids, i):
            read.numeric[name] = np.concatenate([numbers(grid, i, cure) for grid in grids])
            continue
        read.classes[name] = [cell.strip() for grid in grids for cell in grid.columns[i]]
        if name not in asked:
            check_words(grids[0], i, read.classes[name], cure)
    return read


# name -> what reads it
READERS: dict[str, Callable[[Config], Columns]] = {
    "abalone": _abalone,
    "wine": _wine,
    "table": _table,
}


def load(config: Config) -> Dataset:
    """A table, of kind "table".

    Args:
        config: `name`, a row of `READERS`; `dir` (or GMJAX_DATA_DIR); `observed` (""): names
            of columns that a sampler is given, separated by commas, which `take` marks in
            "observed" {"numeric": [n, d] bool, "classes": [n, m] bool}.
            "abalone" (8 numbers, of which the last is a count, and the sex) and "wine" (11 numbers,
            quality and colour) read uci_classification/*.csv: `split_seed` (0), of the random
            split into 80, 10 and 10 percent; `held_out` ("test").
            "table" is your own csv file: `train_file`, `test_file` or `test_fraction`,
            `unique` (False: equal rows may end on both sides), `delimiter` and `header` (empty:
            told from the rows); columns that hold words are
            classes, and so are those named (or, without a header, numbered from 0) in
            `class_columns`.

    Returns:
        x is {"numeric": [n, d] float32, "classes": [n, m] int32}; spec.shape is {"numeric": (d,),
        "classes": (m,)}, spec.num_values K and spec.names the names of the columns.

    Raises:
        UserError: a column that does not exist, one that never varies, none of either sort, or
            a cell in a column of numbers that is none.
    """
    read = READERS[config["name"]](config)
    table = _describe(read)
    values, codes = _encode(read, table)
    columns: dict[str, Any] = {"x": {"numeric": values, "classes": codes}}
    given = _among((*read.numeric, *read.classes), config, "observed")
    if given:
        mark = lambda names: np.tile([name in given for name in names], (len(values), 1))
        columns["observed"] = {"numeric": mark(table.numeric), "classes": mark(table.classes)}
    spec = DataSpec(
        {"numeric": (len(table.numeric),), "classes": (len(table.classes),)},
        max(map(len, table.words)),
        kind="table",
        names={"numeric": table.numeric, "classes": table.classes},
    )
    train, test = (take_rows(columns, rows) for rows in (read.train, read.test))
    notes = repeats(train["x"], test["x"], read.drawn) if read.drawn else ()
    for name, cells in read.classes.items():
        notes += holes(name, cells)
    return Dataset(spec, arrays(train), arrays(test), notes)


def describe(config: Config) -> Table:
    """The columns of the table that `load` gives, their words and their units."""
    return _describe(READERS[config["name"]](config))


def decoder(config: Config) -> Callable[[Any], list[str]]:
    """How to print examples: x -> n strings such as "sex=M, length=0.455, rings=15"."""
    table = describe(config)

    def decode(x: Any) -> list[str]:
        codes = np.asarray(x["classes"])
        numbers = table.units(x["numeric"]).round(6) + 0.0  # float32 knows no more; no minus zero
        word = lambda words, code: words[code] if 0 <= code < len(words) else "?"
        return [
            ", ".join(
                [f"{n}={word(w, c)}" for n, w, c in zip(table.classes, table.words, k, strict=True)]
                + [f"{n}={a:.4g}" for n, a in zip(table.numeric, row, strict=True)]
            )
            for k, row in zip(codes, numbers, strict=True)
        ]

    return decode


def _describe(read: Columns) -> Table:
    if not read.numeric or not read.classes:
        raise UserError(
            f"config.data.name: {len(read.numeric)} columns of numbers, {len(read.classes)} of"
            " classes; valid: one of each or more ('csv' with config.data.kind reads numbers alone)"
        )
    of_train = _numbers(read)[read.train]
    with np.errstate(over="ignore"):
        scale = of_train.std(0)
    for name, s in zip(read.numeric, scale, strict=True):
        if not 0 < s < np.inf:
            raise UserError(
                f"column {name!r} never varies in the training rows, or by too much; leave it out"
            )
    words = tuple(map(_sorted, read.classes.values()))
    return Table(tuple(read.numeric), tuple(read.classes), words, of_train.mean(0), scale)


def _encode(read: Columns, table: Table) -> tuple[np.ndarray, np.ndarray]:
    values = (_numbers(read) - table.mean) / table.scale
    places = [{word: i for i, word in enumerate(words)} for words in table.words]
    codes = [
        [place[cell] for cell in cells]
        for place, cells in zip(places, read.classes.values(), strict=True)
    ]
    return values.astype(np.float32), np.array(codes, np.int32).T


def _numbers(read: Columns) -> np.ndarray:
    return np.stack(list(read.numeric.values()), 1)


def _sorted(cells: Sequence[str]) -> tuple[str, ...]:
    """The words of a column, numerals by their value; those that stand for a hole come last."""
    words = sorted(set(cells))
    filled = [word for word in words if not is_missing(word)]
    if all_numbers(filled):
        return (*sorted(filled, key=float), *(word for word in words if is_missing(word)))
    return tuple(words)


def _among(names: tuple[str, ...], config: Config, key: str) -> tuple[str, ...]:
    """The names of columns that a key lists, separated by commas."""
    whole = str(config[key]).strip()
    asked = tuple(word.strip() for word in whole.split(",") if word.strip())
    if whole in names:  # though it may hold a comma
        return (whole,)
    for word in asked:
        if word not in names:
            raise UserError(f"config.data.{key}: no column {word!r}; valid: {', '.join(names)}")
    return asked
