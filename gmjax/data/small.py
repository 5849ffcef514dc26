"""Small real sets in R^d, on the half-line and in the counts: columns of tables, ink of digits."""

import numpy as np

from gmjax.data.cells import numbers, read_grid
from gmjax.data.files import Config, locate
from gmjax.data.sets import DIGITS_TEST
from gmjax.data.sources import build, hold_out, parted, tenths
from gmjax.types import Dataset

WEIGHTS = slice(4, 8)  # whole, meat, viscera and shell weight of an abalone


def banknote(config: Config) -> Dataset:
    """Four wavelet measurements of 1372 banknotes, standardised, and whether each is forged.

    Args:
        config: `dir` (or GMJAX_DATA_DIR) holds uci_classification/banknote_authentication.csv;
            `split_seed` (0), `held_out` ("test").
    """
    table = _table(config, "uci_classification/banknote_authentication.csv", slice(5))
    rows = tenths(len(table), config)
    of_train = table[rows[0], :4]
    x = (table[:, :4] - of_train.mean(0)) / of_train.std(0)
    columns = {"x": x.astype(np.float32), "label": table[:, 4].astype(np.uint8)}
    return parted(columns, rows, num_classes=2, kind="euclidean")


def abalone_weights(config: Config) -> Dataset:
    """Four weights of 4177 abalones, positive, each over its mean.

    Args:
        config: `dir` (or GMJAX_DATA_DIR) holds uci_classification/abalone.csv; `split_seed` (0),
            `held_out` ("test").
    """
    table = _table(config, "uci_classification/abalone.csv", WEIGHTS)
    rows = tenths(len(table), config)
    x = (table / table[rows[0]].mean(0)).astype(np.float32)
    return parted({"x": x}, rows, kind="half_line")


def digit_counts(config: Config) -> Dataset:
    """The 8x8 digits as 64 counts, 0 to 16: inked pixels in each 4x4 block of a 32x32 bitmap.

    Args:
        config: no keys.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x, label = bunch.data.astype(np.uint8), bunch.target.astype(np.uint8)
    sides = hold_out(len(label), DIGITS_TEST, label)
    train, test = ({"x": x[rows], "label": label[rows]} for rows in sides)
    return build(train, test, num_classes=10, kind="counts")


def _table(config: Config, name: str, columns: slice) -> np.ndarray:
    """The numbers of some columns, [n, d] float64."""
    grid = read_grid(locate(config, name), ",", "no")
    return np.stack([numbers(grid, i) for i in range(len(grid.names))[columns]], 1)
