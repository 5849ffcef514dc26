"""Losses of a Markov process from its generator and a positive function beta, on any space.

Let q_t be the marginals of the forward process, L_t its generator, and beta_t > 0 the model of
q_t up to a constant. The reversal under beta started at the reference law is a generative
model; by Girsanov's theorem its bound is

    log p(x0) >= E log base(X_1) - int E [ L* beta / beta + L log beta ] dt,          (implicit)

and integrating by parts, up to a constant that does not depend on beta,

    int E_{q_t} [ L* beta / beta + L log beta ] dt
        = int E_{q_t} Phi(q_t / beta) dt + c                                          (explicit)
        = int E E_{q_t|0} Phi(q_t|0(. | x0) / beta) dt + c',                        (denoising)

Phi(f) = f^-1 L f - L log f. So the three have one gradient, and the second is zero exactly at
beta = q_t. In the last form the bound, now of the law p_s at the time s > 0 where the
integral starts, is

    E log p_s(X_s) >= -KL(q_1|0 || base) - int_s^1 E Phi(q_t|0 / beta) dt - H(q_s|0).

For a diffusion Phi(f) = |sigma^T grad log f|^2 / 2 and (denoising) is denoising score matching,
(implicit) is implicit score matching; for a Markov chain Phi(f) = sum_y R(x, y) [r - 1 - log r],
r = f(y) / f(x), the score entropy and the CT-ELBO. `gmjax.losses.scores` has those faster forms.

Everything here is for one state and one time, an integrand; `along` makes a Loss of it.
Source: Benton et al. (2022), theorem 2 and equations 8 to 11.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmjax import generators
from gmjax.losses.times import TimeSampler
from gmjax.types import Array, Cond, Generator, Key, Process, PyTree

LogDensity = Callable[[PyTree, Array], Array]  # (x, t) -> []


def implicit(generator: Generator, log_beta: LogDensity, x: PyTree, t: Array) -> Array:
    """L* beta / beta + L log beta at x: [] nats per unit time.

    Raises:
        ValueError: the generator has no adjoint.
    """
    start = log_beta(x, t)
    rise = lambda y: log_beta(y, t) - start
    grows = generators.adjoint(generator, lambda y: jnp.exp(rise(y)), x, t)
    return grows + generator.apply(rise, x, t)


def explicit(
    generator: Generator, log_beta: LogDensity, log_q: LogDensity, x: PyTree, t: Array
) -> Array:
    """Phi(q_t / beta) at x, log_q being the log marginal: [] nats per unit time."""
    return generators.phi(generator, lambda y: log_q(y, t) - log_beta(y, t), x, t)


def denoising(
    generator: Generator,
    log_beta: LogDensity,
    log_kernel: Callable[[PyTree, PyTree, Array], Array],
    x: PyTree,
    x0: PyTree,
    t: Array,
) -> Array:
    """Phi(q_t|0(. | x0) / beta) at x, log_kernel (x, x0, t) -> []: [] nats per unit time."""
    return explicit(generator, log_beta, lambda y, s: log_kernel(y, x0, s), x, t)


def along(
    process: Process,
    integrand: Callable[[LogDensity, PyTree, PyTree, Array], Array],
    times: TimeSampler,
) -> Callable[[LogDensity, Key, PyTree, Cond], tuple[Array, dict[str, Array]]]:
    """int E integrand dt at one noised draw an example.

    Args:
        process: draws x ~ q_t(. | x0).
        integrand: (log_beta, x, x0, t) -> [], one of the above with the generator filled in.
        times: the time sampler.

    Returns:
        (log_beta, key, x0 [B, *S], cond) -> ([B] nats, {}), with log_beta (x, t) for one state.
    """

    def loss(log_beta: LogDensity, key: Key, x0: PyTree, cond: Cond):
        del cond
        size = len(jax.tree.leaves(x0)[0])
        key_t, key_x = jax.random.split(key)
        t, weight = times(key_t, size)
        x = jax.vmap(process.sample)(jax.random.split(key_x, size), x0, t)
        values = jax.vmap(lambda x, x0, t: integrand(log_beta, x, x0, t))(x, x0, t)
        return weight * values, {}

    return loss


def elbo(process: Process, times: TimeSampler, t_min: float) -> Callable[..., dict[str, Array]]:
    """The negative bound on E log p_s(X_s), X_s ~ q_s(. | x0), s = t_min, of any process.

    Args:
        process: with a density of its kernel.
        times: a time sampler on [t_min, 1].
        t_min: s.

    Returns:
        (log_beta, key, x0 [B, *S]) -> {"nats", "prior", "diffusion", "entropy"}: [B], one
        unbiased draw each; the first is the sum of the others.

    Raises:
        ValueError: the process has no density of its kernel.
    """
    if process.log_prob is None:
        raise ValueError("this process has no log_prob: its bound needs the kernel's density")
    kernel, generator = process.log_prob, process.generator
    fill = lambda log_beta, x, x0, t: denoising(generator, log_beta, kernel, x, x0, t)
    integral = along(process, fill, times)

    def bound(log_beta: LogDensity, key: Key, x0: PyTree):
        key_integral, key_ends = jax.random.split(key)
        size = len(jax.tree.leaves(x0)[0])
        ends = jax.vmap(lambda k, a: end_terms(process, k, a, t_min))
        prior, entropy = ends(jax.random.split(key_ends, size), x0)
        parts = {
            "prior": prior,
            "diffusion": integral(log_beta, key_integral, x0, None)[0],
            "entropy": entropy,
        }
        return {"nats": sum(parts.values()), **parts}

    return bound


def end_terms(process: Process, key: Key, x0: PyTree, t_min: float) -> tuple[Array, Array]:
    """One draw each of KL(q_1|0 || base) and of the entropy of q_s|0, s = t_min: [] nats."""
    one, s = jnp.ones(()), jnp.asarray(t_min)
    key_end, key_start = jax.random.split(key)
    last, first = process.sample(key_end, x0, one), process.sample(key_start, x0, s)
    assert process.log_prob is not None
    prior = process.log_prob(last, x0, one) - process.base.log_prob(last)
    return prior, -process.log_prob(first, x0, s)
