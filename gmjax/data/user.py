"""Your own arrays and tables: idx, npz and csv files.

Every loader reads ``config.data``: ``dir`` (or GMJAX_DATA_DIR), ``train_file`` and, where
there is one, ``test_file``, relative to it and gzipped or not. Without ``test_file`` a fixed
random ``test_fraction`` (0.1) is held out, stratified by label. ``num_values`` and
``num_classes`` are taken from the data where they are 0 and checked against it otherwise;
``ordinal`` (false) says whether neighbouring values mean nearly the same. Real numbers need
``kind``, the space that the examples lie in. The further keys stand with each loader.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from gmjax.data.files import Config, is_number, locate, read_csv, read_idx, read_npz
from gmjax.data.sources import Columns, build, split
from gmjax.types import Dataset, UserError


def idx(config: Config) -> Dataset:
    """Arrays in idx files, the format of MNIST: x [n, H, W], [n, H, W, C] or [n, D].

    Args:
        config: the common keys; `train_label_file`, `test_label_file` (empty: no labels).
    """

    def read(side: str) -> Columns:
        columns = {"x": read_idx(_file(config, f"{side}_file"))}
        if config[f"{side}_label_file"]:
            columns["label"] = read_idx(_file(config, f"{side}_label_file"))
        return columns

    return _dataset(config, read)


def npz(config: Config) -> Dataset:
    """Arrays in npz files: "x" [n, *S] numbers, perhaps "label" [n] (integers or words).

    An array "observed" [n, *S] bool says which sites are given; any further array [n, ...]
    is handed on as it is.

    Args:
        config: the common keys; `kind` ("image", "sequence" or "vector", by the shape where
            empty; or the space of continuous data, a name in `sources.SPACES`).
    """
    read = lambda side: read_npz(_file(config, f"{side}_file"), "x")
    return _dataset(config, read, config["kind"])


def csv(config: Config) -> Dataset:
    """Tables, one example a row: integer columns that share the values 0 .. num_values - 1.

    Args:
        config: the common keys; `kind`, as for `npz`, where the columns are the coordinates of
            one continuous point; `delimiter` (","); `labels` (False): whether the column
            `label_column` (-1: the last) holds labels. They may be words. A header is skipped.
    """
    column = config["label_column"]

    def read(side: str) -> Columns:
        path = _file(config, f"{side}_file")
        cells = np.array(read_csv(path, config["delimiter"]))
        if not config["labels"]:
            return {"x": _numbers(cells, path)}
        width = cells.shape[1]
        if not -width <= column < width:
            raise UserError(f"config.data.label_column={column}; valid: {-width}..{width - 1}")
        x = np.delete(cells, column, axis=1)
        return {"x": _numbers(x, path), "label": cells[:, column]}

    return _dataset(config, read, config["kind"])


def _file(config: Config, key: str) -> Path:
    return locate(config, config[key], key)


def _dataset(config: Config, read: Callable[[str], Columns], kind: str = "") -> Dataset:
    """Read "train", and "test" or else hold some of "train" out; number the labels; check."""
    sides = ["train", "test"] if config["test_file"] else ["train"]
    parts = _numbered([dict(read(side)) for side in sides])
    train, test = parts if len(parts) == 2 else split(parts[0], config)
    return build(
        train,
        test,
        num_values=config["num_values"],
        num_classes=config["num_classes"],
        kind=kind,
        ordinal=config["ordinal"],
    )


def _numbered(parts: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Labels that are words become 0, 1, ... in sorted order; numerals become themselves."""
    if not all("label" in part and part["label"].dtype.kind in "US" for part in parts):
        return parts
    words = np.unique(np.concatenate([part["label"] for part in parts]))
    try:
        codes = words.astype(np.int64)
    except ValueError:
        codes = np.arange(len(words))
    return [{**p, "label": codes[np.searchsorted(words, p["label"])]} for p in parts]


def _numbers(cells: np.ndarray, path: Path) -> np.ndarray:
    """[n, D] cells as numbers."""
    wrong = [cell for cell in np.unique(cells) if not is_number(cell)]
    if wrong:
        raise UserError(f"{path}: cell {str(wrong[0])!r}; valid: numbers, but for one label_column")
    return cells.astype(np.float64)
