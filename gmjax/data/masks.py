"""Which entries of an example are given, where samples complete held-out data."""

from collections.abc import Callable

import numpy as np

from gmjax.types import DataSpec, UserError, lookup


def _first(axis: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda place: place[axis] < 0.5


def _border(place: np.ndarray) -> np.ndarray:
    return np.any(np.abs(place[:2] - 0.5) > 0.25, axis=0)


# Of the places [axes, *S] of the entries, each in (0, 1): bool [*S].
MASKS: dict[str, dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    "image": {"top": _first(0), "left": _first(1), "border": _border},
    "sequence": {"start": _first(0)},
    "vector": {"start": _first(0)},
    "euclidean": {"start": _first(0)},
}


def mask(name: str, spec: DataSpec) -> np.ndarray:
    """The entries of one example that are given: bool [*S].

    Args:
        name: of an image top, left (halves) or border (all but the middle quarter); of numbers in
            a row start (the first half).

    Raises:
        UserError: a name that is not for data of this kind.
    """
    key = f"config.sample.observed={name!r}"
    if spec.kind not in MASKS:
        raise UserError(f"{key} is for kinds {', '.join(MASKS)}; the data are {spec.kind!r}")
    place = np.stack(np.meshgrid(*((np.arange(n) + 0.5) / n for n in spec.shape), indexing="ij"))
    return lookup(MASKS[spec.kind], name, "config.sample.observed")(place)
