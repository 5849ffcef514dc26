"""Variational autoencoders: every law and preset, a linear one in closed form, and mistakes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from configs import vae as configs
from configs import vr_iwae
from gmjax import methods
from gmjax.methods import codes, vae
from gmjax.types import DataSpec, UserError

KEY = jax.random.key(0)
DIGITS = DataSpec((8, 8, 1), 17, "image", ordinal=True, num_classes=10)
BINARY = DataSpec((8, 8, 1), 2, "image", num_classes=10)
LETTERS = DataSpec((6,), 4, "sequence")
PLANE = DataSpec((3,), 0, "euclidean")


def small(job=configs, **changes):
    config = job.get_config("smoke").unlock()
    config.train.batch_size = 8
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config.lock()


def batch_of(spec, n=8):
    rng = np.random.default_rng(0)
    if not spec.num_values:
        return {"x": rng.normal(size=(n, *spec.shape)).astype(np.float32)}
    x = rng.integers(0, spec.num_values, (n, *spec.shape)).astype(np.int32)
    return {"x": x, "label": rng.integers(0, 10, n).astype(np.int32)}


def run(config, spec):
    """(metrics, evaluation, samples, views) of two updates."""
    method, batch = methods.build(config, spec), batch_of(spec)
    assert method.check(batch["x"]) == ""

    @jax.jit
    def every(key):
        step = lambda state, key: method.update(state, key, batch)
        state, metrics = jax.lax.scan(step, method.init(key), jax.random.split(key))
        cond = {"label": jnp.arange(4)} if config.labels else None
        found = method.evaluate(state, key, batch)
        out = method.sample(state, key, 4, cond, trajectory=2)
        return metrics, found, out, method.views(state, key, batch)

    return jax.device_get(every(KEY))


CONV = {"network__name": "conv", "network__channels": (4,)}
CASES = {
    "smoke": (small, {}, DIGITS),
    "conv with labels": (small, {**CONV, "labels": True}, DIGITS),
    "free bits": (small, {"bound__free_bits": 0.1, "bound__beta": 2.0}, DIGITS),
    "bernoulli": (small, {"model__likelihood": "bernoulli"}, BINARY),
    "binarised": (
        small,
        {"model__likelihood": "bernoulli", "model__binarise": True, "sample__noise": False},
        DIGITS,
    ),
    "categorical": (small, {"model__likelihood": "categorical"}, LETTERS),
    "gaussian": (small, {"model__likelihood": "gaussian"}, PLANE),
    "vr_iwae": (lambda **k: small(vr_iwae, **k), {"train__accumulate": 2}, DIGITS),
    "iwae, rep": (
        lambda **k: small(vr_iwae, **k),
        {"bound__alpha": 0.0, "bound__gradient": "rep", "labels": True},
        DIGITS,
    ),
}


QUICK = {"smoke", "gaussian", "vr_iwae"}


@pytest.mark.parametrize(
    "case", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)
def test_every_law_and_bound_trains_evaluates_and_samples(case):
    make, changes, spec = CASES[case]
    config = make(**changes)
    metrics, found, out, views = run(config, spec)
    assert all(np.isfinite(v).all() for v in metrics.values())
    assert all(v.shape == (8,) and np.isfinite(v).all() for v in found.values())
    size = np.prod(spec.shape) if spec.num_values else 1
    np.testing.assert_allclose(found["nats"] * size, found["nll"], rtol=1e-5)
    parts = size * (found["reconstruction"] + found["kl"])
    np.testing.assert_allclose(parts, found["elbo"], rtol=1e-5)
    assert ("ess" in metrics) == (config.bound.kl == "sampled")
    if "ess" in metrics:
        assert 1 <= metrics["ess"].min() <= metrics["ess"].max() <= config.bound.particles
    assert out.x.shape == (4, *spec.shape) and int(out.nfe) == 1
    if spec.num_values:
        assert out.x.dtype == np.int32
        assert out.x.min() >= 0 and out.x.max() < spec.num_values
    assert views["reconstruction"].shape == (8, *spec.shape)
    assert views["traversal"].shape == (3, 13, *spec.shape)
    assert views["codes"].shape == (8, 3)
    assert ("log_weights" in views) == (config.bound.particles > 1)
    for name in ("reconstruction", "traversal"):
        assert views[name].dtype == (np.int32 if spec.num_values else np.float32)
    if case == "binarised":
        assert len(np.unique(out.x)) > 2  # means, as grey levels


@pytest.fixture(scope="module")
def linear():
    """x = W z + b + noise in R^3, two codes, an encoder that is a little off."""
    config = small(
        model__likelihood="gaussian", network__hidden=(), network__latent=2,
        evaluate__times=20_000, evaluate__chunk=500,
    )  # fmt: skip
    method = methods.build(config, PLANE)
    state = method.init(KEY)
    rng = np.random.default_rng(1)
    w, b, std = rng.normal(size=(3, 2)), rng.normal(size=3), np.array([0.7, 1.0, 0.5])
    params = jax.tree.map(np.zeros_like, state.ema)
    out = params["params"]["outward_0"]
    out["kernel"] = np.float32(np.stack([w.T, np.zeros((2, 3))], -1).reshape(2, 6))
    raw = 8 * np.arctanh(np.log(std) / 8)
    out["bias"] = np.float32(np.stack([b, raw], -1).reshape(6))
    # The posterior is N(C W^T D (x - b), C) with C = (I + W^T D W)^-1, D = diag(1 / std^2).
    c = np.linalg.inv(np.eye(2) + (w.T / std**2) @ w)
    pull = c @ (w.T / std**2)
    enc = params["params"]["inward_0"]
    enc["kernel"] = np.float32(np.concatenate([pull.T, np.zeros((3, 2))], 1))
    spread = 8 * np.arctanh(np.log(np.sqrt(1.2 * np.diag(c))) / 8)
    enc["bias"] = np.float32(np.concatenate([-pull @ b, spread]))
    law = stats.multivariate_normal(b, w @ w.T + np.diag(std**2))
    q_std = np.sqrt(1.2 * np.diag(c))
    return method, state._replace(params=params, ema=params), law, (w, b, std, pull, q_std)


def test_the_likelihood_of_a_linear_model_is_known(linear):
    method, state, law, (w, b, std, pull, q_std) = linear
    batch = batch_of(PLANE)
    found = jax.jit(method.evaluate)(state, KEY, batch)
    exact, error = -law.logpdf(batch["x"]), np.asarray(found["monte_carlo_error"])
    assert error.max() < 0.03
    # Eight z-scores, |z| < 4.5: fails once in 2 x 10^4 runs.
    assert (np.abs(found["nll"] - exact) < 4.5 * error).all()
    mean = (batch["x"] - b) @ pull.T
    kl = 0.5 * (mean**2 + q_std**2 - 1).sum(1) - np.log(q_std).sum()
    np.testing.assert_allclose(found["kl"], kl, rtol=1e-4)
    # E_q of the squared error, in closed form; its Monte-Carlo error is under 1 / sqrt(20000).
    rest = (batch["x"] - b - mean @ w.T) ** 2 + (w * q_std) ** 2 @ np.ones(2)
    missed = (0.5 * rest / std**2 + np.log(std) + 0.5 * np.log(2 * np.pi)).sum(1)
    np.testing.assert_allclose(found["reconstruction"], missed, atol=0.1)
    assert (found["elbo"] > found["nll"]).all()
    assert (found["ess"] > 1000).all() and (found["ess"] < 20_000).all()
    x = method.sample(state, KEY, 20_000).x
    # 3 means and 6 covariances at |z| < 4.5, errors those of normal moments.
    cov = law.cov
    assert (np.abs(x.mean(0) - law.mean) < 4.5 * np.sqrt(np.diag(cov) / len(x))).all()
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / len(x))
    assert (np.abs(np.cov(x.T) - cov) < 4.5 * error).all()


@pytest.mark.slow
def test_drawn_and_analytic_bounds_agree_in_the_mean_and_more_particles_are_tighter(linear):
    _, state, law, _ = linear
    batch, keys = batch_of(PLANE), jax.random.split(KEY, 400)
    losses = {}
    cases = {
        "analytic": {},
        "sampled": {"bound__kl": "sampled"},
        "drep": {"bound__kl": "sampled", "bound__gradient": "drep"},
        "vr": {"bound__kl": "sampled", "bound__particles": 8, "bound__alpha": 0.5},
        "iwae": {"bound__kl": "sampled", "bound__particles": 8},
    }
    for name, changes in cases.items():
        method = methods.build(
            small(model__likelihood="gaussian", network__hidden=(), network__latent=2, **changes),
            PLANE,
        )
        start = method.init(KEY)._replace(params=state.params)
        one = lambda key, m=method, s=start: m.update(s, key, batch)[1]["loss"]
        losses[name] = np.asarray(jax.jit(jax.vmap(one))(keys))
    mean = {name: values.mean() for name, values in losses.items()}
    error = {name: values.std() / 20 for name, values in losses.items()}
    for name in ("sampled", "drep"):
        z = (mean[name] - mean["analytic"]) / np.hypot(error[name], error["analytic"])
        assert abs(z) < 4.5
    exact = -law.logpdf(batch["x"]).mean()
    assert mean["analytic"] > mean["vr"] > mean["iwae"] > exact - 4.5 * error["iwae"]


def test_published_sizes_and_presets_are_built():
    specs = {"mnist": DataSpec((28, 28, 1), 256, "image", ordinal=True, num_classes=10)}
    specs["binarized_mnist"] = DataSpec((28, 28, 1), 2, "image")
    for job in (configs, vr_iwae):
        for preset in job.PRESETS:
            config = job.get_config(preset)
            method = methods.build(config, specs.get(preset, DIGITS))
            state = jax.eval_shape(method.init, KEY)
            assert len(jax.tree.leaves(state.params)) > 4
            assert (config.bound.particles > 1) == (job is vr_iwae)


def test_a_traversal_moves_one_coordinate_a_row(linear):
    """The decoder is linear: a row is the mean of the first example plus a column of W."""
    method, state, _, (w, b, _, pull, _) = linear
    batch = batch_of(PLANE)
    found = jax.jit(method.views)(state, KEY, batch)
    exact = (batch["x"] - b) @ pull.T
    np.testing.assert_allclose(found["codes"], exact, atol=1e-5)
    np.testing.assert_allclose(found["reconstruction"], exact @ w.T + b, atol=1e-5)
    for row in found["traversal"]:
        steps = np.diff(row, axis=0) / 0.5
        errors = [np.abs(steps - w[:, i]).max() for i in range(2)]
        assert min(errors) < 1e-4
        i = int(np.argmin(errors))
        z = np.where(np.arange(2) == i, codes.MOVED[:, None], exact[0])
        np.testing.assert_allclose(row, z @ w.T + b, atol=1e-4)


def test_grey_levels_are_chances():
    config = small(model__likelihood="bernoulli", model__binarise=True)
    model = vae.model(config, DIGITS)
    grey = jnp.broadcast_to(jnp.arange(17), (5000, 17))
    seen = model.read(KEY, grey)
    assert (seen[:, 0] == 0).all() and (seen[:, 16] == 1).all()
    share = np.arange(17) / 16
    # Fifteen z-scores, |z| < 4.5.
    error = np.sqrt(share * (1 - share) / 5000)
    assert (np.abs(seen.mean(0) - share) <= 4.5 * error + 1e-6).all()


@pytest.mark.parametrize(
    "spec, changes, message",
    [
        (DIGITS, {"bound__alpha": 1.0}, "config.bound.alpha=1.0 must lie in"),
        (DIGITS, {"bound__alpha": -0.1}, "config.bound.alpha=-0.1 must lie in"),
        (DIGITS, {"bound__particles": 0}, "config.bound.particles=0 must be at least 1"),
        (DIGITS, {"bound__particles": 2}, "config.bound.kl='analytic' needs"),
        (DIGITS, {"bound__gradient": "drep"}, "config.bound.kl='analytic' needs"),
        (DIGITS, {"bound__gradient": "score"}, "config.bound.gradient='score' is unknown"),
        (DIGITS, {"bound__kl": "exact"}, "config.bound.kl='exact' is unknown"),
        (DIGITS, {"bound__beta": -1.0}, "config.bound.beta=-1.0"),
        (DIGITS, {"bound__kl": "sampled", "bound__free_bits": 0.1}, "config.bound.free_bits=0.1"),
        (DIGITS, {"model__likelihood": "bernoulli"}, "config.model.likelihood='bernoulli' is for"),
        (DIGITS, {"model__likelihood": "gaussian"}, "config.model.likelihood='gaussian' is for"),
        (PLANE, {}, "config.model.likelihood='discretised_logistic' is for"),
        (LETTERS, {}, "config.model.likelihood='discretised_logistic' is for"),
        (PLANE, {"model__likelihood": "categorical"}, "config.model.likelihood='categorical' is"),
        (BINARY, {"model__binarise": True}, "config.model.binarise=True"),
        (PLANE, {"labels": True, "model__likelihood": "gaussian"}, "has no labels"),
        (
            LETTERS,
            {"model__likelihood": "categorical", "sample__noise": False},
            "config.sample.noise=False",
        ),
        (DataSpec((3,), 0, "sphere"), {}, "is of kind 'sphere'"),
        (DIGITS, {"evaluate__times": 1}, "config.evaluate.times=1"),
        (DIGITS, {"evaluate__chunk": 0}, "config.evaluate.chunk=0"),
        (DIGITS, {"sample__num_samples": 0}, "config.sample.num_samples=0"),
    ],
)
def test_mistakes_are_named(spec, changes, message):
    with pytest.raises(UserError, match=message):
        methods.build(small(**changes), spec)


def test_what_is_not_finite_is_named():
    assert "not finite" in vae.finite(np.array([[np.nan]])) and not vae.finite(np.zeros((1, 3)))


@pytest.mark.slow
def test_an_ordinary_run_leaves_pictures_and_a_report(tmp_path):
    from gmjax import main

    main.run(configs.get_config("smoke"), tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())
    assert {"bits_per_dim", "nll", "elbo", "bits_kl", "bits_monte_carlo_error"} <= set(found)
    written = {p.name for p in tmp_path.iterdir()}
    assert {"samples.png", "samples.npy", "loss.png"} <= written
    assert {"reconstruction.png", "traversal.png", "codes.png"} <= written
