"""Tables of mixed columns: numbers and classes side by side.

An example is a dictionary, {"numeric": [d] float32, "classes": [m] int32}. A numeric column is
standardised with the mean and the standard deviation of its training rows, z = (a - mean) / scale;
a column of classes holds the position of each word in the sorted list of that column's words. All
columns of classes share one number of values K, that of the column with the most: a column with
fewer words never holds the values above its own. `describe` gives the way back.

Numbers in tables are rounded (ages to years, lengths to half a centimetre), so a density can
gain on them without bound by standing on the grid; compare likelihoods of tables with care.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gmjax.data.files import Config, is_number, locate, read_table
from gmjax.data.sources import arrays, held_out_count, hold_out, take_rows, tenths
from gmjax.types import Dataset, DataSpec, Source, UserError


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


class Cells(NamedTuple):
    """A table as it was read: [n, c] strings, c names, which are classes, and the split."""

    cells: np.ndarray
    names: tuple[str, ...]
    classes: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray


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


def _abalone(config: Config) -> Cells:
    rows = read_table(locate(config, "uci_classification/abalone.csv"))[1]
    return Cells(np.array(rows), ABALONE, ("sex",), *tenths(len(rows), config))


def _wine(config: Config) -> Cells:
    read = lambda colour: [
        [*row, colour]
        for row in read_table(locate(config, f"uci_classification/winequality-{colour}.csv"))[1]
    ]
    rows = read("red") + read("white")
    return Cells(np.array(rows), WINE, ("quality", "colour"), *tenths(len(rows), config))


def _table(config: Config) -> Cells:
    files = [key for key in ("train_file", "test_file") if config[key] or key == "train_file"]
    read = [read_table(locate(config, config[k], k), config["delimiter"]) for k in files]
    widths = {len(rows[0]) for _, rows in read}
    if len(widths) > 1:
        raise UserError(f"config.data.test_file: rows of {sorted(widths)} cells; valid: one length")
    cells = np.concatenate([np.array(rows) for _, rows in read])
    names = tuple(read[0][0] or map(str, range(cells.shape[1])))
    first = len(read[0][1])
    sides: tuple[np.ndarray, ...] = tuple(np.split(np.arange(len(cells)), [first]))
    if len(read) == 1:
        sides = hold_out(first, held_out_count(config, first))
    asked = _among(names, config, "class_columns")
    words = {n for n, a in zip(names, cells.T, strict=True) if not all(map(is_number, a))}
    return Cells(cells, names, tuple(n for n in names if n in words.union(asked)), *sides)


# name -> what reads it
READERS: dict[str, Callable[[Config], Cells]] = {
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
            `delimiter`; columns that hold words are classes, and so are those named (or, without
            a header, numbered from 0) in `class_columns`.

    Returns:
        x is {"numeric": [n, d] float32, "classes": [n, m] int32}; spec.shape is {"numeric": (d,),
        "classes": (m,)}, spec.num_values K and spec.names the names of the columns.

    Raises:
        UserError: a column that does not exist, one that never varies, none of either sort.
    """
    read = READERS[config["name"]](config)
    table = _describe(read)
    numbers, codes = _encode(read, table)
    columns: dict[str, Any] = {"x": {"numeric": numbers, "classes": codes}}
    given = _among(read.names, config, "observed")
    if given:
        mark = lambda names: np.tile([name in given for name in names], (len(numbers), 1))
        columns["observed"] = {"numeric": mark(table.numeric), "classes": mark(table.classes)}
    side: Callable[[np.ndarray], Source] = lambda rows: arrays(take_rows(columns, rows))
    spec = DataSpec(
        {"numeric": (len(table.numeric),), "classes": (len(table.classes),)},
        max(map(len, table.words)),
        kind="table",
        names={"numeric": table.numeric, "classes": table.classes},
    )
    return Dataset(spec, side(read.train), side(read.test))


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


def _describe(read: Cells) -> Table:
    numeric = tuple(name for name in read.names if name not in read.classes)
    if not numeric or not read.classes:
        raise UserError(
            f"config.data.name: {len(numeric)} columns of numbers, {len(read.classes)} of classes; "
            "valid: one of each or more ('csv' with config.data.kind reads numbers alone)"
        )
    numbers = _numbers(read, numeric)[read.train]
    scale = numbers.std(0)
    for name, s in zip(numeric, scale, strict=True):
        if not s > 0:
            raise UserError(f"column {name!r} never varies in the training rows; leave it out")
    words = tuple(_sorted(read.cells[:, read.names.index(name)]) for name in read.classes)
    return Table(numeric, read.classes, words, numbers.mean(0), scale)


def _encode(read: Cells, table: Table) -> tuple[np.ndarray, np.ndarray]:
    numbers = (_numbers(read, table.numeric) - table.mean) / table.scale
    codes = [
        [words.index(cell) for cell in read.cells[:, read.names.index(name)]]
        for name, words in zip(table.classes, table.words, strict=True)
    ]
    return numbers.astype(np.float32), np.array(codes, np.int32).T


def _numbers(read: Cells, names: tuple[str, ...]) -> np.ndarray:
    numbers = read.cells[:, [read.names.index(name) for name in names]].astype(np.float64)
    if not np.isfinite(numbers).all():
        column = names[int(np.argmin(np.isfinite(numbers).all(0)))]
        raise UserError(f"column {column!r} holds numbers that are not finite")
    return numbers


def _sorted(cells: np.ndarray) -> tuple[str, ...]:
    words = [str(word) for word in np.unique(cells)]
    return tuple(sorted(words, key=float) if all(map(is_number, words)) else words)


def _among(names: tuple[str, ...], config: Config, key: str) -> tuple[str, ...]:
    """The names of columns that a key lists, separated by commas."""
    asked = tuple(word.strip() for word in str(config[key]).split(",") if word.strip())
    for word in asked:
        if word not in names:
            raise UserError(f"config.data.{key}: no column {word!r}; valid: {', '.join(names)}")
    return asked
