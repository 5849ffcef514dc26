"""Noising processes, by state space.

`PROCESSES[name](schedule, spec, **own)` gives the noising process of a configuration for data of
`spec`; the chains of a purely discrete job are in `processes.chains`, which that job takes as
they are. `LIFTS[name]` says how data enter a state that holds more than they.
"""

import functools
from collections.abc import Callable, Mapping

from gmjax.processes import (
    chains,
    counts,
    ctmc,
    gaussian,
    half_line,
    hyperbolic,
    langevin,
    product,
    rotations,
    sphere,
    torus,
    wright_fisher,
)
from gmjax.processes.schedules import Schedule
from gmjax.types import DataSpec, Lift, Process, UserError, lookup


def _of_shape(make: Callable, kind: str = "") -> Callable:
    """A builder (schedule, shape, **own) as an entry of the table, for data of one kind or any."""

    @functools.wraps(make)  # so that its keys can be read off
    def build(schedule: Schedule, spec: DataSpec, **own):
        if kind:
            _check_kind(make.__name__, kind, spec)
        elif isinstance(spec.shape, Mapping) or (spec.num_values and spec.kind != "counts"):
            _check_kind(make.__name__, "euclidean", spec)
        return make(schedule, spec.shape, **own)

    return build


def _check_kind(name: str, kind: str, spec: DataSpec) -> None:
    """Raises `UserError` where the data are not of the kind that a process is for."""
    if spec.kind != kind:
        fits = [row for row, own in KINDS.items() if own == spec.kind]
        cure = f"valid for these: config.process.name={fits[0]}" if fits else "no process here is"
        raise UserError(
            f"config.process.name: {name} is for data of kind {kind!r}; these are of kind"
            f" {spec.kind!r}; {cure}"
        )


# name in `PROCESSES` -> the kind of data that it is for
KINDS = {
    **dict.fromkeys(("vp", "ve", "sub_vp", "multi_speed", "langevin"), "euclidean"),
    **{name: name for name in ("sphere", "torus", "rotations", "hyperbolic", "half_line")},
    **{name: name for name in ("counts", "table", "poses")},
    "squared_bessel": "half_line",
    "wright_fisher": "simplex",
}


def table(schedule: Schedule, spec: DataSpec, chain: str = "uniform") -> Process:
    """Numbers under variance-preserving noise, classes under a chain, with one clock.

    Args:
        schedule: the clock.
        spec: of kind "table", shape {"numeric": (d,), "classes": (m,)}.
        chain: "uniform", "absorbing" or "birth_death".
    """
    _check_kind("table", "table", spec)
    own = {name: chains.CHAINS[name] for name in ("uniform", "absorbing", "birth_death")}
    form = lookup(own, chain, "config.process.chain")
    classes = ctmc.CTMC(form(spec.num_values), schedule)
    return product.product(
        {
            "numeric": gaussian.vp(schedule, spec.shape["numeric"]),
            "classes": ctmc.process(classes, spec.shape["classes"]),
        }
    )


def damped(schedule: Schedule, spec: DataSpec, mass: float = 0.25, gamma: float = 0.04) -> Process:
    """Critically damped Langevin diffusion: the data are positions, velocities come beside them.

    Args:
        schedule: the clock.
        spec: of flat data.
        mass: M; gamma: variance of the first velocities, in units of M, which must be positive.
    """
    _check_kind("langevin", "euclidean", spec)
    if not gamma > 0:
        raise UserError(f"config.process.gamma={gamma} must be positive")
    return langevin.langevin(schedule, (2, *spec.shape), mass, gamma)


def poses(schedule: Schedule, spec: DataSpec) -> Process:
    """Positions in R^3 and rotations, each noised by itself: SE(3) as a product.

    Args:
        schedule: the clock of both.
        spec: of kind "poses", shape {"position": (3,), "rotation": (3, 3)}.
    """
    _check_kind("poses", "poses", spec)
    return product.product(
        {
            "position": gaussian.vp(schedule, spec.shape["position"]),
            "rotation": rotations.rotations(schedule, spec.shape["rotation"]),
        }
    )


PROCESSES: dict[str, Callable[..., Process]] = {
    "vp": _of_shape(gaussian.vp),
    "ve": _of_shape(gaussian.ve),
    "sub_vp": _of_shape(gaussian.sub_vp),
    "multi_speed": _of_shape(gaussian.multi_speed),
    "langevin": damped,
    "sphere": _of_shape(sphere.sphere, "sphere"),
    "torus": _of_shape(torus.torus, "torus"),
    "rotations": _of_shape(rotations.rotations, "rotations"),
    "hyperbolic": _of_shape(hyperbolic.brownian, "hyperbolic"),
    "half_line": _of_shape(half_line.cox_ingersoll_ross, "half_line"),
    "squared_bessel": _of_shape(half_line.squared_bessel, "half_line"),
    "counts": _of_shape(counts.birth_death, "counts"),
    "wright_fisher": _of_shape(wright_fisher.wright_fisher, "simplex"),
    "table": table,
    "poses": poses,
}

# Of the processes whose state is more than the data; built as the process is.
LIFTS: dict[str, Callable[..., Lift]] = {
    "langevin": _of_shape(langevin.lift),
}
