"""Training goes on to the bit after anything that stops it, and stops where it must."""

import contextlib
import json
import os
import shutil
import signal
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training import runs, toy

from gmjax.training import checkpoints, loop, preemption, reports
from gmjax.types import UserError

# Orbax's threads are heard of again when what they leave is collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def train(workdir, method=None, batch=toy.batch, evaluate=toy.evaluate, **changes):
    return loop.train(method or toy.method(), batch, toy.config(**changes), workdir, evaluate)


def equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


def rows(workdir):
    """The rows without what depends on the clock."""
    clock = ("time", "steps_per_s")
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if k not in clock} for x in lines]


def steps(workdir):
    return checkpoints.steps(workdir / "checkpoints")


def test_the_loss_falls_and_every_step_counts(reference):
    found = rows(reference.workdir)
    assert [row["step"] for row in found] == [*range(5, 41, 5), 40]
    assert found[-2]["loss"] < found[0]["loss"] / 4
    assert found[-1] == {"step": 40, **{f"evaluate/{k}": v for k, v in _scores(reference).items()}}
    assert reference.arrays[".step"] == 40


def _scores(reference):
    bias = reference.arrays[".params['bias']"]
    return {"loss": 20.0, "norm": pytest.approx(float((bias**2).sum()), rel=1e-5)}


def test_rows_are_means_over_their_steps(reference, tmp_path):
    train(tmp_path, **{"train.log_every": 1})
    losses = [row["loss"] for row in rows(tmp_path) if "loss" in row]
    means = [row["loss"] for row in rows(reference.workdir) if "loss" in row]
    assert means == [sum(losses[i : i + 5], 0.0) / 5 for i in range(0, 40, 5)]


def test_every_step_has_a_batch_and_a_key_of_its_own(tmp_path):
    asked, inner = [], toy.method()

    def batch(step, index, count):
        asked.append((step, index, count))
        return toy.batch(step, index, count)

    def update(state, key, batch):
        state, metrics = inner.update(state, key, batch)
        return state, {**metrics, "draw": jax.random.uniform(key), "mean": jnp.mean(batch["x"])}

    train(tmp_path, inner._replace(update=update), batch, evaluate=None, **{"train.log_every": 1})
    assert asked == [(step, 0, 1) for step in range(40)]
    assert len({row["draw"] for row in rows(tmp_path)}) == 40
    means = [toy.batch(step, 0, 1)["x"].mean() for step in range(40)]
    np.testing.assert_allclose([row["mean"] for row in rows(tmp_path)], means, atol=1e-6)


def test_the_state_is_donated():
    program = loop.compile(toy.method(), toy.config())
    state, stop = program.init(), np.full(program.mesh.size, 3, np.int32)
    after, _, stopped = program.update(state, np.uint32(0), toy.batch(0, 0, 1), stop)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))
    assert stopped == 3


def test_the_update_is_traced_once(tmp_path):
    traces = []
    train(tmp_path, toy.method(traces=traces))
    assert len(traces) == 1


def test_a_finished_run_is_done(reference):
    state = train(reference.workdir, batch=None)
    equal(toy.flat(state), reference.arrays)


def test_another_seed_is_another_run(reference, tmp_path):
    state = toy.flat(train(tmp_path, seed=1))
    assert not np.array_equal(state[".params['bias']"], reference.arrays[".params['bias']"])


@pytest.mark.parametrize("step", [12, 20])
def test_a_run_resumed_from_any_checkpoint_is_the_same_to_the_bit(reference, tmp_path, step):
    """12 is amid a row and a checkpoint interval: the means must not begin anew."""
    with pytest.raises(preemption.Preempted):
        train(tmp_path, batch=partial(interrupted, at=step))
    done = steps(tmp_path)[-1]
    state = train(tmp_path)
    equal(toy.flat(state), reference.arrays)
    assert rows(tmp_path) == rows(reference.workdir)
    assert done >= 10


