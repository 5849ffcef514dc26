"""Immigration and death of counts: the kernel against matrix exponentials, then the oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import scipy.linalg
import scipy.stats

from gmjax import generators
from gmjax.processes import counts
from gmjax.processes.schedules import constant, linear
from gmjax.types import Distribution, UserError

RATE = 1.3
LAM, MU = 2.5, 0.8
BOTH = counts.birth_death(constant(RATE), (2,), cap=12, arrival=LAM, death=MU)
SITE = counts.birth_death(constant(RATE), (1,), cap=12, arrival=LAM, death=MU)
THIN = counts.birth_death(constant(RATE), (2,), cap=12, arrival=0.0, death=MU, mean=4.0)
ALL = pytest.mark.parametrize("process", [BOTH, THIN], ids=["immigration", "thinning"])
HEAVY = pytest.mark.parametrize(
    "process",
    [
        pytest.param(BOTH, id="immigration"),
        pytest.param(THIN, id="thinning", marks=pytest.mark.slow),
    ],
)
ATOMS = jnp.asarray([[0, 9], [4, 1], [12, 3]])
WEIGHTS = jnp.asarray([0.2, 0.5, 0.3])
STATES = 60  # of the truncated chain: P(X >= 60) < 1e-30
KEYS = jax.random.split(jax.random.key(0), 8)


def mean(x):
    """A bounded test function without symmetry."""
    return jnp.tanh(0.3 * x[0] - 0.2 * x[1]) + jnp.exp(-0.5 * x[1])


def matrix(lam, mu):
    n = np.arange(STATES)
    r = np.diag(np.full(STATES - 1, lam), 1) + np.diag(mu * n[1:], -1)
    return r - np.diag(r.sum(1))


@pytest.mark.slow
@pytest.mark.parametrize("lam", [LAM, 0.0])
@pytest.mark.parametrize("t", [1e-3, 0.3, 1.0])
def test_kernel_and_ratios(lam, t):
    """Against exp(tau R): 1e-9 of the largest in float64, 1e-5 in float32."""
    q = np.maximum(scipy.linalg.expm(RATE * t * matrix(lam, MU)), 0)
    x0, x = (v.ravel() for v in np.meshgrid([0, 1, 5, 12], np.arange(25), indexing="ij"))
    extra = {"mean": 3.0} if lam == 0 else {}
    make = lambda: counts.birth_death(constant(RATE), (1,), 12, lam, MU, **extra)
    both = lambda p: lambda x, x0: (p.log_prob(x, x0, jnp.asarray(t)), p.target(x0, x, t))
    for wide, tolerance in ((True, 1e-9), (False, 1e-5)):
        with jax.enable_x64(wide):
            p, score = jax.jit(jax.vmap(both(make())))(x[:, None], x0[:, None])
        np.testing.assert_allclose(np.exp(p), q[x0, x], atol=tolerance)
        seen = (q[x0, x] > 1e-12) & (x > 0)
        up, down = score[seen, 0, 0], score[seen, 0, 1]
        x0s, xs = x0[seen], x[seen]
        # Where exp(tau R) itself has digits left.
        relative = {"rtol": 1e3 * tolerance, "atol": tolerance}
        good = q[x0s, xs + 1] > 1e-12
        np.testing.assert_allclose(up[good], (q[x0s, xs + 1] / q[x0s, xs])[good], **relative)
        if lam:
            good = q[x0s, xs - 1] > 1e-12
            np.testing.assert_allclose(down[good], (q[x0s, xs - 1] / q[x0s, xs])[good], **relative)
    assert np.all(np.isfinite(score[np.isfinite(p)]))


@ALL
def test_sampling_is_exact(process):
    """Chi-square of 40000 draws at a significance of 1e-5."""
    t, n, x0 = jnp.asarray(0.4), 40_000, jnp.asarray([9, 2])
    x = np.asarray(jax.jit(lambda key: oracles.draws(process, key, x0, t, n))(KEYS[0]))
    assert x.dtype == x0.dtype and x.min() >= 0
    q = scipy.linalg.expm(RATE * 0.4 * matrix(LAM if process is BOTH else 0.0, MU))
    for site in (0, 1):
        expected = n * q[int(x0[site])]
        seen = np.bincount(x[:, site], minlength=STATES)
        common = expected > 8
        rest = np.append(expected[common], expected[~common].sum())
        counted = np.append(seen[common], seen[~common].sum())
        keep = rest > 1e-6
        statistic = np.sum((counted[keep] - rest[keep]) ** 2 / rest[keep])
        assert scipy.stats.chi2(keep.sum() - 1).sf(statistic) > 1e-5


@HEAVY
@pytest.mark.slow
def test_forward_oracles(process):
    """|z| < 4.5: 7e-6 for a correct program."""
    x0, t = ATOMS[1], jnp.asarray(0.5)
    for x in (x0, jnp.asarray([0, 7])):
        assert abs(oracles.weak_step(process.generator, mean, x, t, KEYS[1], n=50_000)) < oracles.Z
    assert abs(oracles.kolmogorov(process, mean, x0, KEYS[2], n=5_000)) < oracles.Z
    assert abs(oracles.composition(process, mean, x0, KEYS[3], n=5_000)) < oracles.Z


@pytest.mark.slow
def test_base_is_the_limit():
    last = counts.birth_death(constant(14.0), (2,), cap=12, arrival=LAM, death=MU)
    assert abs(oracles.limit(last, mean, ATOMS[2], KEYS[4], n=5_000)) < oracles.Z
    x = jnp.arange(60)[:, None]
    total = jnp.sum(jnp.exp(jax.vmap(SITE.base.log_prob)(x)))
    assert float(total) == pytest.approx(1, abs=1e-5)
    # The mean of thinned Poisson data.
    base = jax.vmap(THIN.base.sample)(jax.random.split(KEYS[4], 20_000))
    level = 4 * np.exp(-MU * RATE)
    assert abs(float(jnp.mean(base)) - level) < 4.5 * np.sqrt(level / 40_000)


@HEAVY
@pytest.mark.slow
def test_reversal(process):
    """100 steps: the bias of the leaps is below the standard error of 3000 draws."""
    times = jnp.linspace(1, 0.1, 101)
    assert abs(oracles.reversal(process, mean, ATOMS, WEIGHTS, KEYS[5], times, n=3_000)) < oracles.Z


def test_reverse_steps_stay_counts():
    """Long steps, from zero and from far out."""
    back = BOTH.reverse(lambda x, t: jnp.full((2, 2), 30.0))
    step = lambda k, x: back.step(k, x, jnp.asarray(0.9), 0.5)
    run = jax.jit(jax.vmap(step, (0, None)))
    for x in ([0, 0], [1, 80]):
        y = run(jax.random.split(KEYS[6], 500), jnp.asarray(x))
        assert y.dtype == jnp.int32 and int(y.min()) >= 0


@pytest.mark.slow
def test_adjointness_and_gradients():
    with jax.enable_x64(True):
        nodes, volume, t = jnp.arange(STATES)[:, None], jnp.ones(STATES), jnp.asarray(0.4)
        f = lambda x: jnp.sin(0.7 * x[0])
        g = lambda x: jnp.exp(-((x[0] - 3.0) ** 2) / 9)
        sides = jax.jit(lambda: oracles.adjointness(SITE.generator, f, g, nodes, volume, t))
        left, right = sides()
        assert float(left) == pytest.approx(float(right), rel=1e-10)
        log_beta = lambda p, x, t: -p[0] * (x[0] - 3) ** 2 + p[1] * jnp.sin(x[0] * 1.0)
        args = (jnp.asarray([0.05, 0.4]), ATOMS[:, :1], WEIGHTS, nodes, volume, t)
        implicit, explicit, denoising = oracles.gradients(SITE, log_beta, *args)
        np.testing.assert_allclose(implicit, explicit, rtol=1e-8)
        np.testing.assert_allclose(denoising, explicit, rtol=1e-8)


@pytest.mark.slow
def test_phi_of_scores_has_the_mean_of_phi():
    """sum_x q(x) phi(x) = sum_x q(x) Phi(q / beta)(x), for a wrong beta; zero for the right."""
    with jax.enable_x64(True):
        nodes, t, x0 = jnp.arange(STATES)[:, None], jnp.asarray(0.4), jnp.asarray([5])
        log_q = lambda x: SITE.log_prob(x, x0, t)
        wrong = lambda x: log_q(x) + 0.3 * jnp.sin(x[0] * 1.0)
        q = jnp.exp(jax.vmap(log_q)(nodes))

        def at(x):
            neighbours = jnp.stack([x + 1, jnp.maximum(x - 1, 0)])
            score = jnp.exp(jax.vmap(wrong)(neighbours) - wrong(x))[None]
            target = SITE.target(x0, x, t)
            ratio = lambda y: log_q(y) - wrong(y)
            exact = generators.phi(SITE.generator, ratio, x, t)
            return SITE.phi(x, t, target, score), exact, SITE.phi(x, t, target, target)

        mine, exact, none = jax.jit(jax.vmap(at))(nodes)
        assert float(q @ mine) == pytest.approx(float(q @ exact), rel=1e-9)
        assert float(q @ mine) > 0.1 and float(jnp.max(jnp.abs(none))) < 1e-12


@pytest.mark.slow
def test_bound():
    """At the exact score the bound is the entropy; a tilt of the score costs."""
    log_q = oracles.log_marginal(BOTH, ATOMS, WEIGHTS)
    end = Distribution(BOTH.base.sample, lambda x: log_q(x, jnp.ones(())))
    args = (BOTH._replace(base=end), ATOMS, WEIGHTS, KEYS[7])
    exact, (z, gap) = oracles.bound(*args, lambda x, t: jnp.sin(x[0] * 1.0), n=10_000)
    assert abs(exact[0]) < oracles.Z
    assert z > oracles.Z and gap > 0


@ALL
def test_a_network_that_says_nothing_is_right_for_poisson_data(process):
    """read(0) is the score of Poisson data, whose marginals are Poisson."""
    level = LAM / MU if process is BOTH else 4 * np.exp(-MU * RATE * 0.3)
    x, t = jnp.asarray([0, 6]), jnp.asarray(0.3)
    score = process.read(jnp.zeros((2, 2)), x, t)
    np.testing.assert_allclose(score, [[level, 0], [level / 7, 6 / level]], rtol=1e-5)
    out = jnp.asarray([[0.5, -1.0], [0.1, 0.2]])
    np.testing.assert_allclose(process.read(out, x, t), jnp.exp(out) * score, rtol=1e-5)
    gap = process.simple(x, t, process.target(ATOMS[0], x, t), score)
    assert np.isfinite(gap) and gap > 0


@pytest.mark.slow
@ALL
def test_never_nan(process):
    @jax.jit
    def at(x, t):
        score = process.target(ATOMS[2], x, t)
        loss = lambda out: process.phi(x, t, score, process.read(out, x, t))
        return score, jax.value_and_grad(loss)(jnp.zeros((2, 2)))

    draw = jax.jit(lambda t: oracles.draws(process, KEYS[0], ATOMS[2], t, 50))
    for t in (1e-4, 1.0):
        x = draw(jnp.asarray(t))
        parts = jax.vmap(lambda x, t=t: at(x, jnp.asarray(t)))(x)
        assert all(np.isfinite(part).all() for part in jax.tree.leaves(parts))


def test_bad_input():
    for name, value in (("cap", 0), ("arrival", -1.0), ("death", 0.0), ("mean", 0.0)):
        with pytest.raises(UserError, match=f"config.process.{name}={value} is out of range"):
            counts.birth_death(linear(), (1,), **{"cap": 5, name: value})
    with pytest.raises(UserError, match="config.process.mean is missing"):
        counts.birth_death(linear(), (1,), cap=5, arrival=0.0)
    assert BOTH.space.check(np.asarray([[0, 12]])) == ""
    for x in ([[0, 13]], [[0, -1]], [[0, 0.5]]):
        assert "0..12" in BOTH.space.check(np.asarray(x))
