"""Four-part chorales by J. S. Bach as sequences of pitches, the first part given.

A chorale is a table of pitches, one row a sixteenth note, one column a voice (soprano, alto,
tenor, bass). Read row by row it is one sequence in which token 4 t + v is what voice v sings
at step t; 256 tokens are 64 steps, four bars of 4/4. A token is 0 for silence or 1 .. 46 for
the MIDI pitches 36 .. 81, the range of the whole collection, so S = 47. The first
eighth, 32 tokens or two beats, is marked as observed.
"""

import numpy as np

from gmjax.data.checks import positive
from gmjax.data.files import Config, locate, read_npz
from gmjax.data.sources import held_out_name, windows
from gmjax.types import Dataset, DataSpec, Source, UserError

VOICES = "SATB"
LOWEST, HIGHEST = 36, 81
NUM_VALUES = HIGHEST - LOWEST + 2
BEAT = 4  # steps
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def chorales(config: Config) -> Dataset:
    """Windows of the chorales; `take` returns "x" [n, L] and "observed" [n, L] bool.

    A training window begins at every beat, held-out windows follow one another; none
    reaches over the end of a chorale.

    Args:
        config: `dir` (or GMJAX_DATA_DIR), which holds jsb_chorales/jsb16th_satb.npz; `length`
            (256 tokens, a multiple of 4); `observed` (tokens given; 0: an eighth); `held_out`
            ("test").

    Raises:
        UserError: a length or a number of observed tokens that does not fit.
    """
    length = positive(config, "length")
    if length % len(VOICES):
        raise UserError(f"config.data.length={length}; valid: a multiple of 4, the voices")
    observed = config["observed"] or length // 8
    if not 0 < observed < length:
        raise UserError(f"config.data.observed={observed}; valid: 1..{length - 1}")
    steps = length // len(VOICES)
    held_out = held_out_name(config)
    names = [f"{side}_{part}" for side in ("train", held_out) for part in ("notes", "lengths")]
    data = read_npz(locate(config, "jsb_chorales/jsb16th_satb.npz"), *names)

    def source(side: str, stride: int) -> Source:
        lengths = data[f"{side}_lengths"]
        firsts = np.cumsum(lengths) - lengths
        within = [np.arange(0, n - steps + 1, stride) for n in lengths]
        starts = np.concatenate([f + w for f, w in zip(firsts, within, strict=True)])
        if not len(starts):
            raise UserError(f"config.data.length={length}; valid: at most {4 * max(lengths)}")
        tokens = encode(data[f"{side}_notes"])
        return windows(tokens, starts * len(VOICES), length, given=observed)

    spec = DataSpec((length,), NUM_VALUES, kind="sequence")
    return Dataset(spec, source("train", BEAT), source(held_out, steps))


def encode(pitches: np.ndarray) -> np.ndarray:
    """Tokens of a table of pitches.

    Args:
        pitches: [T, 4] MIDI pitches 36..81, or -1 for silence.

    Returns:
        [4 T] uint8, time-major.

    Raises:
        UserError: a pitch out of range.
    """
    silent = pitches == -1
    strange = pitches[~silent & ((pitches < LOWEST) | (pitches > HIGHEST))]
    if strange.size:
        raise UserError(f"chorales: pitch {strange[0]}; valid: -1 or {LOWEST}..{HIGHEST}")
    return np.where(silent, 0, pitches.astype(np.int32) - LOWEST + 1).astype(np.uint8).ravel()


def decode(x: np.ndarray) -> list[str]:
    """Scores: four lines, one a voice, with a pitch's name where it begins, "-" while it holds.

    Args:
        x: [n, 4 T] tokens.

    Returns:
        n strings such as "S C5 - D5 ...\\nA ...\\nT ...\\nB ..."; "." is silence.
    """
    return ["\n".join(map(_voice, VOICES, row.reshape(-1, 4).T)) for row in np.asarray(x)]


def _voice(name: str, tokens: np.ndarray) -> str:
    before = [None, *tokens[:-1]]
    words = [_word(int(token), old) for token, old in zip(tokens, before, strict=True)]
    return " ".join([name, *words])


def _word(token: int, old: int | None) -> str:
    if token == 0:
        return "."
    if token == old:
        return "-"
    pitch = token + LOWEST - 1
    return f"{NAMES[pitch % 12]}{pitch // 12 - 1}"
