"""What the report asks of the data before anything is trained."""

import importlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax import data as datasets
from gmjax import methods, reporting
from gmjax.data import sources
from gmjax.spaces.sphere import sphere
from gmjax.training import loop
from gmjax.types import UserError


def test_every_point_is_held_against_its_space():
    x = np.tile(np.eye(3), (10_000, 1))
    x[17_501] *= 1.5
    data = sources.build({"x": x}, {"x": x[:9]}, kind="sphere")
    config = SimpleNamespace(data=SimpleNamespace(name="npz"))
    method = SimpleNamespace(check=sphere(2).check)
    with pytest.raises(
        UserError, match="config.data.name='npz', train: norms differ .* 0.5; valid"
    ):
        reporting.check(method, data, config)
    reporting.check(method, data._replace(train=data.test), config)


# -- held-out figures: a function of the model and the data, not of the batches -------------------

JOBS = {
    "vae": "smoke",
    "discrete_diffusion": "smoke",
    "gaussian_diffusion": "smoke",
    "flow_matching": "smoke",
    "markov_diffusion": "smoke",
    "vr_iwae": "smoke",
    "classical": "autoencoder",
}
SLOW = [job if job == "vae" else pytest.param(job, marks=pytest.mark.slow) for job in JOBS]


@pytest.mark.parametrize("job", SLOW)
def test_held_out_figures_do_not_depend_on_the_batches(job):
    config = importlib.import_module(f"configs.{job}").get_config(JOBS[job]).unlock()
    config.evaluate.limit = 20
    dataset = datasets.load(config.data)
    method = methods.build(config, dataset.spec)
    state = jax.jit(method.init)(jax.random.key(0))
    found = []
    for size in (7, 16):
        config.evaluate.batch_size = size
        mesh = loop.compile(method, config).mesh
        found.append(reporting.evaluator(method, dataset, config, mesh)(state))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        np.testing.assert_allclose(value, found[1][name], rtol=1e-6, err_msg=name)


def test_draws_of_one_example_spread_over_the_times():
    """K draws of an example have one time in each of K equal shares of the law."""
    from gmjax.losses import times

    sampler = times.uniform_in_t(0.0)
    draw = lambda key, j: sampler(key, 1, (j, 16))[0][0]
    t = jax.vmap(draw)(jax.random.split(jax.random.key(0), 16), jnp.arange(16))
    np.testing.assert_array_equal(np.floor(16 * t), np.arange(16))


def test_labels_are_asked_for_as_often_as_they_occur():
    np.testing.assert_array_equal(reporting.in_turn(np.arange(50) % 5, 10), np.arange(10) % 5)
    rare = reporting.in_turn(np.repeat([3, 7], [95, 5]), 40)
    assert np.unique(rare, return_counts=True)[1].tolist() == [38, 2] and set(rare) == {3, 7}
    for n in (1, 7, 1000):
        label = np.repeat([0, 4, 9], [1, 5, 11])
        asked = np.bincount(reporting.in_turn(label, n), minlength=10)
        assert asked.sum() == n
        assert np.all(np.abs(asked - np.bincount(label, minlength=10) * n / 17) < 1)
