"""What every noising process must satisfy, as functions that return numbers to compare.

A statistical oracle returns z, the difference of two unbiased means over its standard error:
|z| < 4.5 fails a correct program with probability 7e-6. A deterministic one returns the two
sides. Data laws are mixtures of atoms, because the marginals and scores of an atom's process
are its kernel's: sums over atoms give the exact marginal, score and posterior of any process.

    weak_step       (E f(step(x)) - f(x)) / dt -> L f(x)
    kolmogorov      E f(X_b) - E f(X_a) = int_a^b E L f(X_s) ds
    adjointness     <L f, g> = <f, L* g>
    composition     X_{s+t} given X_s, for a constant schedule
    limit           E f(X_1) = E f(base)
    reversal        the reverse process lands on the data law
    gradients       implicit, explicit and denoising losses have one gradient
    bound           the ELBO at the exact score is the entropy; at another it is more
"""

import jax
import jax.numpy as jnp

from gmjax import generators
from gmjax.losses import generalised
from gmjax.losses.times import uniform_in_t

Z = 4.5


def z(*differences):
    """The z-score of a mean difference that should vanish: independent samples [N] each.

    With several arguments the difference of the first mean from the sum of the others'.
    """
    mean = jnp.mean(differences[0]) - sum(jnp.mean(d) for d in differences[1:])
    variance = sum(jnp.var(d) / d.size for d in differences)
    return float(mean / jnp.sqrt(variance + 1e-30))


def draws(process, key, x0, t, n):
    """n draws of the kernel from one x0: [n, *S]."""
    return jax.vmap(lambda k: process.sample(k, x0, t))(jax.random.split(key, n))


def weak_step(generator, f, x, t, key, dt=0.02, n=200_000):
    """z of the generator against one and two half steps, extrapolated to second order."""

    @jax.jit
    def estimates(key):
        def one(k):
            a, b, c = jax.random.split(k, 3)
            whole = generator.step(a, x, t, dt)
            half = generator.step(b, x, t, dt / 2)
            # Two estimates of L f with errors c dt and c dt / 2 cancel to second order.
            return (f(whole) - f(x)) / dt, 2 * (f(half) - f(x)) / (dt / 2)

        return jax.vmap(one)(jax.random.split(key, n))

    whole, half = estimates(key)
    return z(half, whole, jnp.full(1, generator.apply(f, x, t)))


def kolmogorov(process, f, x0, key, start=0.1, end=0.6, n=100_000):
    """z of E f(X_b) - E f(X_a) against the integral of E L f(X_s)."""

    @jax.jit
    def sides(key):
        a, b, c, d = jax.random.split(key, 4)
        rise = jax.vmap(f)(draws(process, a, x0, jnp.asarray(end), n))
        base = jax.vmap(f)(draws(process, b, x0, jnp.asarray(start), n))
        s = start + (end - start) * jax.random.uniform(c, (n,))

        def rate(k, s):
            return process.generator.apply(f, process.sample(k, x0, s), s)

        return rise, base, (end - start) * jax.vmap(rate)(jax.random.split(d, n), s)

    return z(*sides(key))


def adjointness(generator, f, g, nodes, weights, t):
    """<L f, g> and <f, L* g> by a quadrature of the reference measure: nodes [N, *S]."""
    left = jax.vmap(lambda x: g(x) * generator.apply(f, x, t))(nodes)
    right = jax.vmap(lambda x: f(x) * generators.adjoint(generator, g, x, t))(nodes)
    return jnp.sum(weights * left), jnp.sum(weights * right)


def composition(process, f, x0, key, s=0.2, t=0.3, n=100_000):
    """z of the kernel at s + t against the kernel at t after that at s; constant schedule."""

    @jax.jit
    def sides(key):
        a, b, c = jax.random.split(key, 3)
        middle = draws(process, a, x0, jnp.asarray(s), n)
        move = jax.vmap(lambda k, x: process.sample(k, x, jnp.asarray(t)))
        two = move(jax.random.split(b, n), middle)
        one = draws(process, c, x0, jnp.asarray(s + t), n)
        return jax.vmap(f)(one), jax.vmap(f)(two)

    return z(*sides(key))


def limit(process, f, x0, key, n=100_000):
    """z of the law at t = 1 against the base law."""

    @jax.jit
    def sides(key):
        a, b = jax.random.split(key)
        last = draws(process, a, x0, jnp.ones(()), n)
        base = jax.vmap(process.base.sample)(jax.random.split(b, n))
        return jax.vmap(f)(last), jax.vmap(f)(base)

    return z(*sides(key))


