"""Discrete losses against enumeration: the bound, its tightness, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from gmjax.likelihoods.elbo import discrete_elbo
from gmjax.losses import discrete, times
from gmjax.processes import chains, ctmc, schedules
from gmjax.types import UserError

NAMES = list(tiny.CHAINS)
T_MIN = 1e-3
KEY = jax.random.key(0)


def cases():
    for name in NAMES:
        for kind in ctmc.PARAMETRISATIONS:
            marks = () if name in tiny.QUICK else pytest.mark.slow
            yield pytest.param(name, kind, marks=marks)


def expected(world, term, kind, out, t_min=T_MIN):
    """The expectation of a term, summed over sites, with no random number."""
    read = ctmc.PARAMETRISATIONS[kind](world.ctmc)

    def integrand(x0, x, t):
        free = jnp.ones(x.shape, bool)
        noisy = discrete.Corrupted(x0, x, t, free, jnp.zeros((), bool))
        return jnp.sum(term(world.ctmc, read, noisy, out(x, t)))

    return tiny.expectation(world, integrand, *tiny.quadrature(world.ctmc.schedule, t_min))


def exact_bound(world, kind, out):
    """The mean over the data of the negative bound, in nats."""
    read = ctmc.PARAMETRISATIONS[kind](world.ctmc)

    def last(x0, x, t):
        log_p = read.log_posterior(out(x, t), x, t)
        return -jnp.sum(jnp.take_along_axis(log_p, x0[..., None], -1))

    def prior(x0, x, t):
        rows = world.ctmc.chain.row(x0, world.ctmc.schedule.clock(t))
        gap = jnp.log(jnp.maximum(rows, 1e-30)) - jnp.log(ctmc.base_law(world.ctmc))
        return jnp.sum(jnp.take_along_axis(gap, x[..., None], -1))

    one = jnp.ones(1)
    return (
        expected(world, discrete.entropy_term, kind, out)
        + tiny.expectation(world, last, jnp.full(1, T_MIN), one)
        + tiny.expectation(world, prior, one, one)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name, kind", cases())
def test_bound_is_tight_at_the_exact_ratio(name, kind):
    """On one site, with the true score, the model is the data law: the mean bound is the
    entropy, but for what alpha(1) = 1e-4 leaves in the base law (under 2e-3 nats)."""
    w = tiny.world(name, schedule=schedules.log_linear(1e-4), dims=1)
    out = lambda x, t: w.outputs[kind](x[None], t[None])[0]
    entropy = -np.sum(w.law * np.log(w.law))
    gap = float(jax.jit(lambda: exact_bound(w, kind, out))()) - entropy
    assert -5e-4 < gap < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny.LONG)
def test_bound_holds_on_two_sites_and_for_a_wrong_network(name):
    """The last, factorised step costs what the sites still share at t_min; a network that
    knows nothing of the data costs much more."""
    w = tiny.world(name, schedule=schedules.log_linear(1e-4))
    entropy = -np.sum(w.law * np.log(w.law))
    out = lambda x, t: w.outputs["leave_one_out"](x[None], t[None])[0]
    gap = float(jax.jit(lambda: exact_bound(w, "leave_one_out", out))()) - entropy
    assert -1e-3 < gap < 1e-2
    blind = lambda x, t: jnp.zeros((2, 3)).at[:, 0].set(2.0)
    assert float(jax.jit(lambda: exact_bound(w, "leave_one_out", blind))()) - entropy > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uniform", "absorbing", "rates"])
def test_estimate_of_the_bound_is_unbiased(name):
    """`discrete_elbo` against the enumerated bound, within four standard errors."""
    w = tiny.world(name, schedule=schedules.log_linear(1e-4))
    out = lambda x, t: 0.5 * jnp.sin(jnp.arange(6.0).reshape(2, 3) + jnp.sum(x) + 3 * t)
    truth = float(jax.jit(lambda: exact_bound(w, "leave_one_out", out))())
    sampler = times.uniform_in_noise(w.ctmc.schedule, T_MIN)
    elbo = discrete_elbo(w.ctmc, ctmc.leave_one_out(w.ctmc), sampler, T_MIN, num_times=16)
    n = 20_000
    choice = np.random.default_rng(0).choice(9, size=n, p=w.law.reshape(-1))
    x0 = jnp.asarray(w.values[choice], jnp.int32)
    predict = lambda x, t, cond: jax.vmap(out)(x, t)
    nats = 2 * np.asarray(jax.jit(lambda k: elbo(predict, k, x0, None)["nats"])(jax.random.key(0)))
    error = nats.std() / np.sqrt(n)
    assert abs(nats.mean() - truth) < 4 * error
    assert error < 0.02 * truth


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_true_ratio_minimises_the_score_entropy(name):
    """Explicit and denoising losses share their minimum: the gradient of the denoising loss
    vanishes at the true marginal ratio, and nowhere near it."""
    w = tiny.world(name, schedule=schedules.linear(0.5, 2.0))

    def value(shift, t_min=0.1):
        def out(x, t):
            truth = w.outputs["leave_one_out"](x[None], t[None])[0]
            return jnp.maximum(truth, -20) + shift[x[0], x[1]]

        return expected(w, discrete.entropy_term, "leave_one_out", out, t_min)

    k = w.ctmc.chain.num_states
    grad = jax.jit(jax.grad(value))
    zero = jnp.zeros((k, k, 2, 3))
    away = grad(0.3 * jax.random.normal(jax.random.key(0), zero.shape))
    assert float(jnp.abs(grad(zero)).max()) < 0.02 * float(jnp.abs(away).max())


@pytest.mark.slow
def test_masked_bound_is_the_score_entropy_of_the_absorbing_chain():
    """The same gradient in the logits, in expectation."""
    w = tiny.world("absorbing")
    table = 0.5 * jax.random.normal(jax.random.key(9), (4, 4, 2, 3))

    def grad(term):
        value = lambda table: expected(
            w, term, "leave_one_out", lambda x, t: table[x[0], x[1]], 0.05
        )
        return jax.jit(jax.grad(value))(table)

    a, b = grad(discrete.entropy_term), grad(discrete.masked_term)
    np.testing.assert_allclose(a, b, atol=1e-4 * float(jnp.abs(b).max()))


@pytest.mark.slow
def test_averaging_over_the_jump_is_exact():
    """E[Z(x) log R(y, x)] over x ~ q_t and a jump y equals the analytic average, by
    enumeration of every (x, y) for a chain whose exit rates differ."""
    w = tiny.world("rates")
    chain = w.ctmc.chain
    x0, t = jnp.asarray([0, 2]), 0.6
    read = ctmc.log_ratio(w.ctmc)
    k = chain.num_states
    log_s = jax.random.normal(jax.random.key(1), (k, k, 2, k))
    rows = np.asarray(chain.row(x0, w.ctmc.schedule.clock(t)))
    beta = float(w.ctmc.schedule.rate(t))
    out = np.asarray(chain.rates_out(jnp.arange(k)))
    direct = analytic = 0.0
    for a in range(k):
        for b in range(k):
            x = np.array([a, b])
            q = rows[0, a] * rows[1, b]
            z = out[a].sum() + out[b].sum()
            for d in range(2):
                for y_d in range(k):
                    if y_d == x[d]:
                        continue
                    y = x.copy()
                    y[d] = y_d
                    s = log_s[y[0], y[1]]
                    log_r0 = ctmc.conditional_log_ratio(w.ctmc, x0, jnp.asarray(y), t)
                    # log R(y, x) relative to log R0(y, x), as the term counts it.
                    gap = float(log_r0[d, x[d]] - (s[d, x[d]] - s[d, y[d]]))
                    direct += q * beta * out[x[d], y_d] * gap
                    free = jnp.ones(2, bool)
                    args = (jnp.asarray(x0), jnp.asarray(y), jnp.asarray(t), free)
                    on = discrete.jump_term(w.ctmc, read, discrete.Corrupted(*args, True), s)
                    off = discrete.jump_term(w.ctmc, read, discrete.Corrupted(*args, False), s)
                    chance = out[x[d], y_d] / z
                    analytic += q * chance * float(jnp.sum(on - off))
    np.testing.assert_allclose(analytic, direct, rtol=1e-4)


def test_score_entropy_is_zero_only_at_the_conditional_ratio():
    """With one possible x0 the conditional ratio is the truth, and the integrand vanishes."""
    w = tiny.world("gaussian")
    x0, x, t = jnp.asarray([0, 2]), jnp.asarray([1, 1]), jnp.asarray(0.5)
    read = ctmc.log_ratio(w.ctmc)
    truth = ctmc.conditional_log_ratio(w.ctmc, x0, x, t)
    noisy = discrete.Corrupted(x0, x, t, jnp.ones(2, bool), False)
    zero = discrete.entropy_term(w.ctmc, read, noisy, truth)
    np.testing.assert_allclose(zero, 0, atol=1e-5)
    other = discrete.entropy_term(w.ctmc, read, noisy, truth.at[0, 0].add(0.3))
    assert other[0] > 1e-3 and abs(other[1]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_observed_sites_stay_clean_and_do_not_count(name):
    w = tiny.world(name)
    seen = {}

    def predict(x, t, cond):
        seen["x"] = x
        return jnp.zeros((*x.shape, w.ctmc.chain.num_values))

    x0 = jnp.asarray(np.random.default_rng(0).integers(0, 3, size=(64, 2)))
    observed = jnp.zeros((64, 2), bool).at[:, 0].set(True)
    for terms in ({"score_entropy": 1.0}, {"ct_elbo": 1.0}):
        loss = discrete.denoising(
            w.ctmc, ctmc.leave_one_out(w.ctmc), terms, times.uniform_in_t(0.1)
        )
        value, _ = loss(predict, jax.random.key(0), x0, {"observed": observed})
        np.testing.assert_array_equal(seen["x"][:, 0], x0[:, 0])
        assert np.any(np.asarray(seen["x"][:, 1] != x0[:, 1]))
        assert np.all(np.isfinite(value))


@pytest.mark.slow
@pytest.mark.parametrize("name, kind", cases())
def test_gradients_are_finite_at_extreme_logits(name, kind):
    w = tiny.world(name)
    read = ctmc.PARAMETRISATIONS[kind](w.ctmc)
    terms = {"score_entropy": 1.0, "cross_entropy": 1.0}
    loss = discrete.denoising(w.ctmc, read, terms, times.uniform_in_t(1e-3))
    x0 = jnp.asarray(np.random.default_rng(0).integers(0, 3, size=(64, 2)))
    width = w.ctmc.chain.num_states if kind == "ratio" else w.ctmc.chain.num_values
    scale = 5.0 if kind == "ratio" else 60.0
    out = scale * jax.random.normal(jax.random.key(0), (64, 2, width))
    grad = jax.grad(lambda o: jnp.mean(loss(lambda x, t, c: o, jax.random.key(1), x0, None)[0]))
    assert np.all(np.isfinite(grad(out)))


def test_wrong_terms_are_named():
    w = tiny.world("uniform")
    read = ctmc.leave_one_out(w.ctmc)
    sampler = times.uniform_in_t(0.1)
    for terms in ({"mse": 1.0}, {"masked_elbo": 1.0}, {"ct_elbo": 1.0, "score_entropy": 1.0}):
        with pytest.raises(UserError, match="config.loss.terms"):
            discrete.denoising(w.ctmc, read, terms, sampler)


@pytest.mark.parametrize("kind", list(ctmc.PARAMETRISATIONS))
def test_short_cut_of_a_flat_chain_changes_nothing(kind):
    """Value and gradient of the entropy and of the jump term, with and without it."""
    w = tiny.world("uniform")
    slow = w.ctmc._replace(chain=w.ctmc.chain._replace(flat=False))
    assert w.ctmc.chain.flat
    x0, x = jnp.asarray([[0, 1]]), jnp.asarray([[0, 2]])
    out = jax.random.normal(jax.random.key(2), (1, 2, w.ctmc.chain.num_states))

    def value(out, noise, term):
        read = ctmc.PARAMETRISATIONS[kind](noise)
        c = discrete.Corrupted(x0[0], x[0], jnp.float32(0.3), jnp.ones(2, bool), jnp.asarray(True))
        return jnp.sum(term(noise, read, c, out[0]))

    for term in (discrete.entropy_term, discrete.jump_term):
        both = [jax.value_and_grad(value)(out, noise, term) for noise in (w.ctmc, slow)]
        np.testing.assert_allclose(both[0][0], both[1][0], rtol=1e-5)
        np.testing.assert_allclose(both[0][1], both[1][1], rtol=1e-4, atol=1e-5)


# -- dense chains: every pair of a start and a state, in single precision against double ----------

DENSE = {
    "birth_death": (lambda: chains.birth_death(6), 0.01),
    "birth_death, early": (lambda: chains.birth_death(9), 1e-3),
    "gaussian": (lambda: chains.gaussian(9, 4.0, 2.0), 1e-3),
    "gaussian, late": (lambda: chains.gaussian(9, 4.0, 2.0), 0.9),
    "rates": (lambda: chains.rates(tiny.CYCLE), 1e-3),
}


def pairs(chain, t, kind, dtype):
    """Values of the bound's integrand and their gradient in the output, of every (x0, x).

    Returns:
        q(x | x0) and value [S, S], gradient [S, S, S], and the sum of the terms' sizes [S, S].
    """
    s = chain.num_states
    noise = ctmc.CTMC(chain, schedules.log_linear(1e-3))
    read = ctmc.PARAMETRISATIONS[kind](noise)
    logits = jnp.asarray(np.random.default_rng(0).normal(size=s), dtype)
    t = jnp.asarray(t, dtype)

    def value(out, x0, x):
        flags = jnp.ones(1, bool), jnp.zeros((), bool)
        noisy = discrete.Corrupted(x0[None], x[None], t, *flags)
        return discrete.entropy_term(noise, read, noisy, out[None])[0]

    def size(out, x0, x):
        log_s = read.log_ratio(out[None], x[None], t)[0]
        log_r = ctmc.conditional_log_ratio(noise, x0[None], x[None], t)[0]
        r = jnp.exp(log_r)
        known = jnp.where(r > 0, r * abs(log_r - log_s), 0)
        return noise.schedule.rate(t) * jnp.sum(chain.rates_in(x) * (jnp.exp(log_s) + r + known))

    grid = lambda f: jax.vmap(lambda x0: jax.vmap(lambda x: f(logits, x0, x))(jnp.arange(s)))
    values, slopes = jax.jit(grid(jax.value_and_grad(value)))(jnp.arange(s))
    states = jnp.arange(s)
    q = chain.row(states, noise.schedule.clock(t))
    return [np.asarray(a) for a in (q, values, slopes, jax.jit(grid(size))(states))]


@pytest.mark.parametrize("kind", ["posterior", "leave_one_out"])
@pytest.mark.parametrize(
    "name", [n if n == "birth_death" else pytest.param(n, marks=pytest.mark.slow) for n in DENSE]
)
def test_a_dense_chain_has_no_pair_that_is_off(name, kind):
    """All that a key can draw, whatever the key: no value is an outlier, and each is right."""
    make, t = DENSE[name]
    q, value, slope, _ = pairs(make(), t, kind, jnp.float32)
    with jax.enable_x64(True):
        q_exact, exact, exact_slope, size = pairs(make(), np.float32(t), kind, jnp.float64)
    drawn = q >= chains.RARE
    np.testing.assert_allclose(q[drawn], q_exact[drawn], rtol=1e-5)
    assert np.all(np.isfinite(value[drawn])) and np.all(np.isfinite(slope[drawn]))
    np.testing.assert_array_less(np.abs(value - exact)[drawn], 1e-5 * size[drawn])
    np.testing.assert_array_less(np.abs(slope - exact_slope).max(-1)[drawn], 1e-5 * size[drawn])
    # What is not drawn would not have mattered.
    assert np.nansum(np.where(drawn, 0, q_exact * np.abs(exact))) < 1e-5 * np.sum(q_exact * exact)


@pytest.mark.slow
def test_the_bound_of_uniform_sites_is_that_of_double_precision():
    """The sum over pairs at each time, for data uniform on 32 values that are not predicted."""
    for dtype in (jnp.float32, jnp.float64):
        with jax.enable_x64(dtype == jnp.float64):
            q, value, *_ = pairs(chains.birth_death(32), 2e-3, "leave_one_out", dtype)
            total = np.mean(np.sum(np.where(q >= chains.RARE, q * value, 0), 1))
            assert value[q >= chains.RARE].max() < 1e6
        if dtype == jnp.float32:
            single = total
    np.testing.assert_allclose(single, total, rtol=1e-5)


@pytest.mark.parametrize("make", [chains.uniform, chains.birth_death])
def test_ratios_beyond_single_precision_stay_finite(make):
    """A clock of 300 and log ratios a thousand apart, in every reading of the output."""
    noise = ctmc.CTMC(make(5), schedules.geometric(3.0, 100.0))
    read = ctmc.log_ratio(noise)
    out, x = 1e3 * jax.random.normal(KEY, (7, 5)), jnp.arange(7) % 5
    loss = discrete.denoising(
        noise, read, {"score_entropy": 1.0, "cross_entropy": 0.5}, times.uniform_in_t(1e-3)
    )

    @jax.jit
    def run(out, t):
        read_all = [f(out, x, t) for f in (read.log_posterior, read.log_ratio, read.ratio)]
        whole = lambda out: loss(lambda *a: out[None], KEY, x[None], None)[0].sum()
        return read_all, read.law(out, x, t, t / 2), jax.value_and_grad(whole)(out)

    for t in (0.01, 0.6, 1.0):
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(run(out, jnp.asarray(t))))
