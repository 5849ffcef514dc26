"""Stochastic solvers of a Gaussian path, and the Langevin corrector.

    ancestral        the posterior of x' given x and x0 in the noising process, x0 replaced by
                     D = E[x0 | x] (Ho et al. 2020):
                     (sigma'/sigma) e^{-h} x + alpha' (1 - e^{-2h}) D + std z
    euler_maruyama   the reverse SDE dX = (v + g^2 E / (2 sigma)) dt + g dB, v the flow
    exponential      the reverse of dX = -X dtau + sqrt 2 dB, e^{-tau} = alpha, integrated
                     exactly with the score frozen over the step

All have weak order one.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.paths.gaussian import GaussianPath, slopes
from gmjax.samplers.driver import count_steps
from gmjax.samplers.gaussian_steps import Read, between, data, ends, noise_of, normal, require
from gmjax.types import Array, Stepper, UserError

VARIANCES = ("small", "large", "learned")


def ancestral(path: GaussianPath, read: Read, variance: str = "small") -> Stepper:
    """A DDPM step; the last one, to sigma = 0, adds no noise.

    Args:
        path, read: the path, and how the network is read.
        variance: "small", sigma'^2 (1 - e^{-2h}), the posterior's; "large", the forward step's
            sigma^2 (1 - e^{-2h}); "learned", between their logarithms, at the fraction that
            `read` returns beside x0.

    Raises:
        UserError: another variance.

    Source: Ho et al. (2020), equation 7; Nichol and Dhariwal (2021), equation 15.
    """
    require(variance in VARIANCES, "variance", variance, f"be one of {', '.join(VARIANCES)}")

    def step(predict, key, x, t, t_next, carry, cond):
        c = between(path, t, t_next, x.dtype)
        out = read(predict, x, t, cond)
        x0, fraction = out if isinstance(out, tuple) else (out, None)
        if variance == "learned" and fraction is None:
            raise UserError(
                "config.sample.variance='learned' needs a network with"
                " config.loss.variance='learned'"
            )
        left = (1 - c.decay) * (1 + c.decay)
        mean = _ancestral_mean(c, x, x0)
        if variance == "learned":
            low = jnp.where(c.sigma_next > 0, c.sigma_next, 1.0)
            std = jnp.exp(fraction * jnp.log(c.sigma) + (1 - fraction) * jnp.log(low))
        else:
            std = c.sigma if variance == "large" else c.sigma_next
        std = jnp.where(c.sigma_next > 0, jnp.sqrt(left) * std, 0.0)
        return mean + std * normal(key, x), carry

    return Stepper(lambda x: (), step, count_steps)


def euler_maruyama(path: GaussianPath, read: Read) -> Stepper:
    """A step of the path's reverse SDE, g^2 = -sigma^2 d(log-SNR)/dt.

    g^2 dt is at most sigma^2: any g has the same marginals, and that of a path from pure noise is
    infinite at its start. A step to the data ends in E[x0 | x]: noise there would stay.
    """
    first = data(read)

    def step(predict, key, x, t, t_next, carry, cond):
        x0 = first(predict, x, t, cond)
        now, dt = t[0].astype(x.dtype), (t - t_next)[0].astype(x.dtype)
        alpha, sigma = ends(path, now)
        _, _, da, ds = slopes(path, now)
        safe = jnp.where(alpha > 0, alpha, 1.0)
        spread = jnp.where(alpha > 0, 2 * sigma * (ds - sigma * da / safe) * dt, sigma**2)
        spread = jnp.clip(spread, 0.0, sigma**2)
        eps = noise_of(alpha, sigma, x, x0)
        moved = x - dt * (da * x0 + ds * eps) - 0.5 * spread / sigma * eps
        noisy = ends(path, t_next[0].astype(x.dtype))[1] > 0
        return jnp.where(noisy, moved + jnp.sqrt(spread) * normal(key, x), x0), carry

    return Stepper(lambda x: (), step, count_steps)


def exponential(path: GaussianPath, read: Read) -> Stepper:
    """e^g x + 2 (e^g - 1) s + sqrt(e^{2g} - 1) z, e^g = alpha' / alpha and s the score.

    The time change e^{-tau} = alpha makes every variance-preserving path an Ornstein-Uhlenbeck
    process. A step over which the frozen score overshoots even data of one point,
    alpha' (1 + alpha^2) > 2 alpha, is an ancestral one, as its noise would grow from step to step;
    so is every step from alpha = 0. One to the data ends in E[x0 | x].

    Raises:
        UserError: the path does not preserve the variance.

    Source: Benton et al. (2023), section 2, with our coefficients.
    """
    with jax.ensure_compile_time_eval():
        grid = jnp.linspace(0.0, 1.0, 11)
        total = path.alpha(grid) ** 2 + path.sigma(grid) ** 2
    # A path that is being learned cannot be looked at.
    if not isinstance(total, jax.core.Tracer) and not np.allclose(np.asarray(total), 1, atol=1e-4):
        raise UserError(
            "config.sample.name='exponential' needs a variance-preserving path; valid:"
            " ddpm, log_snr_linear, trigonometric, vp_cosine, vp_linear"
        )
    first = data(read)

    def step(predict, key, x, t, t_next, carry, cond):
        c = between(path, t, t_next, x.dtype)
        x0 = first(predict, x, t, cond)
        short = c.alpha_next * (1 + c.alpha**2) <= 2 * c.alpha
        grown = jnp.where(short, c.alpha_next / jnp.where(c.alpha > 0, c.alpha, 1.0), 1.0)
        score = -noise_of(c.alpha, c.sigma, x, x0) / c.sigma
        mean = jnp.where(short, grown * x + 2 * (grown - 1) * score, _ancestral_mean(c, x, x0))
        ancestral = c.sigma_next * jnp.sqrt((1 - c.decay) * (1 + c.decay))
        std = jnp.where(short, jnp.sqrt(jnp.maximum((grown - 1) * (grown + 1), 0.0)), ancestral)
        moved = mean + std * normal(key, x)
        return jnp.where(c.sigma_next > 0, moved, x0), carry

    return Stepper(lambda x: (), step, count_steps)


def corrected(
    stepper: Stepper, path: GaussianPath, read: Read, snr: float = 0.16, steps: int = 1
) -> Stepper:
    """A stepper followed by Langevin steps at the time it has reached.

    A step solves dX = score dr + sqrt 2 dB exactly over r = snr^2 sigma^2 with x0 frozen,

        x <- alpha D + e^{-snr^2} (x - alpha D) + sigma sqrt(1 - e^{-2 snr^2}) z,

    which keeps the law wherever noise dominates, and to first order in snr^2 elsewhere.

    Args:
        stepper: the predictor.
        path, read: the path, and how the network is read.
        snr: the step's noise over sigma, divided by sqrt 2.
        steps: how many, one evaluation each.

    Raises:
        UserError: snr or steps is not positive.

    Source: Song et al. (2021), algorithms 4 and 5, with an exponential step.
    """
    require(snr > 0, "snr", snr, "be positive")
    require(steps >= 1, "corrector_steps", steps, "be at least 1")
    first = data(read)

    def correct(predict, key, x, t, cond):
        alpha, sigma = ends(path, t[0].astype(x.dtype))
        centre = alpha * first(predict, x, t, cond)
        keep = jnp.exp(jnp.asarray(-(snr**2), x.dtype))
        noise = sigma * jnp.sqrt(-jnp.expm1(jnp.asarray(-2 * snr**2, x.dtype)))
        return centre + keep * (x - centre) + noise * normal(key, x)

    def step(predict, key, x, t, t_next, carry, cond):
        key, key_own = jax.random.split(key)
        x, carry = stepper.step(predict, key_own, x, t, t_next, carry, cond)
        body = lambda i, x: correct(predict, jax.random.fold_in(key, i), x, t_next, cond)
        return jax.lax.fori_loop(0, steps, body, x), carry

    def nfe(times):
        return stepper.nfe(times) + steps * (len(times) - 1)

    return Stepper(stepper.init, step, nfe)


def _ancestral_mean(c, x: Array, x0: Array) -> Array:
    left = (1 - c.decay) * (1 + c.decay)
    return c.sigma_next / c.sigma * c.decay * x + c.alpha_next * left * x0
