"""Small real sets in R^d, on the half-line and in the counts: columns of tables, ink of digits."""

import numpy as np

from gmjax.data.files import Config, locate, read_table
from gmjax.data.sets import DIGITS_TEST
from gmjax.data.sources import build, hold_out, tenths
from gmjax.types import Dataset

WEIGHTS = slice(4, 8)  # whole, meat, viscera and shell weight of an abalone


def banknote(config: Config) -> Dataset:
    """Four wavelet measurements of 1372 banknotes, standardised, and whether each is forged.

    Args:
        config: `dir` (or GMJAX_DATA_DIR) holds uci_classification/banknote_authentication.csv;
            `split_seed` (0), `held_out` ("test").
    """
    rows = read_table(locate(config, "uci_classification/banknote_authentication.csv"))[1]
    table = np.array(rows, np.float64)
    kept, held = tenths(len(table), config)
    x = (table[:, :4] - table[kept, :4].mean(0)) / table[kept, :4].std(0)
    columns = {"x": x.astype(np.float32), "label": table[:, 4].astype(np.uint8)}
    train, test = ({k: v[side] for k, v in columns.items()} for side in (kept, held))
    return build(train, test, num_classes=2, kind="euclidean")


def abalone_weights(config: Config) -> Dataset:
    """Four weights of 4177 abalones, positive, each over its mean.

    Args:
        config: `dir` (or GMJAX_DATA_DIR) holds uci_classification/abalone.csv; `split_seed` (0),
            `held_out` ("test").
    """
    rows = read_table(locate(config, "uci_classification/abalone.csv"))[1]
    table = np.array([row[WEIGHTS] for row in rows], np.float64)
    kept, held = tenths(len(table), config)
    x = (table / table[kept].mean(0)).astype(np.float32)
    return build({"x": x[kept]}, {"x": x[held]}, kind="half_line")


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
