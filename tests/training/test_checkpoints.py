"""Checkpoints come back to the bit, or are known not to; damage and strangers are told apart."""

import json
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training import toy

from gmjax.training import checkpoints
from gmjax.training.monitors import TrainingError
from gmjax.types import UserError

# Orbax's threads are heard of again when what they leave is collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class State(NamedTuple):
    params: Any
    opt_state: Any


def make_state(step, width=6):
    key = jax.random.key(step)
    return State(
        {
            "w": jax.random.normal(key, (4, width)),
            "half": jax.random.normal(key, (5,)).astype(jnp.bfloat16),
            "tiny": jnp.asarray(1e-40 * step),  # a subnormal number
        },
        {
            "count": jnp.asarray(step),
            "mask": jnp.array([True, False]),
            "best": jnp.asarray(jnp.inf),
            "key": jax.random.bits(key, (2,)),
            "small": jnp.arange(3, dtype=jnp.int8),
        },
    )


def target(state):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)


def fill(folder, values, keep=3):
    """Checkpoints at 1, 2, ... with these evaluations."""
    with checkpoints.opened(folder, keep) as store:
        for step, value in enumerate(values, 1):
            store.save(step, make_state(step), {"note": step / 3}, value)
        store.wait()


def equal(a, b):
    a, b = toy.flat(a), toy.flat(b)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert a[name].tobytes() == b[name].tobytes(), name


def restore(folder, like=None, **options):
    said = []
    found = checkpoints.restore(folder, target(like or make_state(0)), said.append, **options)
    return found, said


def test_nothing_there(tmp_path):
    assert restore(tmp_path / "none") == (None, [])


def test_a_checkpoint_comes_back_to_the_bit(tmp_path):
    fill(tmp_path, [None])
    found, said = restore(tmp_path)
    equal(found.state, make_state(1))
    assert (found.step, found.meta["note"], found.damaged, said) == (1, 1 / 3, (), [])


def test_a_save_is_not_disturbed_by_donating_the_state(tmp_path):
    state = State({"w": jnp.zeros((512, 512))}, {})
    update = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    with checkpoints.opened(tmp_path, keep=9) as store:
        for step in range(1, 4):
            state = update(state)
            store.save(step, state, {})
            for _ in range(10):
                state = update(update(state))
    for step in (3, 2, 1):
        found, _ = restore(tmp_path, state)
        assert found.step == step
        np.testing.assert_array_equal(found.state.params["w"], 21.0 * (step - 1) + 1)
        shutil.rmtree(tmp_path / str(step))


def test_the_newest_and_the_best_are_kept(tmp_path):
    fill(tmp_path, [3.0, 1.0, 2.0, None, 4.0], keep=2)
    assert checkpoints.steps(tmp_path) == [2, 4, 5]
    found, _ = restore(tmp_path, best_first=True)
    assert found.step == 2
    # The evaluations are remembered by those who open the directory later.
    with checkpoints.opened(tmp_path, keep=2) as store:
        store.save(6, make_state(6), {}, 1.5)
        store.save(7, make_state(7), {}, 0.5)
        store.wait()
    assert checkpoints.steps(tmp_path) == [6, 7]


