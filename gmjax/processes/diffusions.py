"""A noising diffusion on a space, from its drift, its noise and its kernel.

For dX = b dt + sigma dB, A = sigma sigma^T, and the score s = grad log p_t,

    reversal            drift -b + div A + A s, the same noise
    probability flow    velocity b - (div A + A s) / 2
    Phi(q / beta)       |sigma^T (grad log q - grad log beta)|^2 / 2

follow from drift and noise alone. What a family of processes adds is its kernel: how to draw
from it, its density, its score. A network's output of order one becomes a score by division by
std(t), the width of the kernel, because |grad log q_t|0| is of order 1 / std(t).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmjax import generators
from gmjax.types import Array, Distribution, Process, Space


def diffusion_process(
    space: Space,
    drift: Callable[[Array, Array], Array] | None,
    noise: Callable[[Array, Array], Array],
    std: Callable[[Array], Array],
    sample: Callable[..., Array],
    target: Callable[[Array, Array, Array], Array],
    base: Distribution,
    log_prob: Callable[[Array, Array, Array], Array] | None = None,
) -> Process:
    """The noising process dX = b dt + sigma dB on a space.

    Args:
        space: where x lives.
        drift: (x, t) -> b [*S]; None is zero.
        noise: (x, t) -> [] or [K, *S], as in `generators.diffusion`.
        std: t -> [] or broadcastable to [*S], the width of the kernel q_{t|0}.
        sample: (key, x0, t) -> x_t ~ q_{t|0}.
        target: (x0, x_t, t) -> grad log q_{t|0}(x_t | x0), tangent at x_t: [*S].
        base: the reference law at t = 1.
        log_prob: (x_t, x0, t) -> [] nats, the kernel's density.
    """

    def phi(x, t, target, score):
        gap, sigma = target - score, noise(x, t)
        if jnp.ndim(sigma) == 0:
            return 0.5 * sigma**2 * space.inner(x, gap, gap)
        return 0.5 * jnp.sum(jax.vmap(lambda v: space.inner(x, v, gap))(sigma) ** 2)

    def simple(x, t, target, score):
        gap = std(t) * (target - score)
        return space.inner(x, gap, gap) / space.dim

    def velocity(score):
        def of(x, t):
            ahead = drift(x, t) if drift else 0.0
            return ahead - 0.5 * generators.covariant(space, noise, x, t, score(x, t))

        return of

    return Process(
        generator=generators.diffusion(space, drift, noise),
        sample=sample,
        log_prob=log_prob,
        base=base,
        target=target,
        reverse=lambda score: generators.reverse_diffusion(space, drift, noise, score),
        space=space,
        phi=phi,
        simple=simple,
        read=lambda out, x, t: space.tangent(x, out) / std(t),
        velocity=velocity,
    )
