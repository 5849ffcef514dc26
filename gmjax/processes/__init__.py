"""Noising processes, by state space.

`PROCESSES[name](schedule, spec, **own)` gives the noising process of a configuration for data of
`spec`; the chains of a purely discrete job are in `processes.chains`, which that job takes as
they are.
"""

from collections.abc import Callable

from gmjax.processes import gaussian, rotations, torus
from gmjax.processes.schedules import Schedule
from gmjax.types import DataSpec, Process


def _of_shape(make: Callable[..., Process]) -> Callable[..., Process]:
    """A builder (schedule, shape, **own) as an entry of the table."""

    def build(schedule: Schedule, spec: DataSpec, **own) -> Process:
        return make(schedule, spec.shape, **own)

    return build


PROCESSES: dict[str, Callable[..., Process]] = {
    "vp": _of_shape(gaussian.vp),
    "ve": _of_shape(gaussian.ve),
    "sub_vp": _of_shape(gaussian.sub_vp),
    "multi_speed": _of_shape(gaussian.multi_speed),
    "torus": _of_shape(torus.torus),
    "rotations": _of_shape(rotations.rotations),
}
