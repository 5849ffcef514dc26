"""Completed samples: what is given is kept, and the rest follows it as an exact network says."""

import importlib
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from gmjax import data, methods, reporting
from gmjax.methods import completion, flow_worlds
from gmjax.paths import gaussian as paths
from gmjax.processes.schedules import linear
from gmjax.samplers import driver, grids, ode
from gmjax.samplers import flow_matching as steppers
from gmjax.samplers import gaussian as solvers
from gmjax.targets import laws, mixtures
from gmjax.types import DataSpec, UserError

N, GIVEN, SHARE = 4000, 1.2, 0.8
PATH = paths.variance_preserving(linear(0.1, 20.0))
OBSERVED = jnp.broadcast_to(jnp.asarray([True, False]), (N, 2))
VALUES = jnp.broadcast_to(jnp.asarray([GIVEN, 99.0]), (N, 2))  # the second says nothing


def law(correlation):
    return mixtures.gaussian(np.zeros(2), [[1.0, correlation], [correlation, 1.0]])


@cache
def completed(way, correlation):
    config = ConfigDict({
        "sample": {"infill": way, "name": "ancestral"},
        "loss": {"head": "eps", "data_std": 1.0, "variance": "large"},
    })  # fmt: skip
    network = laws.predict(law(correlation), PATH, "eps")
    cond = {"observed": OBSERVED, "values": VALUES}
    predict, project, cond = completion.gaussian(config, PATH, lambda x: x, network, cond)
    read = solvers.reader(PATH, "eps")
    grid = grids.path_grid("log_snr", 400, PATH, 1e-3)

    def run(key):
        x = jax.random.normal(key, (N, 2))
        out = driver.reverse(
            solvers.SOLVERS["ancestral"](PATH, read), predict, key, x, grid, cond,
            finish=solvers.denoise(read), project=project,
        )  # fmt: skip
        return out.x

    return np.asarray(jax.jit(run)(jax.random.key(0)))


@pytest.mark.slow
@pytest.mark.parametrize("way", completion.WAYS[1:])
def test_what_is_given_is_kept_and_leaves_an_independent_entry_alone(way):
    x = completed(way, 0.0)
    np.testing.assert_array_equal(x[:, 0], np.float32(GIVEN))
    # The end is a posterior mean at t = 1e-3: the variance is low by what that leaves, .0003.
    assert abs(x[:, 1].mean()) < 4.5 / np.sqrt(N)
    assert abs(x[:, 1].var() - 1) < 4.5 * np.sqrt(2 / N) + 0.01


@pytest.mark.parametrize("way", completion.WAYS[1:])
def test_a_correlated_entry_follows(way):
    """E = .8 x 1.2 = .96 and variance .36: guidance gives nearly these, replacement half."""
    x, near = completed(way, SHARE)[:, 1], 0.06 if way == "guidance" else 0.5
    assert abs(x.mean() / (SHARE * GIVEN) - 1) < near
    assert abs(x.var() - (1 - SHARE**2)) < near * SHARE**2


def test_an_adaptive_run_gives_each_example_its_own():
    """x1 given as +-1.2 in turn: x2 is drawn towards +-.96 with variance .36, before any clamp."""
    config = ConfigDict({
        "sample": {"infill": "", "name": "adaptive"},
        "loss": {"head": "x0", "data_std": 1.0, "variance": "large"},
    })  # fmt: skip
    network, n = laws.predict(law(SHARE), PATH, "x0"), 512
    sign = jnp.where(jnp.arange(n) % 2, 1.0, -1.0)
    cond = {"observed": OBSERVED[:n], "values": sign[:, None] * VALUES[:n]}
    predict, _, cond = completion.gaussian(config, PATH, lambda x: x, network, cond)
    run = jax.jit(
        lambda x: ode.adaptive(PATH, solvers.reader(PATH, "x0"), predict, x, 1e-3, 1.0, cond)
    )
    x = sign[:, None] * run(jax.random.normal(jax.random.key(0), (n, 2))).x
    left = float(PATH.sigma(jnp.asarray(1e-3)))  # noise where the run ends
    np.testing.assert_allclose(x[:, 0], GIVEN, atol=6 * left)
    assert abs(x[:, 1].mean() - SHARE * GIVEN) < 4.5 * np.sqrt((1 - SHARE**2) / n) + 0.06


@cache
def flow(way, correlation):
    """The flow of the linear path, from noise at t = 1."""
    network = laws.predict(law(correlation), paths.linear(), "velocity")
    config = ConfigDict({
        "path": {"name": "linear", "scale": None}, "coupling": {"name": "independent"},
        "loss": {
            "head": "velocity", "data_std": 1.0, "t_min": 0.0, "t_max": 1.0, "objective": "flow"
        },
        "data": {"name": "toy"}, "sample": {"infill": way},
    })  # fmt: skip
    world = flow_worlds.build(config, DataSpec((2,), 0, "euclidean"))
    cond = {"observed": OBSERVED, "values": VALUES}
    times = jnp.linspace(1.0, 0.0, 101)

    def run(key):
        x1 = jax.random.normal(key, (N, 2))
        predict, project, told = completion.flow(config, world, network, cond, x1)
        stepper = steppers.midpoint(world.path)
        return driver.reverse(stepper, predict, key, x1, times, told, project=project).x

    return np.asarray(jax.jit(run)(jax.random.key(1)))