def interrupted(step, index, count, at, number=signal.SIGTERM):
    if step == at:
        os.kill(os.getpid(), number)
        time.sleep(0.2)
    return toy.batch(step, index, count)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_step_and_exits(tmp_path, number, code, capsys):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stop:
        train(tmp_path, batch=partial(interrupted, at=13, number=number))
    assert stop.value.code == code
    (step,) = (s for s in steps(tmp_path) if s != 10)
    assert 10 < step < 15
    assert f"step {step} is saved" in capsys.readouterr().err
    assert signal.getsignal(number) is before
    assert rows(tmp_path)[-1]["step"] == 10


@pytest.mark.slow
def test_a_run_killed_twice_ends_with_the_same_bits(reference, tmp_path):
    """The delays fall at some moment of a save or between; 40 steps take 2 s here."""
    for step, delay in ((10, 0.03), (20, 0.31)):
        process = runs.start("--run", tmp_path, "{}", "--pause", 0.05)
        runs.reaches(process, tmp_path, step)
        time.sleep(delay)
        process.kill()
        assert runs.finish(process)[0] == -signal.SIGKILL
    code, errors = runs.finish(runs.start("--run", tmp_path, "{}"))
    assert code == 0 and f"{tmp_path}: resuming from step " in errors
    equal(runs.arrays(tmp_path), reference.arrays)
    assert rows(tmp_path) == rows(reference.workdir)


def test_rows_of_a_lost_end_are_dropped(reference, tmp_path):
    """As if killed after rows were written and before the checkpoint was."""
    shutil.copytree(reference.workdir, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "40")
    equal(toy.flat(train(tmp_path)), reference.arrays)
    assert rows(tmp_path) == rows(reference.workdir)


def test_without_a_checkpoint_it_starts_anew(reference, tmp_path):
    shutil.copytree(reference.workdir, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints")
    equal(toy.flat(train(tmp_path)), reference.arrays)
    assert rows(tmp_path) == rows(reference.workdir)


def test_nan_stops_and_leaves_the_last_good_checkpoint(tmp_path):
    with pytest.raises(loop.TrainingError) as error:
        train(tmp_path, toy.method(poison=25))
    message = str(error.value)
    assert "loss=nan at step 25" in message and "last good checkpoint is step 20" in message
    assert str(tmp_path) in message and "\n" not in message
    assert steps(tmp_path) == [10, 20]
    assert rows(tmp_path)[-1]["step"] == 20


def test_nan_before_any_checkpoint(tmp_path):
    with pytest.raises(loop.TrainingError, match="at step 2: .*there is no checkpoint"):
        train(tmp_path, toy.method(poison=2))


def altered(change):
    """The toy method with another last word on its update: (state, metrics) -> the same."""
    inner = toy.method()

    def update(state, key, batch):
        return change(*inner.update(state, key, batch))

    return inner._replace(update=update)


def test_parameters_that_are_not_finite_stop_although_the_loss_is(tmp_path):
    def spoil(state, metrics):
        bias = jnp.where(state.step == 17, jnp.inf, state.params["bias"])
        metrics["loss"] = jnp.nan_to_num(metrics["loss"])
        return state._replace(params={**state.params, "bias": bias}), metrics

    with pytest.raises(loop.TrainingError, match="params/bias.* step 20; .* step 10"):
        train(tmp_path, altered(spoil))
    assert steps(tmp_path) == [10]


def test_a_diverging_loss_stops_and_its_checkpoints_are_not_kept(tmp_path):
    def jump(state, metrics):
        return state, {"loss": metrics["loss"] + 1e3 * (state.step > 35)}

    changes = {"train.steps": 90, "train.patience": 40, "train.checkpoint_every": 5}
    with pytest.raises(loop.TrainingError, match=r"at step 75 is far above .* step 40 ") as error:
        train(tmp_path, altered(jump), evaluate=None, **changes)
    assert "\n" not in str(error.value)
    # The first high loss is that of step 36; from the tenth in a row on checkpoints wait.
    assert steps(tmp_path) == [30, 35, 40]


def test_the_best_checkpoint_is_kept_and_loaded(tmp_path):
    train(tmp_path, **{"train.evaluate_every": 10, "train.keep": 1})
    assert steps(tmp_path) == [20, 40]
    assert [row["step"] for row in rows(tmp_path) if "evaluate/loss" in row] == [10, 20, 30, 40]
    assert loop.load(toy.method(), toy.config(), tmp_path, best=True)[0] == 20
    step, state = loop.load(toy.method(), toy.config(), tmp_path)
    assert step == 40 and int(state.step) == 40


def test_load_refuses(reference, tmp_path):
    with pytest.raises(UserError, match="has no checkpoint"):
        loop.load(toy.method(), toy.config(), tmp_path)
    with pytest.raises(UserError, match="another model: .*params/bias .*128.* there, .*32.* here"):
        loop.load(toy.method(width=32), toy.config(), reference.workdir)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.steps", 0),
        ("train.batch_size", -1),
        ("train.log_every", 0),
        ("train.checkpoint_every", -5),
        ("train.evaluate_every", -1),
        ("train.keep", 0),
        ("train.patience", -1),
    ],
)
def test_numbers_that_make_no_sense(tmp_path, key, value):
    with pytest.raises(UserError, match=f"{key}={value} .*valid: at least"):
        train(tmp_path, **{key: value})
    assert not list(tmp_path.iterdir())


