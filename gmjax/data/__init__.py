"""Data: one table of named sets, and the readers behind it.

``load(config)`` reads ``config.data`` (a mapping with ``name``, ``dir`` and the keys of that
set's loader) and returns a `Dataset`: what one example looks like, and random access to
two splits. A source's ``take(indices)`` gives {"x": [n, *S] int32} and, where the set
has them, "label" [n] int32 and "observed" [n, *S] bool, the sites that are given. What is
in a batch is a pure function of (seed, step): see `gmjax.data.batches`.
"""

from collections.abc import Callable

import numpy as np

from gmjax.data import chorales, glyph, records, sets, text, user
from gmjax.data.files import Config
from gmjax.data.glyph import glyph_pmf
from gmjax.types import Dataset, lookup

__all__ = ["DATASETS", "DECODERS", "decoder", "glyph_pmf", "load"]

DATASETS: dict[str, Callable[[Config], Dataset]] = {
    "digits": sets.digits,
    "mnist": sets.mnist,
    "binarized_mnist": sets.binarized_mnist,
    "shakespeare": text.shakespeare,
    "promoters": text.promoters,
    "chorales": chorales.chorales,
    "glyph": glyph.glyph,
    "cifar10": records.cifar10,
    "idx": user.idx,
    "npz": user.npz,
    "csv": user.csv,
    "text": text.text,
    "tfds": records.tfds,
}

Decoder = Callable[[np.ndarray], list[str]]  # x [n, L] -> n strings

DECODERS: dict[str, Callable[[Config], Decoder]] = {
    "shakespeare": lambda config: text.decoder({**config, **text.SHAKESPEARE}),
    "promoters": lambda config: text.decoder({**config, **text.PROMOTERS}),
    "chorales": lambda config: chorales.decode,
    "text": text.decoder,
}


def load(config: Config) -> Dataset:
    """The data set that a configuration names.

    Args:
        config: `config.data`: "name", a row of `DATASETS`; "dir", the data directory (empty:
            the environment's GMJAX_DATA_DIR); further keys of that set's loader.

    Raises:
        UserError: an unknown name, a missing file, values that do not fit.
    """
    return lookup(DATASETS, config["name"], "config.data.name")(config)


def decoder(config: Config) -> Decoder | None:
    """How to print examples of a data set as text, or None where they are no text.

    Args:
        config: as in `load`.

    Returns:
        A pure function x [n, L] -> n strings, for samples and data alike.
    """
    make = DECODERS.get(config["name"])
    return make(config) if make else None
