"""Sequences of characters: any text file, tiny Shakespeare, promoters.

A character's index is its position in the alphabet, a plain string; `encode` and `decode`
are pure functions of it.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from gmjax.data.checks import positive
from gmjax.data.files import Config, locate, read_text
from gmjax.data.sources import ROWS, build, held_out_count, split, windows
from gmjax.types import Dataset, DataSpec, UserError


def encode(string: str, alphabet: str) -> np.ndarray:
    """The indices of the characters.

    Args:
        string: n characters.
        alphabet: distinct characters in the order of their indices.

    Returns:
        [n] the smallest unsigned integers that hold the alphabet.

    Raises:
        UserError: a character is not in the alphabet.
    """
    table = _codes(alphabet)
    order = np.argsort(table)
    codes = _codes(string)
    at = order[np.searchsorted(table[order], codes).clip(max=len(table) - 1)]
    if not (table[at] == codes).all():
        stranger = chr(codes[np.argmin(table[at] == codes)])
        raise UserError(f"config.data.alphabet={alphabet!r} lacks the character {stranger!r}")
    return at.astype(np.min_scalar_type(len(alphabet)))


def decode(x: np.ndarray, alphabet: str) -> list[str]:
    """The strings of index sequences, the inverse of `encode`.

    Args:
        x: [n, L] integers 0 .. len(alphabet) - 1.
        alphabet: distinct characters in the order of their indices.

    Returns:
        n strings of L characters.
    """
    return ["".join(row) for row in np.array(list(alphabet))[np.asarray(x)]]


def text(config: Config) -> Dataset:
    """The characters of your own text.

    The text is cut into pieces of `length`: a training piece begins at every `stride`-th
    character, held-out pieces follow one another. Held out is `test_file`, or else the last
    `test_fraction` of the text. With `lines` each line is one example, all of one length, and
    a fixed random `test_fraction` is held out; `unique` keeps equal lines on one side.

    Args:
        config: `dir` (or GMJAX_DATA_DIR), `train_file`, `test_file` (empty: none),
            `test_fraction` (0.1), `length` (128), `stride` (1), `lines` (False), `unique`
            (False), `alphabet`
            (empty: the characters of the files, sorted); `num_values` (0, or the alphabet's
            size, to check it).

    Raises:
        UserError: a character outside the alphabet, lines of unequal length, a text shorter
            than one piece.
    """
    texts = _texts(config)
    letters = alphabet(config, texts)
    if config["lines"]:
        parts = [{"x": _rows(part, letters)} for part in texts]
        sides = (parts[0], parts[1]) if len(parts) == 2 else split(parts[0], config)
        drawn = ROWS if len(parts) == 1 else ""
        return build(sides[0], sides[1], len(letters), kind="sequence", drawn=drawn)
    tokens = [encode(part, letters) for part in texts]
    if len(tokens) == 1:
        tokens = np.split(tokens[0], [-held_out_count(config, len(tokens[0]))])
    length = positive(config, "length")
    strides = positive(config, "stride"), length
    most = min(map(len, tokens))
    if most < length:
        raise UserError(f"config.data.length={length}; valid: at most {most} here")
    train, test = (
        windows(part, np.arange(0, len(part) - length + 1, stride), length)
        for part, stride in zip(tokens, strides, strict=True)
    )
    return Dataset(DataSpec((length,), len(letters), kind="sequence"), train, test)


def alphabet(config: Config, texts: list[str] | None = None) -> str:
    """`config.alphabet`, or the sorted characters of the files (without line ends if `lines`).

    Raises:
        UserError: a character twice, or a `config.num_values` that is another number.
    """
    letters = config["alphabet"]
    if not letters:
        found = sorted(set("".join(_texts(config) if texts is None else texts)))
        letters = "".join(c for c in found if c != "\n" or not config["lines"])
    if len(set(letters)) < len(letters):
        raise UserError(f"config.data.alphabet={letters!r}; valid: every character once")
    size = config["num_values"]
    if size not in (0, len(letters)):
        raise UserError(f"config.data.num_values={size}; valid: 0 or the alphabet's {len(letters)}")
    return letters


def decoder(config: Config) -> Callable[[np.ndarray], list[str]]:
    """`decode` with the alphabet of this configuration: x [n, L] -> n strings."""
    return partial(decode, alphabet=alphabet(config))


def shakespeare(config: Config) -> Dataset:
    """Tiny Shakespeare: 1 115 394 characters, 65 distinct, the last tenth held out.

    Args:
        config: `dir` (or GMJAX_DATA_DIR), which holds tiny_shakespeare/input.txt; `length`
            (128), `stride` (1).
    """
    return text({**config, **SHAKESPEARE})


def promoters(config: Config) -> Dataset:
    """Human promoters: 2929 sequences of 300 nucleotides, a fixed random tenth held out.

    Args:
        config: `dir` (or GMJAX_DATA_DIR), which holds promoters/promoters_TATA_human.txt.
    """
    return text({**config, **PROMOTERS})


FIXED = {"test_file": "", "test_fraction": 0.1, "unique": False, "num_values": 0}
SHAKESPEARE = {
    **FIXED,
    "train_file": "tiny_shakespeare/input.txt",
    "alphabet": "",
    "lines": False,
}
PROMOTERS = {
    **FIXED,
    "train_file": "promoters/promoters_TATA_human.txt",
    "alphabet": "ACGT",
    "lines": True,
}


def _texts(config: Config) -> list[str]:
    """The texts of `train_file` and, where there is one, `test_file`."""
    keys = ["train_file", "test_file"] if config["test_file"] else ["train_file"]
    texts = [read_text(locate(config, config[key], key)) for key in keys]
    for key, part in zip(keys, texts, strict=True):
        if not part.strip("\n"):
            raise UserError(f"config.data.{key}={config[key]!r} is empty")
    return texts


def _rows(part: str, letters: str) -> np.ndarray:
    lines = {i: line for i, line in enumerate(part.split("\n"), 1) if line}
    first = next(iter(lines))
    for i, line in lines.items():
        if len(line) != len(lines[first]):
            raise UserError(
                f"config.data.lines: line {i} has {len(line)} characters, "
                f"line {first} has {len(lines[first])}; valid: lines of one length"
            )
    return encode("".join(lines.values()), letters).reshape(len(lines), -1)


def _codes(string: str) -> np.ndarray:
    return np.frombuffer(string.encode("utf-32-le"), "<u4")