def test_a_broken_source_is_heard(tmp_path):
    def batch(step, index, count):
        if step == 7:
            raise OSError("the disk is gone")
        return toy.batch(step, index, count)

    with pytest.raises(OSError, match="the disk is gone"):
        train(tmp_path, batch=batch)


def test_a_checkpoint_that_cannot_be_written(tmp_path):
    def batch(step, index, count):
        if step == 15:
            while "10" not in runs.listing(tmp_path / "checkpoints"):
                time.sleep(0.01)
            (tmp_path / "checkpoints").rename(tmp_path / "gone")
            (tmp_path / "checkpoints").write_text("no room here")
        return toy.batch(step, index, count)

    with pytest.raises(loop.TrainingError, match="cannot be written .*there is no checkpoint") as e:
        train(tmp_path, batch=batch)
    assert "\n" not in str(e.value)


def test_the_host_does_not_wait_for_a_step(tmp_path, monkeypatch):
    """When the metrics of a step are read, LAG more steps have been dispatched."""
    compiled, dispatched, read = loop.compile, [], []

    def counting(method, config):
        program = compiled(method, config)

        def update(state, step, *inputs):
            dispatched.append(step)
            return program.update(state, step, *inputs)

        update.lower = program.update.lower
        return program._replace(update=update)

    @contextlib.contextmanager
    def report(*_):
        yield reports.Report(
            say=print,
            trained=lambda step, values: None,
            evaluated=lambda step, values: None,
            progress=lambda step, loss: read.append((step, len(dispatched))),
        )

    monkeypatch.setattr(loop, "compile", counting)
    monkeypatch.setattr(reports, "report", report)
    train(tmp_path, evaluate=None, **{"train.checkpoint_every": 20})
    ahead = {step: count - step for step, count in read}
    assert list(ahead) == list(range(1, 41))
    free = [ahead[step] for step in range(1, 41) if (step - 1) % 20 < 15]
    assert set(free) == {loop.LAG}
    assert ahead[20] == ahead[40] == 0


def test_the_cost_of_an_update_is_said_once(tmp_path, capsys):
    train(tmp_path)
    said = [line for line in "".join(capsys.readouterr()).splitlines() if "FLOP" in line]
    assert len(said) == 1 and "parameters; an update of" in said[0]