@pytest.mark.parametrize("way", completion.WAYS[1:])
def test_a_flow_keeps_what_is_given_and_leaves_an_independent_entry_alone(way):
    x = flow(way, 0.0)
    np.testing.assert_array_equal(x[:, 0], np.float32(GIVEN))
    assert abs(x[:, 1].mean()) < 4.5 / np.sqrt(N)
    assert abs(x[:, 1].var() - 1) < 4.5 * np.sqrt(2 / N) + 0.01


def test_a_guided_flow_follows_where_replacement_lags():
    """The mean is .96; a flow adds no noise that could bring the rest round."""
    lag, near = (flow(way, SHARE)[:, 1].mean() for way in ("replacement", "guidance"))
    assert 0.2 < lag < near < SHARE * GIVEN + 0.3


def job(file, *, preset="smoke", **keys):
    config = importlib.import_module(f"configs.{file}").get_config(preset)
    with config.unlocked():
        for key, value in keys.items():
            *sections, name = key.split("__")
            place = config[sections[0]] if sections else config
            place[name] = value
    dataset = data.load(config.data)
    return methods.build(config, dataset.spec), dataset, config


@pytest.mark.slow
@pytest.mark.parametrize("file", ["gaussian_diffusion", "flow_matching", "discrete_diffusion"])
def test_held_out_images_are_completed(file):
    """Traced as before a training; the given half goes through the run to the samples."""
    method, dataset, config = job(file, sample__observed="left", sample__num_samples=3)
    reporting.rehearse(method, dataset, config)
    cond = reporting.condition(dataset, config, 3)
    assert cond["observed"].shape == cond["values"].shape == (3, 8, 8, 1)
    state = jax.jit(method.init)(jax.random.key(0))
    x = jax.jit(lambda s, c: method.sample(s, jax.random.key(1), 3, c).x)(state, cond)
    np.testing.assert_array_equal(np.asarray(x)[:, :, :4], cond["values"][:, :, :4])
    assert (np.asarray(x)[:, :, 4:] != cond["values"][:, :, 4:]).any()


@pytest.mark.parametrize("file, keys", [
    ("gaussian_diffusion", {}),
    ("gaussian_diffusion", {"sample__name": "adaptive"}),
    ("gaussian_diffusion", {"sample__infill": "replacement"}),
    ("flow_matching", {}),
    ("flow_matching", {"sample__infill": "replacement"}),
])  # fmt: skip
def test_labels_guide_what_is_completed(file, keys):
    given = {"sample__observed": "top", "sample__guidance": 2.0, "sample__num_samples": 3}
    method, dataset, config = job(file, labels=True, **given | keys)
    reporting.rehearse(method, dataset, config)


@pytest.mark.slow
def test_an_adaptive_run_ends_with_what_is_given():
    method, dataset, config = job(
        "gaussian_diffusion", sample__observed="top", sample__name="adaptive", sample__rtol=1e-2
    )
    cond = reporting.condition(dataset, config, 2)
    state = jax.jit(method.init)(jax.random.key(0))
    x = jax.jit(lambda s, c: method.sample(s, jax.random.key(1), 2, c).x)(state, cond)
    np.testing.assert_array_equal(np.asarray(x)[:, :4], cond["values"][:, :4])


@pytest.mark.parametrize("keys, text", [
    ({"sample__infill": "ancestral"}, "config.sample.infill='ancestral'; valid: '', replacement"),
    ({"sample__name": "adaptive", "sample__infill": "replacement"}, "is made after a step"),
    ({"sample__observed": "bottom"}, "config.sample.observed='bottom' is unknown; valid: border"),
    ({"file": "flow_matching", "preset": "discrete", "sample__infill": "guidance"}, "is for paths"),
    ({"preset": "improved_ddpm", "sample__infill": "guidance"}, "not for a learned variance"),
    (
        {"file": "discrete_diffusion", "sample__name": "exact", "sample__clean": False},
        "config.sample.clean=False: config.sample.name='exact' has no steps",
    ),
])  # fmt: skip
def test_what_does_not_fit_is_said_before_the_training(keys, text):
    with pytest.raises(UserError) as said:
        reporting.rehearse(*job(**{"file": "gaussian_diffusion", "sample__observed": "top"} | keys))
    assert text in str(said.value)


def test_entries_of_a_rotation_are_not_given_alone():
    method, dataset, config = job("flow_matching", preset="rotations")
    given = {"observed": np.ones((2, 3, 3), bool), "values": dataset.test.take(np.arange(2))["x"]}
    state = jax.eval_shape(method.init, jax.random.key(0))
    with pytest.raises(UserError, match="depend on each other"):
        jax.eval_shape(lambda s, c: method.sample(s, jax.random.key(0), 2, c), state, given)
