"""How a change g of the score changes the output that stands for it, and what goes with it.

    gaussian   on a Gaussian path out = p x0 + q eps, x0 = (x + sigma^2 s) / alpha, eps = -sigma s:
               out + (sigma c / alpha) g,  c = sigma p - alpha q
    process    of any diffusion, whose score is affine in the output: out + J^+ g, J the derivative
               of `read`, by conjugate gradients (one step where J is a number)
    logits     of finite sets: out + g, g the derivative in the one-hot vector of each site, which
               is log p(y | x') - log p(y | x) of one-site changes to first order, and exact where
               log p(y | x) is linear in each site's vector

A likelihood multiplies the ratios p_t(x') / p_t(x), and so `logits` is for outputs read as log
ratios (`log_ratios` makes any so), and for logits of values where masks are: there a change of x_i
from the mask to v says x0_i = v.

Source: Dhariwal and Nichol (2021); Nisonoff et al. (2025) on finite sets.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from gmjax.paths import heads
from gmjax.paths.gaussian import GaussianPath
from gmjax.processes.ctmc import Parametrisation
from gmjax.types import Array, Predict, Process, PyTree, Space

Shift = Callable[[PyTree, PyTree, PyTree, Array], PyTree]  # (out, g, x, t) -> out, batched


def gaussian(path: GaussianPath, head: str, data_std: float = 1.0) -> Shift:
    """For a head of `paths.heads`: out + (sigma c / alpha) g.

    Where alpha is zero, as at t = 1 of a straight path, x0 is not known from x, and the output is
    left as it is: a run of few steps should start a little later.
    """

    def shift(out, g, x, t):
        a, s = path.alpha(t), path.sigma(t)
        p, q = heads.coefficients(head, path, t, data_std)
        # sigma c / alpha = sigma^2 p / alpha - sigma q.
        gain = jnp.where(a > 0, s**2 * p / jnp.where(a > 0, a, 1.0), 0.0) - s * q
        return out + heads.spread(gain, g) * g

    return shift


def process(process: Process) -> Shift:
    """For a process whose `read` is affine in the output, as that of every diffusion here."""
    read = process.read
    if read is None:
        raise ValueError("this process has no read, and its outputs no score to shift")

    def one(out, g, x, t):
        _, forward = jax.linearize(lambda out: read(out, x, t), out)
        back = jax.linear_transpose(forward, out)
        size = sum(leaf.size for leaf in jax.tree.leaves(out))
        normal = lambda change: back(forward(change))[0]
        change, _ = cg(normal, back(g)[0], tol=1e-6, maxiter=size)
        return jax.tree.map(jnp.add, out, change)

    return jax.vmap(one)


def logits(out: Array, g: Array, x: Array, t: Array) -> Array:
    """For log ratios [B, *S, K], or logits of values [B, *S, V] where masks are."""
    del t
    # Of the mask, where `one_hot` was not told of it, the vector is zero, and so is g.
    now = jnp.take_along_axis(g, x[..., None], -1, mode="fill", fill_value=0.0)
    return out + (g - now)[..., : out.shape[-1]]


def log_ratios(predict: Predict, read: Parametrisation) -> Predict:
    """The network's log p_t(x') / p_t(x) [B, *S, K], to be read by `ctmc.log_ratio`."""
    return lambda x, t, cond: jax.vmap(read.log_ratio)(predict(x, t, cond), x, t)


def one_hot(num_states: int) -> Callable[[Array], Array]:
    """x [B, *S] int -> [B, *S, K] float, K with the mask where there is one."""
    return lambda x: jax.nn.one_hot(x, num_states)


def tangent(space: PyTree) -> Callable[[PyTree, PyTree], PyTree]:
    """(x, derivatives in the embedding's coordinates) -> Riemannian gradients, batched.

    sum_k (e_k . g) e_k with the frame e_k.

    Args:
        space: a `Space`, or a dict of them.
    """

    def one(space: Space, x: Array, g: Array) -> Array:
        e = space.frame(x)
        return jnp.tensordot(jnp.sum(e * g, tuple(range(1, e.ndim))), e, 1)

    def every(x, g):
        if isinstance(space, Mapping):
            return {name: one(part, x[name], g[name]) for name, part in space.items()}
        return one(space, x, g)

    return jax.vmap(every)


def exponential(
    process: Process, variance: Callable[[Array], Array]
) -> Callable[[Array, Array, Array], Array]:
    """The denoiser exp_x(v_t score) of a manifold without drift: (out, x, t) -> x0, batched.

    Args:
        variance: t -> v_t of the noise, a coordinate of the tangent space.
    """
    read, space = process.read, process.space
    if read is None:
        raise ValueError("this process has no read, and its outputs no score")
    one = lambda out, x, t: space.exp(x, variance(t) * read(out, x, t))
    return jax.vmap(one)


def remaining_std(path: GaussianPath, data_std: float = 1.0) -> Callable[[Array], Array]:
    """t -> r_t, the standard deviation of N(0, s^2) data given x_t.

    r_t^2 = s^2 sigma^2 / (alpha^2 s^2 + sigma^2).
    """

    def std(t):
        a, s = path.alpha(t), path.sigma(t)
        return data_std * s / jnp.sqrt((a * data_std) ** 2 + s**2)

    return std