def test_saving_a_step_twice_is_harmless(tmp_path):
    with checkpoints.opened(tmp_path, keep=2) as store:
        store.save(1, make_state(1), {})
        store.save(1, make_state(2), {})
        store.wait()
    equal(restore(tmp_path)[0].state, make_state(1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_never_written(tmp_path, bad):
    state = make_state(2)
    state.params["w"] = state.params["w"].at[3, 1].set(bad)
    with checkpoints.opened(tmp_path, keep=2) as store:
        store.save(1, make_state(1), {})
        with pytest.raises(TrainingError, match="params/w not finite at step 2"):
            store.save(2, state, {})
        store.wait()
    assert checkpoints.steps(tmp_path) == [1]


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def truncate(paths):
    for path in paths:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(paths):
    for path in paths:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def exchange_states(folder):
    """Whole and readable, but not what was saved."""
    shutil.rmtree(folder / "state")
    shutil.copytree(folder.with_name("1") / "state", folder / "state")


DAMAGE = {
    "everything cut": lambda folder: truncate(files(folder)),
    "everything empty": lambda folder: [path.write_bytes(b"") for path in files(folder)],
    "everything gone": lambda folder: [path.unlink() for path in files(folder)],
    "arrays cut": lambda folder: truncate(folder.glob("state/**/d/*")),
    "arrays gone": lambda folder: [path.unlink() for path in folder.glob("state/**/d/*")],
    "a bit of the arrays": lambda folder: flip(folder.glob("state/**/d/*")),
    "other arrays": exchange_states,
    "state gone": lambda folder: shutil.rmtree(folder / "state"),
    "meta gone": lambda folder: shutil.rmtree(folder / "meta"),
    "meta cut": lambda folder: truncate(files(folder / "meta")),
    "meta of another format": lambda folder: (folder / "meta/metadata").write_text('{"a": 1}'),
}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    fill(folder, [None, None])
    return folder


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, two, name):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two, folder)
    DAMAGE[name](folder / "2")
    found, said = restore(folder)
    equal(found.state, make_state(1))
    assert found.damaged == (2,)
    assert len(said) == 1 and "checkpoint 2 " in said[0] and "damaged" in said[0]
    # Training goes on: the step is free again, and what was there is put aside.
    with checkpoints.opened(folder, 3, found.damaged) as store:
        store.save(2, make_state(2), {})
        store.wait()
    assert (folder / "damaged-2").exists()
    found, said = restore(folder)
    assert found.step == 2 and not said


def test_all_damaged(tmp_path, two):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two, folder)
    for step in ("1", "2"):
        DAMAGE["arrays gone"](folder / step)
    with pytest.raises(UserError, match=r"all its checkpoints are damaged \(2, 1\); valid: ") as e:
        restore(folder)
    assert "\n" not in str(e.value)


def test_leftovers_of_a_killed_save_are_no_checkpoints(tmp_path, two):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two, folder)
    shutil.copytree(folder / "2", folder / "7.orbax-checkpoint-tmp")
    assert restore(folder)[0].step == 2
    with checkpoints.opened(folder, 3) as store:
        store.save(3, make_state(3), {})
        store.wait()
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (make_state(0, width=7), r"params/w \(.*\[4, 6\].* there, .*\[4, 7\].* here\)"),
        (
            State({"v": jnp.zeros(3)}, {}),
            r"model: params/half \(bfloat16\[5\] there, nothing here\).*and 5 more",
        ),
    ],
)
def test_a_checkpoint_of_another_model(two, like, message):
    with pytest.raises(UserError, match=message) as error:
        restore(two, like)
    assert "--workdir" in str(error.value) and "\n" not in str(error.value)


def test_checksums_see_every_change():
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    variants = [base, base[::-1], base[:, ::-1], np.roll(base, 1, 0), np.roll(base, 1, 1)]
    variants += [base * (np.arange(24).reshape(4, 6) != i) for i in range(1, 24)]
    variants += [-base, base.T.reshape(4, 6)]
    sums = [checkpoints.audit({"w": jnp.asarray(x)})[0][0] for x in variants]
    assert len(set(sums)) == len(sums)


def test_meta_is_json_that_a_person_can_read(two):
    meta = json.loads((two / "2" / "meta" / "metadata").read_text())
    assert meta["leaves"]["params/half"] == "bfloat16[5]"


@pytest.mark.parametrize("name", ["lr=[1e-3,2]", "a*b?", "{x}", "two words é", "[", "deep/[1]/x"])
def test_a_path_is_taken_literally(tmp_path, name):
    fill(tmp_path / name / "checkpoints", [2.0, 1.0])
    found, said = restore(tmp_path / name / "checkpoints")
    equal(found.state, make_state(2))
    assert said == [] and checkpoints.steps(tmp_path / name / "checkpoints") == [1, 2]


def test_a_bit_of_the_meta_that_flips_sends_to_the_checkpoint_before(tmp_path):
    fill(tmp_path, [None, None])
    file = tmp_path / "2" / "meta" / "metadata"
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice(len(whole), 40, replace=False):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(flipped)
        found, said = restore(tmp_path)
        assert found.step == 1 and len(said) == 1, (place, whole[place : place + 9])
    file.write_bytes(whole)
    assert restore(tmp_path)[0].step == 2


def test_a_checkpoint_under_another_number_is_not_believed(tmp_path):
    fill(tmp_path, [None, None])
    (tmp_path / "2").rename(tmp_path / "7")
    found, said = restore(tmp_path)
    assert found.step == 1 and "checkpoint 7" in said[0]
