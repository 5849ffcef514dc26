"""The method: it is judged as it should be, samples by every sampler, and names mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import flow_matching as jobs
from gmjax import data, methods
from gmjax.methods import flow_matching, flow_worlds
from gmjax.paths import couplings, interpolants
from gmjax.types import DataSpec, UserError

KEY = jax.random.key(0)
PLANE = DataSpec((2,), 0, "euclidean", num_classes=3)
IMAGE = DataSpec((4, 4, 1), 5, "image", True, 3)


def config(preset="moons", **changes):
    """A small job of a preset with some keys changed, `section__key=value`."""
    c = jobs.get_config(preset).unlock()
    if c.network.name == "mlp":
        c.network.update(width=16, blocks=1, frequencies=8)
    else:
        c.network.update(channels=(8, 8), mixer=8)
    c.train.update(steps=4, batch_size=8)
    c.coupling.group = 0
    c.evaluate.update(steps=8, times=4)
    c.sample.update(steps=4)
    for key, value in changes.items():
        *section, name = key.split("__")
        place = c
        for part in section:
            place = place[part]
        place[name] = value
    return c.lock()


def fresh(c, spec):
    method = methods.build(c, spec)
    return method, jax.jit(method.init)(KEY)


def test_the_likelihood_is_that_of_the_flow():
    """With the exact velocity of N((1, -1), .5^2) as the network, -log p to 1e-3."""
    c = config(evaluate__steps=32)
    world = flow_worlds.build(c, PLANE)
    judge = flow_matching.evaluator(c, PLANE, world, couplings.independent)
    m, s = jnp.asarray([1.0, -1.0]), 0.5

    def predict(x, t, cond):
        t = t[:, None]
        return -m + (t - (1 - t) * s**2) / ((1 - t) ** 2 * s**2 + t**2) * (x - (1 - t) * m)

    x = m + s * jax.random.normal(KEY, (16, 2))
    nats = jax.jit(lambda x: judge(predict, KEY, x, None)["nats"])(x)
    exact = jnp.sum(0.5 * ((x - m) / s) ** 2, -1) + 2 * np.log(s) + np.log(2 * np.pi)
    np.testing.assert_allclose(nats, exact, atol=1e-3)


@pytest.mark.slow
def test_levels_are_judged_in_bits_of_their_bins():
    """An untrained network is zero, and the model N(0, I): nats a site are known but for noise."""
    c = config("smoke")
    method, state = fresh(c, IMAGE)
    x = np.random.default_rng(0).integers(0, 5, (64, 4, 4, 1)).astype(np.int32)
    nats = jax.jit(method.evaluate)(state, KEY, {"x": x})["nats"]
    square = (0.5 * x - 1.0) ** 2 + 0.5**2 / 12  # the bins are half a unit wide
    want = 0.5 * square.mean((1, 2, 3)) + 0.5 * np.log(2 * np.pi) - np.log(0.5)
    # The place in the bin moves x^2 / 2 by up to x times its deviation, .144: over 16 sites.
    assert abs(np.mean(nats - want)) < 4.5 * 0.12 / 4 / 8
    assert np.abs(nats - want).max() < 6 * 0.12 / 4
    out = jax.jit(lambda s, k: method.sample(s, k, 32))(state, KEY)
    # N(0, 1) rounded to levels and clipped: the ends get P(|x| > .75).
    share = np.mean((np.asarray(out.x) == 0) | (np.asarray(out.x) == 4))
    assert abs(share - 0.4533) < 4.5 * np.sqrt(0.25 / 512) and out.x.dtype == jnp.int32


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"sample__name": "exact"},
        {"sample__name": "exact", "path__name": "uniform", "loss__t_min": 0.1},
        {"sample__name": "corrected"},
        {"labels": True, "sample__guidance": 2.0},
        {"labels": True, "sample__guidance": 2.0, "sample__guide": "rates"},
        {"path__name": "uniform", "loss__head": "leave_one_out", "sample__name": "midpoint"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_every_sampler_of_discrete_data(changes):
    c = config("discrete", network__name="mlp", **changes)
    method, state = fresh(c, IMAGE)
    cond = {"label": jnp.arange(6) % 3} if c.labels else None
    out = jax.jit(lambda s, k: method.sample(s, k, 6, cond))(state, KEY)
    assert out.x.shape == (6, 4, 4, 1) and int(out.x.min()) >= 0 and int(out.x.max()) < 5
    # An untrained posterior is uniform: every value comes.
    assert len(np.unique(out.x)) == 5
    want = (
        {"corrected": 8, "midpoint": 8, "exact": 16}[c.sample.name]
        if "sample__name" in (changes)
        else 8
        if c.sample.guidance != 1
        else 4
    )
    assert int(out.nfe) == want or (c.sample.name == "exact" and c.path.name == "uniform")


@pytest.mark.parametrize("name", ["euler", "corrected"])
def test_one_site_guided_by_rates_has_the_law_of_its_steps(name):
    """Steps and leaps as 3 x 3 matrices: guided rates, their total not one, on h = t."""
    laws = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3]])
    c = config(
        "discrete", labels=True, network__name="mlp", path__name="uniform", loss__t_min=1e-2,
        sample__name=name, sample__guidance=2.0, sample__guide="rates", sample__steps=8,
    )  # fmt: skip
    spec, n = DataSpec((1,), 3, "vector", ordinal=True, num_classes=2), 40_000

    def predict(x, t, cond):
        known = jnp.where(x[..., None] == jnp.arange(3), (1 - 2 * t / 3)[:, None, None], 0)
        known = jnp.where(known > 0, known, t[:, None, None] / 3)
        return jnp.log(jnp.where((cond["label"] == 2)[:, None, None], laws[1], laws[0]) * known)

    def rates(t):
        """[x, y]: p(y | x, label)^2 / p(y | x)."""
        known = np.full((3, 3), t / 3) + (1 - t) * np.eye(3)
        p = laws[:, None] * known
        p /= p.sum(-1, keepdims=True)
        return p[0] ** 2 / p[1]

    def turn(p, length, rates):
        total = rates.sum(1, keepdims=True)
        chance = 1 - np.exp(-length * total)
        return p @ ((1 - chance) * np.eye(3) + chance * rates / total)

    draw = flow_matching.sampler(c, spec, flow_worlds.build(c, spec))
    cond = {"label": jnp.zeros(n, jnp.int32)}
    out = jax.jit(lambda key: draw(predict, key, n, cond))(KEY)
    law, times = np.full(3, 1 / 3), np.asarray(out.times, np.float64)
    for t, s in zip(times[:-1], times[1:], strict=True):
        if s == 0:  # every site turns, and there is no leap
            law = turn(law, np.inf, rates(t))
        else:
            law = turn(law, np.log(t / s), rates(t))
            if name == "corrected":
                both = rates(s) / s + 1 / (3 * (1 - s))
                law = turn(law, min(t - s, s / 2), both)
    found = np.bincount(np.asarray(out.x).ravel(), minlength=3) / n
    assert (abs(found - law) < 4.5 * np.sqrt(law * (1 - law) / n)).all()


@pytest.mark.slow
def test_labels_guide_a_flow():
    c = config(labels=True, sample__guidance=2.0, sample__name="euler", sample__interval=(0.2, 0.8))
    method, state = fresh(c, PLANE)
    x = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    batch = {"x": x, "label": np.arange(8) % 3}
    state, metrics = jax.jit(method.update)(state, KEY, batch)
    assert np.isfinite(metrics["loss"])
    out = method.sample(state, KEY, 4, {"label": jnp.arange(4) % 3})
    assert out.x.shape == (4, 2) and int(out.nfe) == 8


@pytest.mark.slow
def test_meanflow_takes_both_times():
    c = config("meanflow_moons")
    method, state = fresh(c, PLANE)
    x = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    for i in range(3):
        state, metrics = jax.jit(method.update)(state, jax.random.key(i), {"x": x})
    assert np.isfinite(metrics["loss"]) and np.isfinite(metrics["error"])
    _, predictor = flow_matching.build_network(c, PLANE, flow_worlds.build(c, PLANE))
    noisy = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(KEY, p.shape), state.params)
    average = predictor(noisy)
    t = jnp.full(8, 0.7)
    far = average(x, t, {"until": jnp.zeros(8)})
    near = average(x, t, {"until": t})
    np.testing.assert_allclose(near, average(x, t, None), atol=1e-6)
    assert float(jnp.abs(far - near).max()) > 1e-2
    assert int(method.sample(state, KEY, 4).nfe) == 4


TABLE = DataSpec({"numeric": (2,), "classes": (1,)}, 5, "table")
MISTAKES = [
    ("moons", PLANE, {"path__name": "masked"}, "config.path.name='masked' is for discrete data"),
    ("moons", PLANE, {"path__name": "curved"}, "config.path.name='curved' is unknown"),
    ("moons", PLANE, {"loss__t_min": -0.1}, "config.loss.t_min=-0.1"),
    ("moons", PLANE, {"loss__head": "eps"}, "config.loss.t_max=1.0: the head 'eps' says nothing"),
    ("moons", PLANE, {"loss__head": "score", "loss__t_max": 0.99, "loss__t_min": 0.0}, "t_min=0.0"),
    ("moons", PLANE, {"loss__objective": "best"}, "config.loss.objective='best'"),
    ("moons", PLANE, {"loss__times": "late"}, "config.loss.times='late'"),
    ("moons", PLANE, {"coupling__name": "greedy"}, "config.coupling.name='greedy'"),
    ("moons", PLANE, {"evaluate__likelihood": "elbo"}, "config.evaluate.likelihood='elbo'"),
    ("moons", PLANE, {"evaluate__probes": -1}, "config.evaluate.probes=-1"),
    ("moons", PLANE, {"sample__name": "leap"}, "config.sample.name='leap'"),
    ("moons", PLANE, {"sample__name": "exact"}, "'exact' is for discrete data"),
    ("moons", PLANE, {"sample__name": "corrected"}, "'corrected' is for discrete data"),
    ("moons", PLANE, {"sample__name": "mean"}, "needs config.loss.objective='mean'"),
    ("moons", PLANE, {"sample__guide": "rates"}, "'rates' is for discrete data"),
    ("moons", PLANE, {"sample__grid": "log"}, "config.sample.grid='log'"),
    ("moons", PLANE, {"sample__steps": 0}, "config.sample.steps=0"),
    ("moons", PLANE, {"loss__t_max": 0.5}, "config.loss.t_max=0.5: samples start from the law"),
    ("discrete", IMAGE, {"loss__t_min": 0.5}, "config.loss.t_min=0.5"),
    ("moons", PLANE, {"loss__share": 0.0}, "config.loss.share=0.0"),
    ("moons", PLANE, {"loss__weighting": "foo"}, "config.loss.weighting='foo'"),
    ("moons", PLANE, {"sample__noise": -1.0}, "config.sample.noise=-1.0"),
    ("moons", PLANE, {"coupling__name": "exact", "labels": True}, "pairs whatever the labels"),
    ("moons", PLANE, {"coupling__group": 3}, "config.coupling.group=3 must divide the 8 examples"),
    ("discrete", IMAGE, {"sample__name": "sde"}, "config.sample.name='sde' is for numbers"),
    (
        "discrete_uniform", IMAGE, {"coupling__name": "exact", "sample__name": "corrected"},
        "redraws sites from a source independent of the data",
    ),
    (
        "abalone", TABLE,
        {"path__name": "bridge", "loss__head": "parts", "loss__t_min": 1e-3, "loss__t_max": 0.999},
        "not for data of many",
    ),
    ("abalone", TABLE, {"path__classes": "foo"}, "config.path.classes='foo' is unknown"),
    ("moons", PLANE, {"sample__guidance": 2.0}, "config.sample.guidance=2.0 needs labels"),
    ("moons", PLANE, {"sample__interval": (0.9, 0.1)}, "config.sample.interval=(0.9, 0.1)"),
    ("discrete", IMAGE, {"sample__guide": "rates", "sample__rescale": 0.7}, "rescale=0.7: log"),
    ("moons", PLANE, {"coupling__name": "exact", "sample__name": "sde"}, "'sde' needs"),
    ("moons", PLANE, {"network__name": "unet"}, "config.network.name='unet'"),
    ("moons", PLANE._replace(kind="sphere", shape=(3,)), {}, "valid: geodesic"),
    ("moons", PLANE._replace(kind="counts"), {}, "there is no flow for kind 'counts'"),
    ("volcano", PLANE._replace(kind="sphere", shape=(3,)), {"network__name": "unet"}, "valid: mlp"),
    ("transfer", PLANE, {"loss__t_min": 0.0}, "config.loss.t_min=0.0: gamma of"),
    ("transfer", PLANE, {"loss__objective": "mean"}, "without gamma"),
    ("meanflow_moons", PLANE, {"labels": True, "sample__guidance": 2.0}, "cannot be guided"),
    ("discrete", IMAGE, {"evaluate__likelihood": "flow"}, "come by 'elbo'"),
    ("digits", IMAGE, {"evaluate__likelihood": "loss"}, "come by 'flow'"),
    ("digits", IMAGE._replace(ordinal=False), {}, "needs values that are ordered levels"),
    ("discrete", IMAGE, {"loss__weighting": "none"}, "config.loss.weighting='none'"),
    ("discrete", IMAGE, {"loss__t_min": 0.0}, "the bound of jumps needs more"),
    ("moons", PLANE._replace(num_classes=0), {"labels": True}, "has no labels"),
]  # fmt: skip


@pytest.mark.parametrize("preset, spec, changes, message", MISTAKES)
def test_mistakes_are_named(preset, spec, changes, message):
    with pytest.raises(UserError) as caught:
        methods.build(config(preset, **changes), spec)
    assert message in str(caught.value)


def test_what_the_source_does_not_allow_is_named():
    told = {"source": jnp.zeros((4, 2))}
    c = config("transfer", path__name="linear", loss__head="velocity", sample__name="sde")
    method, state = fresh(c, PLANE)
    with pytest.raises(UserError, match="'sde' from a source of data needs a path with gamma"):
        method.sample(state, KEY, 4, told)
    method, state = fresh(config(coupling__name="paired"), PLANE)
    with pytest.raises(UserError, match="'paired' needs data with a source"):
        method.sample(state, KEY, 4)


def test_the_likelihood_starts_from_the_law_that_samples_do():
    """A bridge with noise at its end: the flow of N(0, s^2) has the exact density."""
    c = config(
        path__name="regular_bridge", loss__head="parts", loss__t_min=1e-3, loss__t_max=0.999,
        evaluate__steps=200,
    )  # fmt: skip
    world, s = flow_worlds.build(c, PLANE), 0.5
    f = world.interpolant
    assert f is not None and f.gamma is not None

    def predict(x, t, cond):
        """E[da x0 + db x1 | x] and E[z | x], linear in x."""
        a, b, g, da, db, _ = jax.vmap(lambda t: jnp.stack(interpolants.coefficients(f, t)))(t).T
        over = x / (a**2 * s**2 + b**2 + g**2)[:, None]
        return jnp.concatenate([(da * a * s**2 + db * b)[:, None] * over, g[:, None] * over], -1)

    judge = flow_matching.evaluator(c, PLANE, world, couplings.independent)
    x = s * jax.random.normal(KEY, (16, 2))
    nats = jax.jit(lambda x: judge(predict, KEY, x, None)["nats"])(x)
    a, b, g = interpolants.coefficients(f, jnp.asarray(1e-3))[:3]
    var = a**2 * s**2 + b**2 + g**2  # of the law where the flow begins
    exact = 0.5 * jnp.sum(x**2, -1) / var + jnp.log(var) + np.log(2 * np.pi)
    np.testing.assert_allclose(nats, exact, atol=5e-3)


def test_a_source_of_data_has_no_density():
    c = config("transfer", evaluate__likelihood="flow")
    dataset = data.load(c.data)
    method, state = fresh(c, dataset.spec)
    with pytest.raises(UserError, match="a source of data has no density; valid: loss"):
        method.evaluate(state, KEY, dataset.test.take(np.arange(4)))


def test_points_off_the_space_are_found():
    method = methods.build(config("torsions"), DataSpec((2,), 0, "torus"))
    assert method.check(np.zeros((3, 2))) == "" and "wrap" in method.check(np.full((3, 2), 7.0))
