"""Your own arrays and tables: idx, npz and csv files.

Every loader reads ``config.data``: ``dir`` (or GMJAX_DATA_DIR), ``train_file`` and, where
there is one, ``test_file``, relative to it and gzipped or not. Without ``test_file`` a fixed
random ``test_fraction`` (0.1) is held out, stratified by label; ``unique`` (false) keeps equal
examples on one side. ``num_values`` and
``num_classes`` are taken from the data where they are 0 and checked against it otherwise;
``ordinal`` (false) says whether neighbouring values mean nearly the same. ``kind`` is "image",
"sequence" or "vector", by the shape where it is empty; real numbers need the space that they lie
in, a name in `sources.SPACES`. With ``degrees`` angles are in degrees: those of a torus, or
latitude and longitude for a sphere. The further keys stand with each loader.
"""

from collections.abc import Callable

import numpy as np

from gmjax.data import checks
from gmjax.data.cells import all_numbers, check_words, holds_words, holes, numbers, read_sides
from gmjax.data.earth import check_degrees, from_degrees
from gmjax.data.files import Config, locate, read_idx, read_npz
from gmjax.data.sources import ROWS, build, split
from gmjax.types import Dataset, UserError

ARRAYS = ("label", "observed", "source")  # that are read besides the examples


def idx(config: Config) -> Dataset:
    """Arrays in idx files, the format of MNIST: x [n, H, W], [n, H, W, C] or [n, D].

    Args:
        config: the common keys; `train_label_file`, `test_label_file` (empty: no labels).
    """

    def read(side: str) -> dict[str, np.ndarray]:
        columns = {"x": read_idx(locate(config, config[f"{side}_file"], f"{side}_file"))}
        key = f"{side}_label_file"
        if config[key]:
            columns["label"] = read_idx(locate(config, config[key], key))
        return columns

    return _dataset(config, [read(side) for side in _sides(config)])


def npz(config: Config) -> Dataset:
    """Arrays in npz files: "x" [n, *S] numbers, perhaps "label" [n] (integers or words).

    An array "observed" [n, *S] bool says which sites are given, "source" [n, *S] holds what a
    flow carries to x.

    Args:
        config: the common keys; `array`, the name of x (empty: "x", or the only array there is).
            Where it is given, arrays of further names are passed over.
    """
    read = lambda key: _arrays(config, key)
    return _dataset(config, [read(f"{side}_file") for side in _sides(config)])


def csv(config: Config) -> Dataset:
    """Tables, one example a row: integer columns that share the values 0 .. num_values - 1.

    With a `kind` the columns are the coordinates of one continuous point.

    Args:
        config: the common keys; `delimiter` and `header` (empty: told from the rows); `labels`
            (False): whether the column `label_column` (-1: the last) holds labels, which may be
            words.
    """
    keys = [f"{side}_file" for side in _sides(config)]
    grids = read_sides([locate(config, config[key], key) for key in keys], config)
    width = len(grids[0].names)
    columns = list(range(width))
    parts: list[dict[str, np.ndarray]] = [{} for _ in grids]
    notes: tuple[str, ...] = ()
    if config["labels"]:
        column = config["label_column"]
        if not -width <= column < width:
            raise UserError(f"config.data.label_column={column}; valid: {-width}..{width - 1}")
        if width == 1:
            raise UserError(
                f"{grids[0].path}: one column, which holds the labels; valid: two or more, parted"
                " by config.data.delimiter"
            )
        label = columns.pop(column)
        if holds_words(grids, label):
            found = [np.array([c.strip() for c in grid.columns[label]]) for grid in grids]
            words = np.concatenate(found).tolist()
            check_words(grids[0], label, words)
            notes = holes(grids[0].names[label], words)
        else:
            found = [numbers(grid, label) for grid in grids]
        parts = [{"label": values} for values in found]
    cure = ""
    if not all(all_numbers(grid.columns[i]) for grid in grids for i in columns):
        cure = " (config.data.labels=True where one column holds labels; config.data.name=table"
        cure += " reads words beside numbers; config.data.delimiter parts the cells)"
    for part, grid in zip(parts, grids, strict=True):
        part["x"] = np.stack([numbers(grid, i, cure) for i in columns], 1)
    if config["degrees"] and config["kind"] == "sphere":
        names = [grids[0].names[i].lower() for i in columns]
        if len(names) == 2 and names[0].startswith(("lon", "lng")) and names[1].startswith("lat"):
            parts = [{**part, "x": part["x"][:, ::-1]} for part in parts]
    data = _dataset(config, parts)
    return data._replace(notes=data.notes + notes)