def log_marginal(process, atoms, weights):
    """(x, t) -> log sum_i w_i q_t(x | a_i), the marginal of data at atoms [A, *S]."""

    def log_q(x, t):
        each = jax.vmap(lambda a: process.log_prob(x, a, t))(atoms)
        return jax.scipy.special.logsumexp(each, b=weights)

    return log_q


def exact_score(process, atoms, weights):
    """(x, t) -> the marginal's generalised score, the posterior mean of the kernel's."""

    def score(x, t):
        each = jax.vmap(lambda a: process.log_prob(x, a, t))(atoms)
        posterior = jax.nn.softmax(each + jnp.log(weights))
        targets = jax.vmap(lambda a: process.target(a, x, t))(atoms)
        return jax.tree.map(lambda s: jnp.tensordot(posterior, s, 1), targets)

    return score


def mixture(process, key, atoms, weights, t, n):
    """n draws of the marginal at t."""
    a, b = jax.random.split(key)
    i = jax.random.choice(a, len(weights), (n,), p=weights)
    x0 = jax.tree.map(lambda v: v[i], atoms)
    return jax.vmap(lambda k, x: process.sample(k, x, t))(jax.random.split(b, n), x0)


def reversal(process, f, atoms, weights, key, times, n=20_000):
    """z of f after the exact reverse process against f under the marginal at its end."""

    @jax.jit
    def sides(key):
        a, b, c = jax.random.split(key, 3)
        start = mixture(process, a, atoms, weights, times[0], n)
        back = process.reverse(exact_score(process, atoms, weights))
        run = lambda k, x: generators.simulate(back, k, x, times)
        end = jax.vmap(run)(jax.random.split(b, n), start)
        truth = mixture(process, c, atoms, weights, times[-1], n)
        return jax.vmap(f)(end), jax.vmap(f)(truth)

    return z(*sides(key))


def gradients(process, log_beta, params, atoms, weights, nodes, volume, t):
    """The gradients in params of the three losses at one time, by quadrature.

    Args:
        log_beta: (params, x, t) -> [].
        nodes, volume: a quadrature of the reference measure.

    Returns:
        implicit, explicit, denoising: trees like params.
    """
    generator, log_q = process.generator, log_marginal(process, atoms, weights)

    def implicit(p):
        beta = lambda x, t: log_beta(p, x, t)
        each = jax.vmap(lambda x: generalised.implicit(generator, beta, x, t))(nodes)
        return jnp.sum(volume * jnp.exp(jax.vmap(lambda x: log_q(x, t))(nodes)) * each)

    def explicit(p):
        beta = lambda x, t: log_beta(p, x, t)
        each = jax.vmap(lambda x: generalised.explicit(generator, beta, log_q, x, t))(nodes)
        return jnp.sum(volume * jnp.exp(jax.vmap(lambda x: log_q(x, t))(nodes)) * each)

    def denoising(p):
        beta = lambda x, t: log_beta(p, x, t)

        def at(a, x):
            value = generalised.denoising(generator, beta, process.log_prob, x, a, t)
            return jnp.exp(process.log_prob(x, a, t)) * value

        each = jax.vmap(lambda a: jnp.sum(volume * jax.vmap(lambda x: at(a, x))(nodes)))(atoms)
        return jnp.sum(weights * each)

    return tuple(jax.jit(jax.grad(loss))(params) for loss in (implicit, explicit, denoising))


def bound(process, atoms, weights, key, tilt=None, t_min=0.1, n=100_000):
    """z of the ELBO at the exact marginals against -E log q_s(X_s), and the gap of the means.

    Args:
        tilt: (x, t) -> [], added to the exact log density: a wrong model, whose gap must be
            positive. One program serves both.

    Returns:
        [(z, gap)] at the exact marginals, and with a tilt at the tilted ones.

    The base law must be the law at t = 1, else the prior term adds KL(q_1 || base).
    """
    log_q = log_marginal(process, atoms, weights)
    tilts = [0.0, 1.0] if tilt else [0.0]
    elbo = generalised.elbo(process, uniform_in_t(t_min), t_min)

    @jax.jit
    def sides(key, much):
        log_beta = (lambda x, t: log_q(x, t) + much * tilt(x, t)) if tilt else log_q
        a, b, c = jax.random.split(key, 3)
        i = jax.random.choice(a, len(weights), (n,), p=weights)
        nats = elbo(log_beta, b, jax.tree.map(lambda v: v[i], atoms))["nats"]
        x = mixture(process, c, atoms, weights, jnp.asarray(t_min), n)
        return nats, -jax.vmap(lambda x: log_q(x, jnp.asarray(t_min)))(x)

    found = [sides(key, much) for much in tilts]
    return [(z(*pair), float(jnp.mean(pair[0]) - jnp.mean(pair[1]))) for pair in found]
