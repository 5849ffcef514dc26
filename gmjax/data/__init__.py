"""Data: one table of named sets, and the readers behind it.

``load(config)`` reads ``config.data`` (a mapping with ``name``, ``dir`` and the keys of that
set's loader) and returns a `Dataset`: what one example looks like, and random access to
two splits. A source's ``take(indices)`` gives {"x": [n, *S]}, int32 or, for
continuous data, float32, and, where the set has them, "label" [n] int32 and "observed"
[n, *S] bool, the sites that are given. Of a table of mixed columns "x" and "observed" are
dictionaries {"numeric": [n, d], "classes": [n, m]}. What is in a batch is a pure
function of (seed, step): see `gmjax.data.batches`.
"""

from collections.abc import Callable
from typing import Any

from gmjax.data import (
    chorales,
    dirichlet,
    earth,
    glyph,
    records,
    rotations,
    sets,
    small,
    synthetic,
    tables,
    text,
    torsions,
    toys,
    user,
)
from gmjax.data.files import Config
from gmjax.data.glyph import glyph_pmf
from gmjax.types import Dataset, UserError, lookup

__all__ = ["DATASETS", "DECODERS", "DEFAULTS", "decoder", "defaults", "glyph_pmf", "load"]

DATASETS: dict[str, Callable[[Config], Dataset]] = {
    "digits": sets.digits,
    "mnist": sets.mnist,
    "binarized_mnist": sets.binarized_mnist,
    "shakespeare": text.shakespeare,
    "promoters": text.promoters,
    "chorales": chorales.chorales,
    "glyph": glyph.glyph,
    "eight_gaussians": toys.plane("eight_gaussians"),
    "moons": toys.plane("moons"),
    "checkerboard": toys.plane("checkerboard"),
    "moons_from_gaussians": toys.plane("moons", "eight_gaussians"),
    "cifar10": records.cifar10,
    "volcano": earth.events("volerup"),
    "earthquake": earth.events("quakes_all"),
    "flood": earth.events("flood"),
    "torsions": torsions.torsions,
    "rotations": rotations.rotations,
    "dirichlet": dirichlet.dirichlet,
    "tree": synthetic.tree,
    "poses": synthetic.poses,
    "banknote": small.banknote,
    "abalone_weights": small.abalone_weights,
    "digit_counts": small.digit_counts,
    "abalone": tables.load,
    "wine": tables.load,
    "table": tables.load,
    "idx": user.idx,
    "npz": user.npz,
    "csv": user.csv,
    "text": text.text,
    "tfds": records.tfds,
}

OWN = {
    "train_file": "",
    "test_file": "",
    "test_fraction": 0.1,
    "unique": False,
    "num_values": 0,
    "num_classes": 0,
    "kind": "",
    "ordinal": False,
    "degrees": False,
}
ROWS = {"delimiter": "", "header": ""}
TENTHS = {"split_seed": 0, "held_out": "test"}
PIECES = {"length": 128, "stride": 1}

# The keys of `config.data` that a set reads besides "name" and "dir"; none for those not here.
DEFAULTS: dict[str, dict[str, Any]] = {
    "binarized_mnist": {"held_out": "test"},
    "shakespeare": PIECES,
    "chorales": {"length": 256, "observed": 0, "held_out": "test"},
    "volcano": TENTHS,
    "earthquake": TENTHS,
    "flood": TENTHS,
    "torsions": {"angles": 2, **TENTHS},
    "rotations": rotations.SETTINGS,
    "banknote": TENTHS,
    "abalone_weights": TENTHS,
    "abalone": {"observed": "", **TENTHS},
    "wine": {"observed": "", **TENTHS},
    "table": {
        "train_file": "",
        "test_file": "",
        "test_fraction": 0.1,
        "unique": False,
        **ROWS,
        "class_columns": "",
        "observed": "",
    },
    "idx": {**OWN, "train_label_file": "", "test_label_file": ""},
    "npz": {**OWN, "array": ""},
    "csv": {**OWN, **ROWS, "labels": False, "label_column": -1},
    "text": {
        **PIECES,
        "train_file": "",
        "test_file": "",
        "test_fraction": 0.1,
        "unique": False,
        "num_values": 0,
        "alphabet": "",
        "lines": False,
    },
    "tfds": {
        "tfds_name": "",
        "feature": "image",
        "label_feature": "label",
        "train_split": "train",
        "test_split": "test",
        "num_values": 0,
        "num_classes": 0,
        "kind": "",
        "ordinal": False,
    },
}

Decoder = Callable[[Any], list[str]]  # x [n, L], or {"numeric": ..., "classes": ...} -> n strings

DECODERS: dict[str, Callable[[Config], Decoder]] = {
    "shakespeare": lambda config: text.decoder({**config, **text.SHAKESPEARE}),
    "promoters": lambda config: text.decoder({**config, **text.PROMOTERS}),
    "chorales": lambda config: chorales.decode,
    "text": text.decoder,
    **dict.fromkeys(tables.READERS, tables.decoder),
}


def defaults(name: str) -> dict[str, Any]:
    """All keys that `load` reads for this data set, "name" and "dir" among them.

    Args:
        name: a row of `DATASETS`.

    Returns:
        A new dictionary, key -> default.

    Raises:
        UserError: an unknown name.
    """
    lookup(DATASETS, name, "config.data.name")
    return {"name": name, "dir": "", **DEFAULTS.get(name, {})}


def load(config: Config) -> Dataset:
    """The data set that a configuration names.

    Args:
        config: `config.data`: "name", a row of `DATASETS`; "dir", the data directory (empty:
            the environment's GMJAX_DATA_DIR); the further keys of that set. What is left out
            is as in `defaults`.

    Raises:
        UserError: an unknown name, a missing file, values that do not fit.
    """
    config = _complete(config)
    return DATASETS[config["name"]](config)


def decoder(config: Config) -> Decoder | None:
    """How to print examples of text or of a table, or None for other data.

    Args:
        config: as in `load`.

    Returns:
        A pure function x -> n strings, for samples and data alike.
    """
    config = _complete(config)
    make = DECODERS.get(config["name"])
    return make(config) if make else None


def _complete(config: Config) -> Config:
    given = {key: config[key] for key in config if config[key] is not None}
    known = defaults(config["name"])
    for key in given:
        if key not in known:
            raise UserError(
                f"config.data.{key}={given[key]!r}: data set {config['name']!r} has no such key;"
                f" valid: {', '.join(known)}"
            )
    return {**known, **given}