def _sides(config: Config) -> list[str]:
    return ["train", "test"] if config["test_file"] else ["train"]


def _arrays(config: Config, key: str) -> dict[str, np.ndarray]:
    """The arrays of one npz file, the examples as "x"."""
    path = locate(config, config[key], key)
    held, name = read_npz(path), config["array"]
    if not name:
        examples = [other for other in held if other not in ARRAYS or len(held) == 1]
        name = examples[0] if len(examples) == 1 else "x"
    found = ", ".join(held) or "none"
    if name not in held:
        raise UserError(
            f"config.data.array={config['array']!r}: no array {name!r} in {path}; valid: {found}"
        )
    further = [other for other in held if other not in (name, *ARRAYS)]
    if further and not config["array"]:
        raise UserError(
            f"config.data.{key}: nothing reads {', '.join(further)} of {path}; valid: arrays x,"
            f" {', '.join(ARRAYS)}, or config.data.array={name} to pass over others"
        )
    return {"x": held[name], **{k: v for k, v in held.items() if k in ARRAYS and k != name}}


def _dataset(config: Config, parts: list[dict[str, np.ndarray]]) -> Dataset:
    """Check every row, hold some of "train" out where there is no "test", number the labels."""
    kind = config["kind"]
    parts = [
        checks.tidy(side, part)
        for side, part in zip(("train", "test"), _numbered(parts), strict=False)
    ]
    for side, part in zip(("train", "test"), parts, strict=False):
        part["x"] = _points(f"x of {side}_file", part["x"], kind, config["degrees"])
    train, test = parts if len(parts) == 2 else split(parts[0], config)
    return build(
        train,
        test,
        num_values=config["num_values"],
        num_classes=config["num_classes"],
        kind=kind,
        ordinal=config["ordinal"],
        drawn=ROWS if len(parts) == 1 else "",
    )


def _points(name: str, x: np.ndarray, kind: str, degrees: bool) -> np.ndarray:
    """Real numbers, finite, and no longer in degrees."""
    if x.dtype.kind == "f":
        checks.real(name, x)
    if degrees and kind not in DEGREES:
        raise UserError(f"config.data.degrees=True, kind={kind!r}; valid: kind sphere or torus")
    if degrees:
        return DEGREES[kind](name, checks.real(name, x))
    if kind == "sphere" and x.ndim == 2 and x.shape[1] == 2:
        worst = np.abs(np.hypot(*x.astype(np.float64).T) - 1).max(initial=0)
        if worst > CIRCLE:
            raise UserError(
                f"config.data.kind='sphere': {name} has two coordinates, of norms up to"
                f" {worst:.3g} from 1; valid: config.data.degrees=True for latitude and longitude,"
                " or unit vectors"
            )
    return x


def _latitudes(name: str, x: np.ndarray) -> np.ndarray:
    if x.ndim != 2 or x.shape[1] != 2:
        raise UserError(
            f"config.data.degrees=True: {name} has shape {x.shape}; valid: [n, 2], latitude and"
            " longitude"
        )
    return from_degrees(check_degrees(name, x))


CIRCLE = 1e-3
DEGREES: dict[str, Callable[[str, np.ndarray], np.ndarray]] = {
    "sphere": _latitudes,
    "torus": lambda name, x: checks.wrap(np.radians(x.astype(np.float64))),
}


def _numbered(parts: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Labels that are words become 0, 1, ... in sorted order; numerals become themselves."""
    if not all("label" in part and part["label"].dtype.kind in "US" for part in parts):
        return parts
    parts = [{**part, "label": part["label"].astype(str)} for part in parts]
    words = np.unique(np.concatenate([part["label"] for part in parts]))
    if all_numbers(words):
        return [{**part, "label": part["label"].astype(np.float64)} for part in parts]
    codes = [np.asarray(np.searchsorted(words, part["label"])) for part in parts]
    return [{**part, "label": label} for part, label in zip(parts, codes, strict=True)]
