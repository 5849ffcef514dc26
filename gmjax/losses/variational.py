r"""Bounds on log p(x) of a model with latent z, as functions of log-weights.

With z_1 .. z_N drawn from q(z | x) and w_j = p(x, z_j) / q(z_j | x), whose mean is p(x),

    l = 1 / (1 - alpha) log( 1/N sum_j w_j^(1 - alpha) )

is on average at most log p(x), and at least the ELBO E log w, for alpha in [0, 1]: alpha = 0 is
the importance-weighted bound, alpha -> 1 and N = 1 the ELBO, N -> infinity the variational Renyi
bound. All of it is computed in the log domain. Let s = 1 - alpha. Where s times the range of
log w is 1 or more, l is logsumexp(s log w) / s, whose rounding, eps / s, is at most eps times
the range. Below, with d = log w - mean,

    l = mean + y log1p(s y) / (s y),    y = 1/N sum_j d_j expm1(s d_j) / (s d_j),

in which both quotients tend to 1, so that s = 0 is no special case.

Gradients. Let v_j = w_j^s / sum_k w_k^s. Then dl = sum_j v_j d log w_j. Of the model's parameters
theta that is all there is. With z_j = z(eps_j, phi), those of q enter twice,

    d log w_j / d phi = (d log w_j / dz_j) (dz_j / dphi) - (d log q / dphi)(z_j),

and taking both is the reparameterised gradient, "rep". The second part is a score: since
E_q[f(z) d log q / dphi] = E[f'(z) dz / dphi], with f = v_j as a function of z_j alone, and
dv_j / dz_j = s v_j (1 - v_j) d log w_j / dz_j, the two parts have the mean of

    sum_j (v_j - s v_j (1 - v_j)) (d log w_j / dz_j) (dz_j / dphi),

where v_j - s v_j (1 - v_j) = alpha v_j + (1 - alpha) v_j^2: the doubly reparameterised gradient,
"drep", in which q's own parameters are held. It is zero draw by draw where q is exact.

Source: Daudel et al. (2023), Alpha-divergence variational inference meets importance weighted
auto-encoders; Burda et al. (2016); Tucker et al. (2019); Kingma et al. (2016) for free bits.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmjax.types import Array

_SERIES = 1e-4  # below it quotients that tend to 1 are read from their series


class Gaussian(NamedTuple):
    """Independent normal coordinates, the last axis."""

    mean: Array  # [..., L]
    log_std: Array  # [..., L]


def draw(q: Gaussian, noise: Array) -> Array:
    """z = mean + std * noise: [..., L]."""
    return q.mean + jnp.exp(q.log_std) * noise


def log_prob(q: Gaussian, z: Array) -> Array:
    """log q(z): [..., L] -> [...] nats."""
    gap = (z - q.mean) * jnp.exp(-q.log_std)
    return jnp.sum(-0.5 * gap**2 - q.log_std - 0.5 * math.log(2 * math.pi), -1)


def standard(z: Array) -> Array:
    """log N(z; 0, I): [..., L] -> [...] nats."""
    return jnp.sum(-0.5 * z**2 - 0.5 * math.log(2 * math.pi), -1)


def kl(q: Gaussian) -> Array:
    """KL(q || N(0, I)) of each coordinate: [..., L] nats.

    (m^2 + (e^(2 r) - 1 - 2 r)) / 2 with r = log std. `log_prob(q, z) - standard(z)` at z drawn
    from q has the same mean, summed over coordinates.
    """
    return 0.5 * (q.mean**2 + jnp.expm1(2 * q.log_std) - 2 * q.log_std)


def free_bits(kl: Array, least: float) -> Array:
    """sum_l max(least, the batch's mean KL of coordinate l), spread over the batch.

    A coordinate whose mean is below `least` costs `least`, whatever it does.

    Args:
        kl: [B, L] nats.
        least: nats a coordinate.

    Returns:
        [B], whose mean is the sum above (Kingma et al. 2016, equation 15).
    """
    return jnp.sum(jnp.where(jnp.mean(kl, 0) > least, kl, least), -1)


def bound(log_w: Array, alpha: float | Array) -> Array:
    """The VR-IWAE bound l, see the module.

    Args:
        log_w: [N, ...] finite log-weights, particles first.
        alpha: in [0, 1]; 0: the importance-weighted bound; 1: the ELBO.

    Returns:
        [...] nats, differentiable in both.
    """
    s = jnp.asarray(1 - alpha, log_w.dtype)
    centre = jax.lax.stop_gradient(jnp.mean(log_w, 0))
    spread = jax.lax.stop_gradient(jnp.max(log_w, 0) - jnp.min(log_w, 0))
    near = s * spread < 1
    d = jnp.where(near, log_w - centre, 0)
    y = jnp.mean(d * _expm1_over(s * d), 0)
    inner = centre + y * _log1p_over(s * y)
    safe = jnp.where(near, 1, s)
    outer = (jax.nn.logsumexp(safe * log_w, 0) - math.log(len(log_w))) / safe
    return jnp.where(near, inner, outer)


def weights(log_w: Array, alpha: float | Array = 0.0) -> Array:
    """v_j = w_j^(1 - alpha) / sum_k w_k^(1 - alpha): [N, ...]."""
    return jax.nn.softmax(jnp.asarray(1 - alpha, log_w.dtype) * log_w, 0)


def effective_size(log_w: Array, alpha: float | Array = 0.0) -> Array:
    """1 / sum_j v_j^2, between 1 and N: [N, ...] -> [...]."""
    return 1 / jnp.sum(weights(log_w, alpha) ** 2, 0)


@jax.custom_vjp
def _marked(z: Array, alpha: Array) -> tuple[Array, Array]:
    return z, jnp.zeros(z.shape[:-1], z.dtype)


def _marked_fwd(z, alpha):
    return _marked(z, alpha), alpha


def _marked_bwd(alpha, found):
    # The mark was added to log w, so what comes back along it is v_j times what came into l.
    along_z, along_mark = found
    total = jnp.sum(along_mark, 0)
    v = along_mark / jnp.where(total == 0, 1, total)
    return along_z * (alpha + (1 - alpha) * v)[..., None], jnp.zeros_like(alpha)


_marked.defvjp(_marked_fwd, _marked_bwd)


def reparameterised(z: Array, q: Gaussian, alpha: float) -> tuple[Array, Gaussian, Array]:
    """All as it is: the gradient of l is "rep"."""
    return z, q, jnp.zeros(z.shape[:-1], z.dtype)


def doubly_reparameterised(z: Array, q: Gaussian, alpha: float) -> tuple[Array, Gaussian, Array]:
    """q held, and z whose backward pass turns v_j into alpha v_j + (1 - alpha) v_j^2.

    One forward and one backward pass of the model serve theta and phi.
    """
    z, mark = _marked(z, jnp.asarray(alpha, z.dtype))
    return z, jax.tree.map(jax.lax.stop_gradient, q), mark


# name -> (z [N, ..., L], q, alpha) -> (z, q, mark [N, ...]) of which log-weights are to be made:
# log w = log p(x, z) - log q(z) + mark, with the mark zero, and then `bound(log_w, alpha)`.
GRADIENTS: dict[str, Callable[..., tuple[Array, Gaussian, Array]]] = {
    "rep": reparameterised,
    "drep": doubly_reparameterised,
}


def _expm1_over(u: Array) -> Array:
    """expm1(u) / u."""
    small = jnp.abs(u) < _SERIES
    safe = jnp.where(small, 1, u)
    return jnp.where(small, 1 + u / 2 + u**2 / 6 + u**3 / 24, jnp.expm1(safe) / safe)


def _log1p_over(u: Array) -> Array:
    """log1p(u) / u."""
    small = jnp.abs(u) < _SERIES
    safe = jnp.where(small, 1, u)
    return jnp.where(small, 1 - u / 2 + u**2 / 3 - u**3 / 4, jnp.log1p(safe) / safe)
