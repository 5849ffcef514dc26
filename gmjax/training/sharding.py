"""One program over many devices: the mesh, who holds what, and how processes find each other.

The mesh has two axes. The batch is split over both; the state is split over `fsdp` (every
device of a `data` row holds a different slice, gathered when it is used) and copied over
`data`. With `fsdp = 1` every device holds the whole state: plain data parallelism. The
compiler inserts the collectives, so the update is written as if there were one device, and
since random bits depend only on (seed, step) its result is the same up to the order of sums.
"""

import importlib.util
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gmjax.types import PyTree, UserError

AXES = ("data", "fsdp")


def initialize(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes of this run; call it before any other use of JAX.

    What is not given is read from `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and
    `JAX_PROCESS_ID`. With nothing given a TPU pod slice is found by itself, and anywhere else
    the run has one process. `coordinator="auto"` asks JAX to find the cluster (Slurm, Open MPI).

    Args:
        coordinator: `host:port` of process 0, or `auto`.
        num_processes: how many processes there are.
        process_id: which of them this is, from 0.

    Raises:
        UserError: a coordinator without a valid `num_processes` and `process_id`, or the reverse.
    """
    env = os.environ
    _threads_for_pretended_devices()
    coordinator = coordinator or env.get("JAX_COORDINATOR_ADDRESS")
    number = _integer("num_processes", num_processes, env.get("JAX_NUM_PROCESSES"))
    process = _integer("process_id", process_id, env.get("JAX_PROCESS_ID"))
    if coordinator == "auto":
        jax.distributed.initialize()
    elif coordinator:
        if number is None or process is None or not 0 <= process < number:
            raise UserError(
                f"coordinator={coordinator!r} with num_processes={number}, process_id={process};"
                " valid: 0 <= process_id < num_processes"
            )
        # The default collectives of the CPU do not cross processes.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(coordinator, number, process)
    elif number is not None or process is not None:
        raise UserError("num_processes and process_id need a coordinator; valid: host:port, auto")
    elif _may_have_tpu():
        try:
            jax.distributed.initialize()
        except ValueError:  # libtpu is installed, but this is no TPU machine: one process
            return


def _threads_for_pretended_devices() -> None:
    """Gives the CPU backend two threads for each device that `XLA_FLAGS` makes it pretend to have.

    A device waits for the others inside a collective and holds its thread; with fewer threads
    than that (XLA takes one a core) a device that still has work to share out waits for ever.
    """
    pretended = re.search(
        r"xla_force_host_platform_device_count=(\d+)", os.environ.get("XLA_FLAGS", "")
    )
    if pretended and int(pretended[1]) > 1:
        os.environ.setdefault("NPROC", str(2 * int(pretended[1])))


def _integer(name: str, given: int | None, fallback: str | None) -> int | None:
    value = fallback if given is None else given
    try:
        return None if value is None else int(value)
    except ValueError:
        raise UserError(f"{name}={value!r} is not a number; valid: an integer") from None


def _may_have_tpu() -> bool:
    platforms = os.environ.get("JAX_PLATFORMS") or "tpu"
    return "tpu" in platforms.split(",") and importlib.util.find_spec("libtpu") is not None


def mesh(config: Any) -> Mesh:
    """The mesh of all devices, with axes `data` and `fsdp`.

    Devices are ordered by process, so that process p holds the p-th contiguous part of the
    batch whatever the topology.

    Args:
        config: reads `mesh.fsdp` and `mesh.data` (-1: all the devices that are left).

    Raises:
        UserError: the two do not multiply to the number of devices.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    fsdp, data, count = config.mesh.fsdp, config.mesh.data, len(devices)
    if fsdp < 1 or count % fsdp:
        valid = ", ".join(str(n) for n in range(1, count + 1) if count % n == 0)
        raise UserError(
            f"config.mesh.fsdp={fsdp} does not divide the {count} devices; valid: {valid}"
        )
    rest = count // fsdp
    if data not in (-1, rest):
        raise UserError(
            f"config.mesh.data={data} with config.mesh.fsdp={fsdp} does not use"
            f" the {count} devices; valid: -1, {rest}"
        )
    grid = np.asarray(devices).reshape(rest, fsdp)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def state_sharding(shapes: PyTree, mesh: Mesh) -> PyTree:
    """Every array split over `fsdp` along its largest axis that divides; else whole.

    Parameters, their moving averages and their moments have the same shapes and so fall alike.

    Args:
        shapes: a pytree of anything with a `shape`.
        mesh: from `mesh`.

    Returns:
        The same pytree of `NamedSharding`.
    """
    size = mesh.shape["fsdp"]

    def sharding(leaf: Any) -> NamedSharding:
        axes = [axis for axis, n in enumerate(leaf.shape) if n and n % size == 0]
        if size == 1 or not axes:
            return replicated(mesh)
        largest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, "fsdp"))

    return jax.tree.map(sharding, shapes)


def check_batch(config: Any, mesh: Mesh) -> None:
    """Raises `UserError` unless `train.batch_size` divides over the mesh."""
    size, devices = config.train.batch_size, mesh.size
    if size < 1 or size % devices:
        raise UserError(
            f"config.train.batch_size={size} does not divide over the mesh of {devices} devices"
            f" (data={mesh.shape['data']}, fsdp={mesh.shape['fsdp']});"
            f" valid: a positive multiple of {devices}"
        )


def global_batch(local: Mapping[str, Any], sharding: NamedSharding) -> dict[str, jax.Array]:
    """The batch of all processes from this process's contiguous part of it.

    Args:
        local: `{name: [n, ...]}`, or trees of such: rows p n ... (p + 1) n in process p.
        sharding: from `batch_sharding`.

    Returns:
        `{name: [process_count * n, ...]}` on the devices.
    """
    count = jax.process_count()

    def place(value: Any) -> jax.Array:
        rows = np.asarray(value)
        shape = (count * rows.shape[0], *rows.shape[1:])
        return jax.make_array_from_process_local_data(sharding, rows, shape)

    return {name: jax.tree.map(place, value) for name, value in local.items()}
