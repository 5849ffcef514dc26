"""Linear diffusions: their kernels solve the moment equations of their own generators."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from gmjax import generators
from gmjax.processes import gaussian
from gmjax.processes.langevin import langevin
from gmjax.processes.schedules import constant, linear
from gmjax.spaces import calculus
from gmjax.spaces.euclidean import euclidean
from gmjax.types import UserError

KEY = jax.random.key(3)
MATRIX = np.array([[1.5, 0.4], [0.4, 0.6]])
CASES = {
    "vp": lambda s: gaussian.vp(s, (2,)),
    "ve": lambda s: gaussian.ve(s, (2,), data_variance=0.5),
    "sub_vp": lambda s: gaussian.sub_vp(s, (2,)),
    "speeds": lambda s: gaussian.multi_speed(s, (2,), [0.5, 2.0]),
    "matrix": lambda s: gaussian.multi_speed(s, (2,), MATRIX),
    "langevin": lambda s: langevin(s, (2,), mass=0.4),
}
START = np.array([0.7, -1.1])
ATOMS = jnp.asarray([[-1.0, 0.2], [0.6, 0.5], [0.3, -0.8]])
WEIGHTS = jnp.asarray([0.2, 0.5, 0.3])


def cases(*names):
    """These in every run, the others in the slow tier."""
    mark = lambda n: n if n in names else pytest.param(n, marks=pytest.mark.slow)
    return pytest.mark.parametrize("name", [mark(n) for n in CASES])


# `speeds` differs from `matrix` by a turn, which has its own test.
each = cases("vp", "ve", "sub_vp", "matrix", "langevin")
rooted = cases("matrix", "langevin")  # those with steps of their own
degenerate = cases("langevin")


def statistic(x):
    return jnp.sin(x[0] + 0.3) * x[1] + 0.3 * x[0] ** 2


def moments(process, x0, t):
    """The mean and covariance of a Gaussian kernel, from its log density."""
    log_q = lambda x: process.log_prob(x, x0, t)
    precision = -jax.hessian(log_q)(x0)
    covariance = jnp.linalg.inv(precision)
    return x0 + covariance @ jax.grad(log_q)(x0), covariance


@pytest.mark.slow
@each
def test_kernel_solves_the_moment_equations(name):
    # dm/dt = b(m), dC/dt = J C + C J^T + A, with b and A as the generator has them.
    with jax.enable_x64():
        process = CASES[name](linear(0.2, 4.0))
        x0, coordinate = jnp.asarray(START), [lambda y: y[0], lambda y: y[1]]

        def drift(x, t):
            return jnp.stack([process.generator.apply(f, x, t) for f in coordinate])

        @jax.jit
        def sides(t):
            now, rate = jax.jvp(lambda t: moments(process, x0, t), (t,), (jnp.ones(()),))
            m, c = now
            j = jax.jacfwd(drift)(m, t)
            square = lambda f, g: 2 * generators.carre_du_champ(process.generator, f, g, m, t)
            a = jnp.stack([jnp.stack([square(f, g) for f in coordinate]) for g in coordinate])
            return rate, (drift(m, t), j @ c + c @ j.T + a)

        for t in (0.02, 0.3, 1.0):
            for got, expected in zip(*sides(jnp.asarray(t)), strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-9)
        mean, covariance = moments(process, x0, jnp.asarray(1e-3))
        np.testing.assert_allclose(mean, x0, atol=1e-3)
        assert jnp.abs(covariance).max() < 1e-3
        # The density is normalised.
        t = jnp.asarray(0.3)
        mean, covariance = moments(process, x0, t)
        top = -0.5 * np.linalg.slogdet(2 * np.pi * np.asarray(covariance))[1]
        np.testing.assert_allclose(process.log_prob(mean, x0, t), top, rtol=1e-9)


@each
def test_target_is_the_gradient_of_the_density(name):
    process = CASES[name](linear(0.2, 4.0))

    @jax.jit
    @jax.vmap
    def both(key, t):
        x0 = jnp.asarray(START, jnp.float32)
        x = process.sample(key, x0, t)
        return process.target(x0, x, t), jax.grad(process.log_prob)(x, x0, t)

    target, gradient = both(jax.random.split(KEY, 16), jnp.linspace(0.01, 1, 16))
    np.testing.assert_allclose(target, gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@each
def test_draws_have_the_density(name):
    # Five means at two times for six processes: |z| < 4.5 fails at 4e-4 in all.
    process = CASES[name](constant(3.0))
    x0, n = jnp.asarray(START, jnp.float32), 50_000

    @jax.jit
    def whitened(t):
        mean, covariance = moments(process, x0, t)
        x = oracles.draws(process, KEY, x0, t, n)
        return jnp.linalg.solve(jnp.linalg.cholesky(covariance), (x - mean).T)

    for t in (0.05, 0.7):
        a, b = whitened(jnp.asarray(t))
        for sample in (a, b, a * b, a**2 - 1, b**2 - 1):
            assert abs(oracles.z(sample)) < oracles.Z


@rooted
def test_steps_follow_the_generator(name):
    process = CASES[name](linear(0.2, 4.0))
    x, t = jnp.asarray([0.4, -0.7]), jnp.asarray(0.3)
    z = oracles.weak_step(process.generator, statistic, x, t, KEY, n=50_000)
    assert abs(z) < oracles.Z


@rooted
def test_the_reversal_lands_on_the_data(name):
    process = CASES[name](constant(3.0))
    times = jnp.linspace(1.0, 0.2, 101)
    value = oracles.reversal(process, statistic, ATOMS, WEIGHTS, KEY, times, n=10_000)
    assert abs(value) < oracles.Z


@pytest.mark.slow
@degenerate
def test_losses_share_their_gradients(name):
    process = CASES[name](constant(3.0))
    axis = jnp.linspace(-9, 9, 73)
    nodes = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    volume = jnp.full(len(nodes), (axis[1] - axis[0]) ** 2)

    def log_beta(p, x, t):
        return jnp.sin(p[0] * x[0] + p[1] * x[1]) - 0.3 * jnp.sum(x**2)

    got = oracles.gradients(
        process, log_beta, jnp.asarray([0.8, -0.5]), ATOMS, WEIGHTS, nodes, volume, jnp.asarray(0.5)
    )
    assert float(jnp.abs(got[0]).max()) > 1e-2
    np.testing.assert_allclose(got[1], got[0], atol=2e-4)
    np.testing.assert_allclose(got[2], got[0], atol=2e-4)


@pytest.mark.slow
@degenerate
def test_bound_is_tight_at_the_exact_score(name):
    process = CASES[name](constant(14.0))
    if name == "ve":  # its base is the law at t = 1 for normal data only
        at_one = lambda x: oracles.log_marginal(process, ATOMS, WEIGHTS)(x, jnp.ones(()))
        process = process._replace(base=process.base._replace(log_prob=at_one))
    [(value, _)] = oracles.bound(process, ATOMS, WEIGHTS, KEY, n=20_000)
    assert abs(value) < oracles.Z


@rooted
def test_flow_and_reversal_agree_with_the_kernel(name):
    # d/dt log q = -div v - v . score, and the fast reversal is the one by definition.
    with jax.enable_x64():
        process = CASES[name](linear(0.2, 4.0))
        x0, x, t = jnp.asarray(START), jnp.asarray([0.1, 0.4]), jnp.asarray(0.4)
        log_q = lambda x, t: process.log_prob(x, x0, t)
        score = lambda x, t: process.target(x0, x, t)
        back = process.reverse(score)

        @jax.jit
        def sides(x, t):
            v = process.velocity(score)
            rise = jax.grad(log_q, 1)(x, t)
            fall = jnp.trace(jax.jacobian(v)(x, t)) + jnp.dot(v(x, t), score(x, t))
            by_definition = generators.reverse(process.generator, log_q)
            one = lambda k: back.step(k, x, t, jnp.asarray(1e-4))
            drift = jnp.stack([back.apply(lambda y, i=i: y[i], x, t) for i in range(2)])
            return (
                (rise, -fall),
                (back.apply(statistic, x, t), by_definition.apply(statistic, x, t)),
                (jax.vmap(one)(jax.random.split(KEY, 4000)) - x) / 1e-4 - drift,
            )

        rises, actions, extra = sides(x, t)
        np.testing.assert_allclose(*rises, rtol=1e-9)
        np.testing.assert_allclose(*actions, rtol=1e-9)
        # The fast step has the drift of the generator; a position's is free of noise.
        for moves in extra.T:
            noisy = float(jnp.std(moves)) > 1e-6
            assert abs(oracles.z(moves)) < oracles.Z if noisy else jnp.abs(moves).max() < 1e-6


@each
def test_phi_is_the_generators(name):
    with jax.enable_x64():
        process = CASES[name](linear(0.2, 4.0))
        x, t = jnp.asarray([0.1, 0.4]), jnp.asarray(0.4)
        expected = generators.phi(process.generator, statistic, x, t)
        got = process.phi(x, t, jax.grad(statistic)(x), jnp.zeros(2))
        np.testing.assert_allclose(got, expected, rtol=1e-9)


@rooted
def test_losses_and_scores_are_of_order_one(name):
    process = CASES[name](constant(5.0))
    x0 = jnp.asarray(START, jnp.float32)

    @jax.jit
    @jax.vmap
    def sizes(t):
        def one(key):
            x = process.sample(key, x0, t)
            target = process.target(x0, x, t)
            out = jnp.asarray([0.3, -1.2])
            unit = process.simple(x, t, process.read(out, x, t), jnp.zeros(2))
            return process.simple(x, t, target, jnp.zeros(2)), unit

        loss, unit = jax.vmap(one)(jax.random.split(KEY, 20_000))
        return jnp.mean(loss), jnp.mean(unit)

    losses, units = sizes(jnp.asarray([1e-3, 0.1, 1.0]))
    # A mean of squares of standard normals: standard error at most sqrt(2 / 20000) = 0.01.
    np.testing.assert_allclose(losses, 1, atol=0.045)
    expected = 1.2**2 if name == "langevin" else (0.3**2 + 1.2**2) / 2
    np.testing.assert_allclose(units, expected, rtol=1e-4)


@each
def test_base_is_the_limit(name):
    process = CASES[name](constant(40.0))
    x0, x, one = jnp.zeros(2), jnp.asarray([0.6, -1.3]), jnp.ones(())
    if name == "ve":
        q = -0.5 * (x @ x) / 40.5 - math.log(2 * math.pi * 40.5)
    else:
        q = process.log_prob(x, x0, one)
    np.testing.assert_allclose(process.base.log_prob(x), q, rtol=1e-4)
    draws = jax.vmap(process.base.sample)(jax.random.split(KEY, 50_000))
    log_p = jax.vmap(process.base.log_prob)(draws)
    # E -log p is the entropy, log(2 pi e) plus half the log determinant.
    peak = float(process.base.log_prob(jnp.zeros(2)))
    assert abs(oracles.z(log_p - (peak - 1))) < oracles.Z


@each
def test_nothing_is_lost_at_the_start(name):
    process = CASES[name](linear(0.1, 10.0))
    x0 = jnp.asarray(START, jnp.float32)

    def values(t):
        x = process.sample(KEY, x0, t)
        score = process.target(x0, x0, t)
        slopes = jax.grad(process.log_prob, (0, 1, 2))(x0, x0, t)
        losses = process.simple(x, t, process.target(x0, x, t), process.read(x, x, t))
        return x, score, slopes, losses, process.log_prob(x0, x0, t)

    for t in (0.0, 1e-12, 1e-5):
        for value in jax.tree.leaves(jax.jit(values)(jnp.asarray(t))):
            assert not np.isnan(value).any()
    np.testing.assert_allclose(process.sample(KEY, x0, jnp.zeros(())), x0, atol=1e-5)


def test_float64_is_kept_and_float32_too():
    with jax.enable_x64():
        for make in CASES.values():
            process = make(constant(2.0))
            for kind in (jnp.float32, jnp.float64):
                x, t = jnp.ones(2, kind), jnp.asarray(0.3, kind)

                def values(x, t, process=process):
                    drift = process.velocity(lambda x, t: -x)(x, t)
                    score = process.target(x, x, t)
                    sizes = process.log_prob(x, x, t), process.phi(x, t, x, score)
                    return process.sample(KEY, x, t), score, drift, process.read(x, x, t), sizes

                for value in jax.tree.leaves(jax.eval_shape(values, x, t)):
                    assert value.dtype == kind


def largest(f, *args):
    """The number of entries of the largest array in the trace of f."""

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            yield from (math.prod(v.aval.shape) for v in equation.outvars)
            for value in equation.params.values():
                for inner in value if isinstance(value, tuple | list) else (value,):
                    inner = getattr(inner, "jaxpr", inner)
                    if hasattr(inner, "eqns"):
                        yield from walk(inner)

    return max(walk(jax.make_jaxpr(f)(*args).jaxpr))


@pytest.mark.parametrize(
    "make",
    [
        gaussian.vp,
        gaussian.ve,
        gaussian.sub_vp,
        lambda s, shape: gaussian.multi_speed(s, shape, np.linspace(1, 2, shape[1])),
        langevin,
    ],
)
def test_no_matrix_in_high_dimension(make):
    d = 500
    process = make(constant(2.0), (2, d))
    x, t, dt = jnp.ones((2, d)), jnp.asarray(0.5), jnp.asarray(0.1)
    score = lambda x, t: -x
    back = process.reverse(score)
    assert largest(lambda x: back.step(KEY, x, t, dt), x) <= 4 * d
    assert largest(lambda x: process.generator.step(KEY, x, t, dt), x) <= 4 * d
    assert largest(lambda x: process.velocity(score)(x, t), x) <= 4 * d
    assert largest(lambda x: process.phi(x, t, x, -x), x) <= 4 * d
    assert largest(lambda x: process.sample(KEY, x, t), x) <= 4 * d


def test_noise_that_depends_on_the_state_is_noticed():
    x, t = jnp.asarray([0.4, -0.7]), jnp.asarray(0.3)
    inside = jax.jit(jax.vmap(lambda t: jnp.asarray(calculus.ignores(lambda y: 2 * t, x))))
    assert inside(t[None]).all()
    assert not calculus.ignores(lambda y: jnp.sum(y) * t, x)
    assert not calculus.ignores(lambda y: y, x)
    s = jnp.asarray([0.2, 0.5])
    turning = lambda x, t: 1 + t * jnp.sum(x**2)
    got = generators.covariant(euclidean(2), turning, x, t, s)
    g = turning(x, t)
    np.testing.assert_allclose(got, g**2 * s + 4 * g * t * x, rtol=1e-6)
    got = generators.covariant(euclidean(2), lambda x, t: 2 + t, x, t, s)
    np.testing.assert_allclose(got, (2 + t) ** 2 * s, rtol=1e-6)
    still = jnp.asarray([[1.0, 0.5], [0.0, 2.0], [0.3, 0.1]])
    got = generators.covariant(euclidean(2), lambda x, t: t * still, x, t, s)
    np.testing.assert_allclose(got, t**2 * still.T @ still @ s, rtol=1e-6)


def test_speeds_of_a_matrix_turn_with_it():
    # In the eigenvectors of M the process is VP at the speeds of its eigenvalues.
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    w = np.array([0.3, 0.8, 1.5, 2.2])
    s, t = constant(2.0), jnp.asarray(0.4)
    x0, x = jnp.asarray(rng.normal(size=(2, 2, 2)), jnp.float32)
    full = gaussian.multi_speed(s, (2, 2), u @ np.diag(w) @ u.T)
    plain = gaussian.multi_speed(s, (4,), w)
    turn = lambda x: jnp.asarray(u.T, x.dtype) @ x.reshape(-1)
    np.testing.assert_allclose(
        full.log_prob(x, x0, t), plain.log_prob(turn(x), turn(x0), t), rtol=1e-5
    )
    np.testing.assert_allclose(
        turn(full.target(x0, x, t)), plain.target(turn(x0), turn(x), t), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        turn(full.read(x0, x, t)), plain.read(turn(x0), turn(x), t), rtol=1e-4, atol=1e-5
    )


def test_one_speed_is_vp():
    s, t = constant(2.0), jnp.asarray(0.4)
    one, other = gaussian.multi_speed(s, (3,)), gaussian.vp(s, (3,))
    x0, x = jnp.asarray([[0.1, 0.2, -0.5], [1.0, 0.3, 0.7]])
    np.testing.assert_allclose(one.target(x0, x, t), other.target(x0, x, t), rtol=1e-5)
    np.testing.assert_allclose(one.log_prob(x, x0, t), other.log_prob(x, x0, t), rtol=1e-5)
    np.testing.assert_allclose(one.read(x0, x, t), other.read(x0, x, t), rtol=1e-5)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda s: gaussian.multi_speed(s, (2,), [1.0, -1.0]), "speeds.*positive"),
        (lambda s: gaussian.multi_speed(s, (2,), [1.0, 1.0, 1.0]), r"speeds.*\(3,\).*\(2, 2\)"),
        (lambda s: gaussian.multi_speed(s, (2,), [[1, 2], [2, 1]]), "speeds.*definite"),
        (lambda s: gaussian.multi_speed(s, (2,), [[1, 0.5], [0, 1]]), "symmetric"),
        (lambda s: gaussian.ve(s, (2,), data_variance=-1), "data_variance"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make(constant())
