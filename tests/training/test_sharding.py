"""The mesh and its refusals; that many devices compute what one does."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec
from training import toy

from gmjax.training import loop, sharding
from gmjax.types import UserError


def abstract_mesh(data, fsdp):
    """A mesh of the wanted shape out of the one device there is; only its shape is used."""
    grid = np.full((data, fsdp), jax.devices()[0])
    return Mesh(grid, sharding.AXES, axis_types=(AxisType.Auto,) * 2)


def test_mesh_takes_all_devices():
    mesh = sharding.mesh(toy.config())
    assert dict(mesh.shape) == {"data": jax.device_count(), "fsdp": 1}


@pytest.mark.parametrize(
    "changes", [{"mesh.fsdp": 3}, {"mesh.fsdp": 0}, {"mesh.data": 5}, {"mesh.data": 0}]
)
def test_mesh_refuses_what_does_not_fit(changes):
    (key, value), *_ = changes.items()
    with pytest.raises(UserError, match=f"{key}={value} .*; valid: ") as error:
        sharding.mesh(toy.config(**changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [0, -8, 12])
def test_batch_must_divide(size):
    with pytest.raises(UserError, match=f"train.batch_size={size} .*multiple of 8"):
        sharding.check_batch(toy.config(**{"train.batch_size": size}), abstract_mesh(4, 2))


@pytest.mark.parametrize(
    ("shape", "fsdp", "spec"),
    [
        ((8, 64), 4, (None, "fsdp")),
        ((64, 8), 4, ("fsdp",)),
        ((64, 64), 4, ("fsdp",)),
        ((63, 8), 4, (None, "fsdp")),  # the largest axis that divides, not the largest
        ((63, 7), 4, ()),
        ((), 4, ()),
        ((0,), 4, ()),
        ((8, 64), 1, ()),
    ],
)
def test_state_is_split_on_its_largest_axis_that_divides(shape, fsdp, spec):
    leaf = jax.ShapeDtypeStruct(shape, np.float32)
    found = sharding.state_sharding({"w": leaf}, abstract_mesh(2, fsdp))
    assert found["w"].spec == PartitionSpec(*spec)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("127.0.0.1:1", None, None), "num_processes=None"),
        (("127.0.0.1:1", 2, 2), "process_id=2"),
        (("127.0.0.1:1", "two", 0), "num_processes='two'"),
        ((None, 2, 0), "coordinator"),
    ],
)
def test_initialize_refuses_half_a_cluster(arguments, message):
    with pytest.raises(UserError, match=message):
        sharding.initialize(*arguments)


# Sums in another order differ by some units in the last place, 6e-8 of their largest term, and
# Adam turns a relative error of the gradient into one of its step, 3e-3. After 40 steps a
# parameter is off by about 40 x 3e-3 x 1e-6, where gradients cancel to a tenth.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], err_msg=name, **TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1", "4", "8", "resumed"])
def test_eight_devices_equal_one(reference, eight_devices, name):
    same(reference.arrays, eight_devices[name])


@pytest.mark.slow
def test_two_processes_equal_one(reference, two_processes):
    for arrays in two_processes.arrays:
        same(reference.arrays, arrays)


@pytest.mark.slow
def test_two_processes_stop_together(two_processes):
    (first, errors), (second, silence) = two_processes.stopped
    assert first == second == 143
    assert "\nstopped by a signal; step " in errors and not silence


@pytest.mark.slow
def test_two_processes_agree_on_damage(two_processes):
    (_, errors), (_, silence) = two_processes.finished
    assert "is damaged" in errors and "from step 10 of 40" in errors
    assert "damaged" not in silence and "resuming" not in silence


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_opens_in_one(reference, two_processes):
    step, state = loop.load(toy.method(), toy.config(), two_processes.workdir)
    assert step == 40
    same(reference.arrays, toy.flat(state))
