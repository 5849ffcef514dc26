"""Fitted models as methods: what is streamed is fitted, and what is reported is meant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.stats import multivariate_normal

from configs import classical as configs
from gmjax import data, methods
from gmjax.classical import gmm, ppca
from gmjax.types import DataSpec, UserError


@pytest.fixture(scope="module")
def digits():
    return data.load({"name": "digits"})


def take(source):
    return source.take(np.arange(source.size))


def scaled(source):
    return take(source)["x"].reshape(source.size, -1) / 16.0


def config(preset, **model):
    found = configs.get_config(preset).unlock()
    found.model.update(model)
    return found


def test_batches_of_an_epoch_fit_what_all_the_data_do(digits):
    method = methods.build(config("ppca"), digits.spec)
    state, update = method.init(jax.random.key(0)), jax.jit(method.update)
    order = np.random.default_rng(0).permutation(digits.train.size)
    for rows in np.split(order, [400, 800, 1200]):
        state, metrics = update(state, jax.random.key(1), digits.train.take(rows))
    assert int(state.step) == 4 and np.isfinite(metrics["loss"])
    exact = ppca.fit(jnp.asarray(scaled(digits.train), jnp.float32), 10)
    jitter = 1 / 16**2 / 12
    np.testing.assert_allclose(state.params.variances, exact.variances + jitter, rtol=1e-4)
    np.testing.assert_allclose(state.params.noise, exact.noise + jitter, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["ppca", "linear_autoencoder"])
def test_views_show_the_codes_and_what_they_decode_to(digits, preset):
    job = config(preset)
    job.train.steps = 2
    method = methods.build(job, digits.spec)
    batch = digits.train.take(np.arange(20))
    state, _ = method.update(method.init(jax.random.key(0)), jax.random.key(1), batch)
    found = method.views(state, jax.random.key(2), batch)
    assert found["reconstruction"].shape == (20, 8, 8, 1) and found["codes"].shape == (20, 10)
    assert found["traversal"].shape == (10, 13, 8, 8, 1)
    assert all(found[n].dtype == np.int32 for n in ("reconstruction", "traversal"))
    if preset == "ppca":
        rest = scaled(digits.train)[:20] - state.params.mean
        np.testing.assert_allclose(found["codes"], rest @ state.params.components.T, atol=1e-4)
        middle = found["codes"][0].at[0].set(0.0) @ state.params.components + state.params.mean
        level = np.clip(np.round(16 * middle), 0, 16)
        # Rounding to levels may fall either way where a value lies on a half.
        off = np.asarray(found["traversal"][0, 6]).ravel() - np.asarray(level)
        assert (np.abs(off) <= 1).all() and np.mean(off != 0) < 0.05


def test_the_bound_is_the_mean_over_the_rounding(digits):
    """Nats a site of the levels: the density's mean over a cell, and the cell's volume."""
    method = methods.build(config("ppca"), digits.spec)
    state, _ = method.update(method.init(jax.random.key(0)), None, take(digits.train))
    found = method.evaluate(state, None, digits.test.take(np.arange(5)))
    w = np.asarray(ppca.loadings(state.params), np.float64)
    law = multivariate_normal(state.params.mean, w @ w.T + float(state.params.noise) * np.eye(64))
    u = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 64)) / 16
    for x, nats in zip(scaled(digits.test)[:5], found["nats"], strict=True):
        draws = -law.logpdf(x + u) / 64 + np.log(16)
        # Five z-scores, |z| < 4.5: fails once in 3 x 10^4 runs.
        assert abs(draws.mean() - nats) < 4.5 * draws.std() / np.sqrt(len(u))


@pytest.mark.slow
def test_updates_on_all_data_are_em_and_the_best_run_is_used(digits):
    c = config("gmm", components=4, restarts=3, lloyd=0)
    method = methods.build(c, digits.spec)
    batch, key = take(digits.train), jax.random.key(5)
    state, update = method.init(jax.random.key(0)), jax.jit(method.update)
    losses = []
    for _ in range(3):
        state, metrics = update(state, key, batch)
        losses.append(float(metrics["loss"]))
    assert losses[2] < losses[1] < losses[0]
    x = jnp.asarray(scaled(digits.train), jnp.float32)
    jitter = 1 / 16**2 / 12
    one = lambda k: gmm.fit(
        k, x, 4, "diagonal", iterations=3, tolerance=0.0, jitter=jitter, lloyd=0
    )
    fits = jax.jit(jax.vmap(one))(jax.random.split(key, 3))
    np.testing.assert_allclose(state.params.means, fits.params.means, atol=1e-4)
    best = int(np.argmax(state.score))
    params = jax.tree.map(lambda a: a[best], state.params)
    held = jnp.asarray(scaled(digits.test), jnp.float32)
    loglik = gmm.log_likelihood(params, held, "diagonal", jitter)
    found = jax.jit(method.evaluate)(state, key, take(digits.test))["nats"]
    np.testing.assert_allclose(found, -loglik / 64 + np.log(16), rtol=1e-5)


@pytest.mark.slow
def test_online_em_on_small_batches_comes_near(digits):
    c = config("gmm", components=4, restarts=1, stepwise=0.7)
    method = methods.build(c, digits.spec)
    state = method.init(jax.random.key(0))
    x = take(digits.train)["x"]
    rows = np.concatenate([np.random.default_rng(i).permutation(1400) for i in range(4)])

    @jax.jit
    def run(state, batches):
        step = lambda state, x: method.update(state, jax.random.key(2), {"x": x})
        return jax.lax.scan(step, state, batches)

    state, metrics = run(state, x[rows].reshape(28, 200, 8, 8, 1))
    whole = jnp.asarray(scaled(digits.train), jnp.float32)
    jitter = 1 / 16**2 / 12
    value = lambda params: float(gmm.log_likelihood(params, whole, "diagonal", jitter).mean())
    online = value(jax.tree.map(lambda a: a[0], state.params))
    batch = gmm.fit(jax.random.key(2), whole, 4, "diagonal", jitter=jitter, restarts=2)
    # The runs end in different maxima, which lie within 2 nats; one Gaussian is 12 below.
    assert online > float(batch.log_likelihood) - 3


@pytest.fixture(scope="module")
def trained(digits):
    """preset -> (method, state) of an autoencoder trained by a scan."""
    batch = take(digits.train)["x"]

    def train(steps, hidden, latent, size):
        c = config("linear_autoencoder")
        c.network.update(hidden=hidden, latent=latent)
        c.train.steps = steps
        if hidden:
            c.optimizer.learning_rate = 1e-2
        method = methods.build(c, digits.spec)

        @jax.jit
        def run(key):
            def step(state, key):
                rows = jax.random.permutation(key, len(batch))[:size]
                return method.update(state, key, {"x": jnp.asarray(batch)[rows]})[0], None

            keys = jax.random.split(key, steps)
            return jax.lax.scan(step, method.init(key), keys)[0]

        return method, run(jax.random.key(0))

    return train


@pytest.mark.slow
def test_a_linear_autoencoder_reaches_the_principal_plane(digits, trained):
    method, state = trained(3000, (), 4, 1437)
    exact = ppca.fit(jnp.asarray(scaled(digits.train), jnp.float32), 4)
    kernel = state.fit.ema["params"]["decoder_0"]["kernel"]
    assert subspace_angles(kernel.T, exact.components.T).max() < 1e-3
    linear = methods.build(config("pca", components=4), digits.spec)
    fitted, _ = linear.update(linear.init(jax.random.key(0)), None, take(digits.train))
    mse = [
        float(m.evaluate(s, jax.random.key(0), take(digits.test))["mse"].mean())
        for m, s in ((method, state), (linear, fitted))
    ]
    assert abs(mse[0] / mse[1] - 1) < 1e-4


@pytest.mark.slow
def test_hidden_layers_beat_the_principal_plane(digits, trained):
    method, state = trained(600, (64, 32), 2, 256)
    found = method.evaluate(state, jax.random.key(0), take(digits.test))["mse"].mean()
    plane = ppca.fit(jnp.asarray(scaled(digits.train), jnp.float32), 2)
    test = jnp.asarray(scaled(digits.test), jnp.float32)
    best = np.mean((ppca.pca.decode(plane, ppca.pca.encode(plane, test)) - test) ** 2)
    assert found < 0.9 * best


@pytest.mark.parametrize("preset", configs.PRESETS)
def test_every_preset_fits_evaluates_and_samples(digits, preset):
    c = configs.get_config(preset).unlock()
    c.model.update(restarts=2, components=3, lloyd=1)
    c.network.update(latent=3, hidden=(8,) if c.network.hidden else ())
    c.evaluate.times = 2
    method = methods.build(c, digits.spec)
    batch = digits.train.take(np.arange(64))
    assert method.check(batch["x"]) == ""
    state, update = jax.jit(method.init)(jax.random.key(0)), jax.jit(method.update)
    state, _ = update(state, jax.random.key(1), batch)
    state, metrics = update(state, jax.random.key(2), batch)
    assert np.isfinite(metrics["loss"]) and int(state.step) == 2
    found = jax.jit(method.evaluate)(state, jax.random.key(3), batch)
    assert all(v.shape == (64,) and np.isfinite(v).all() for v in found.values())
    out = jax.jit(lambda s, k: method.sample(s, k, 4, trajectory=2))(state, jax.random.key(4))
    assert out.x.shape == (4, 8, 8, 1) and out.x.dtype == jnp.int32
    assert int(out.x.min()) >= 0 and int(out.x.max()) <= 16


def test_real_vectors_are_reported_in_nats_an_example():
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    method = methods.build(config("ppca", components=1), DataSpec((3,), 0, "euclidean"))
    state, _ = method.update(method.init(jax.random.key(0)), None, {"x": x})
    nats = method.evaluate(state, None, {"x": x})["nats"]
    loglik = ppca.log_likelihood(ppca.fit(jnp.asarray(x), 1), jnp.asarray(x))
    np.testing.assert_allclose(nats, -loglik, rtol=1e-5)
    assert method.check(np.asarray([[np.nan]])) != ""


@pytest.mark.parametrize(
    "preset, change, message",
    [
        ("ppca", {"model.name": "ica"}, "config.model.name='ica' is unknown; valid: autoencoder"),
        ("ppca", {"model.components": 64}, "config.model.components=64 must lie in 1 .. 63"),
        ("gmm", {"model.components": 0}, "config.model.components=0"),
        ("gmm", {"model.components": 2000}, "config.train.batch_size=1437"),
        ("gmm", {"model.covariance": "banded"}, "config.model.covariance='banded'"),
        ("gmm", {"model.stepwise": 0.3}, "config.model.stepwise=0.3"),
        ("gmm", {"model.floor": -1.0}, "config.model.floor=-1.0"),
        ("autoencoder", {"network.latent": 64}, "config.network.latent=64"),
        ("autoencoder", {"network.hidden": (0,)}, "config.network.hidden"),
        ("autoencoder", {"loss.noise": -0.1}, "config.loss.noise=-0.1"),
        ("pca", {"labels": True}, "config.labels=True"),
        ("pca", {"sample.num_samples": 0}, "config.sample.num_samples=0"),
    ],
)
def test_bad_values_are_named(digits, preset, change, message):
    c = configs.get_config(preset).unlock()
    c.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=message):
        methods.build(c, digits.spec)


def test_letters_are_refused():
    with pytest.raises(UserError, match="config.data.name='digits' has unordered"):
        methods.build(config("pca"), DataSpec((12,), 5, "sequence"))


@pytest.mark.slow
def test_an_ordinary_run_leaves_pictures_and_a_report(tmp_path):
    from gmjax import main

    main.run(configs.get_config("smoke"), tmp_path)
    assert {"samples.png", "samples.npy", "loss.png", "results.json"} <= {
        p.name for p in tmp_path.iterdir()
    }
