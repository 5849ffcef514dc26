"""Generators of Markov processes as higher-order functions.

The generator of a Markov process acts on test functions,
(L_t f)(x) = lim (E[f(X_{t+h}) | X_t = x] - f(x)) / h; its adjoint L*_t with respect to the
reference measure of the space (volume, or counting) moves densities, d/dt p_t = L*_t p_t.

    diffusion   L f = b f + 1/2 sum_k d^2/ds^2 f(exp_x(s sigma_k))
                L* f = div( 1/2 sum_k [ sigma_k div(f sigma_k) + f D_{sigma_k} sigma_k ] - f b )
    jump        L f = sum_y R(x, y) (f(y) - f(x))
                L* f = sum_y R(y, x) f(y) - R(x, y) f(x)
    flow        L f = v f,    L* f = -div(f v)

The time reversal of a process with marginals beta has the generator

    K f = beta^-1 L*(beta f) - f beta^-1 L* beta,

which is again of the same kind: drift -b + div A + A grad log beta with A = sum_k sigma_k
sigma_k^T; rates R(y, x) beta(y) / beta(x); velocity -v. It is linear in L, so sums, time changes
and products reverse part by part. Source: Benton, Shi, De Bortoli, Deligiannidis and Doucet
(2022), propositions 1 to 3.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from gmjax import draws
from gmjax.spaces import calculus
from gmjax.types import Array, Generator, Key, PyTree, Space

Function = Callable[[PyTree], Array]  # x -> []
LogDensity = Callable[[PyTree, Array], Array]  # (x, t) -> []


def diffusion(
    space: Space,
    drift: Callable[[Array, Array], Array] | None,
    noise: Callable[[Array, Array], Array],
) -> Generator:
    """dX = b dt + sigma dB on a space, in Ito's sense along geodesics.

    Args:
        space: where x lives.
        drift: (x, t) -> b [*S], tangent; None is zero.
        noise: (x, t) -> [], times the space's own Brownian motion; or sigma [K, *S], the
            tangent vectors that K independent Brownian motions drive.

    Returns:
        A `Generator`; its step is a geodesic walk.

    Raises:
        ValueError: a product of spaces, whose generators are `product` of those of its parts.
    """
    _single(space)
    b = drift or (lambda x, t: jnp.zeros_like(x))

    def apply(f, x, t):
        sigma = noise(x, t)
        if jnp.ndim(sigma) == 0:
            second = sigma**2 * calculus.laplacian(space, f, x)
        else:
            second = jnp.sum(jax.vmap(lambda v: calculus.curvature(space, f, x, v))(sigma))
        return calculus.derivative(f, x, b(x, t)) + 0.5 * second

    def adjoint(f, x, t):
        if jnp.ndim(noise(x, t)) == 0:
            spread = calculus.laplacian(space, lambda y: noise(y, t) ** 2 * f(y), x)
            return 0.5 * spread - calculus.divergence(space, lambda y: f(y) * b(y, t), x)
        return calculus.divergence(space, lambda y: flux(f, y, t), x)

    def flux(f, x, t):
        """Minus the probability current of the density f."""

        def part(k):
            field = lambda y: noise(y, t)[k]
            grows = calculus.divergence(space, lambda y: f(y) * field(y), x)
            return field(x) * grows + f(x) * _turn(space, field, x)

        count = len(noise(x, t))
        return 0.5 * jnp.sum(jax.vmap(part)(jnp.arange(count)), 0) - f(x) * b(x, t)

    def step(key, x, t, dt):
        sigma = noise(x, t)
        if jnp.ndim(sigma) == 0:
            z = sigma * space.noise(key, x)
        else:
            z = jnp.tensordot(jax.random.normal(key, sigma.shape[:1], x.dtype), sigma, 1)
        return space.project(space.exp(x, dt * b(x, t) + jnp.sqrt(dt) * z))

    def reverse(log_beta):
        score = lambda x, t: calculus.gradient(space, lambda y: log_beta(y, t), x)
        return reverse_diffusion(space, b, noise, score)

    return Generator(apply, adjoint, step, reverse)


def _single(space: Space) -> None:
    if isinstance(space.shape, Mapping):
        raise ValueError("a product of spaces: give generators.product of a generator of each part")


def reverse_diffusion(
    space: Space,
    drift: Callable[[Array, Array], Array] | None,
    noise: Callable[[Array, Array], Array],
    score: Callable[[Array, Array], Array],
) -> Generator:
    """The time reversal of `diffusion` under marginals with grad log p_t = score.

    Args:
        space, drift, noise: of the forward process.
        score: (x, t) -> [*S], tangent.
    """

    def back(x, t):
        ahead = drift(x, t) if drift else 0.0
        return covariant(space, noise, x, t, score(x, t)) - ahead

    return diffusion(space, back, noise)


def covariant(
    space: Space, noise: Callable[[Array, Array], Array], x: Array, t: Array, score: Array
) -> Array:
    """div A + A score, A = sigma sigma^T: twice what turns a drift into the velocity.

    The probability flow of the diffusion moves with b - (div A + A score) / 2.
    """
    sigma = noise(x, t)
    if calculus.ignores(lambda y: noise(y, t), x):
        # Without derivatives there is no frame: [dim, *S] is too much for an image.
        if jnp.ndim(sigma) == 0:
            return sigma**2 * score
        return jnp.tensordot(jax.vmap(lambda v: space.inner(x, v, score))(sigma), sigma, 1)
    if jnp.ndim(sigma) == 0:
        turn = calculus.gradient(space, lambda y: noise(y, t) ** 2, x)
        return turn + sigma**2 * score

    def part(k):
        field = lambda y: noise(y, t)[k]
        grows = calculus.divergence(space, field, x) + space.inner(x, field(x), score)
        return field(x) * grows + _turn(space, field, x)

    return jnp.sum(jax.vmap(part)(jnp.arange(len(sigma))), 0)


def flow(space: Space, velocity: Callable[[Array, Array], Array]) -> Generator:
    """The deterministic motion dX = v dt; its step is Euler's, along a geodesic.

    Args:
        space: where x lives.
        velocity: (x, t) -> v [*S], tangent.

    Raises:
        ValueError: a product of spaces.
    """
    _single(space)

    def adjoint(f, x, t):
        return -calculus.divergence(space, lambda y: f(y) * velocity(y, t), x)

    return Generator(
        lambda f, x, t: calculus.derivative(f, x, velocity(x, t)),
        adjoint,
        lambda key, x, t, dt: space.project(space.exp(x, dt * velocity(x, t))),
        lambda log_beta: flow(space, lambda x, t: -velocity(x, t)),
    )


def jumps(
    moves: Callable[[PyTree, Array], tuple[PyTree, Array]],
    moves_in: Callable[[PyTree, Array], tuple[PyTree, Array]] | None = None,
) -> Generator:
    """A jump process with M possible moves from each state.

    On a continuous space the moves are the nodes of a quadrature of the jump kernel.

    Args:
        moves: (x, t) -> targets [M, *S] and rates [M] from x to them.
        moves_in: (x, t) -> origins [M, *S] and rates [M] from them into x. It gives the
            adjoint and the reversal; None leaves the generator without them.

    Returns:
        A `Generator`; its step moves at most once, with probability dt times the total rate.
    """

    def apply(f, x, t):
        targets, rates = moves(x, t)
        return jnp.sum(rates * (jax.vmap(f)(targets) - f(x)))

    def adjoint(f, x, t):
        origins, rates = moves_in(x, t)
        return jnp.sum(rates * jax.vmap(f)(origins)) - jnp.sum(moves(x, t)[1]) * f(x)

    def step(key, x, t, dt):
        targets, rates = moves(x, t)
        index = euler(draws.uniform(key), jnp.full((), -1), rates, dt)
        pick = lambda a, b: jnp.where(index < 0, b, a[index])
        return jax.tree.map(pick, targets, x)

    def reverse(log_beta):
        def back(x, t):
            origins, rates = moves_in(x, t)
            gain = jax.vmap(lambda y: log_beta(y, t))(origins) - log_beta(x, t)
            return origins, rates * jnp.exp(gain)

        def back_in(x, t):
            targets, rates = moves(x, t)
            gain = log_beta(x, t) - jax.vmap(lambda y: log_beta(y, t))(targets)
            return targets, rates * jnp.exp(gain)

        return jumps(back, back_in)

    if moves_in is None:
        return Generator(apply, None, step)
    return Generator(apply, adjoint, step, reverse)


def jump(
    rates_out: Callable[[Array, Array], Array],
    rates_in: Callable[[Array, Array], Array] | None = None,
) -> Generator:
    """The generator of a jump process on a product of finite sets, one site at a time.

    Args:
        rates_out: (x [*S], t []) -> [*S, K], the rate at which each site moves to each
            value; zero at the value it has.
        rates_in: (x, t) -> [*S, K], the rate from x with the site at that value into x. It
            gives the adjoint; None leaves the generator without one.

    Returns:
        A `Generator`; its step moves each site at most once, by Euler's rule.
    """

    def neighbours(x, k):
        """Every state that differs from x at one site at most: [|S| K, *S]."""
        site, value = jnp.meshgrid(jnp.arange(x.size), jnp.arange(k), indexing="ij")
        moved = jax.vmap(lambda i, v: x.reshape(-1).at[i].set(v).reshape(x.shape))
        return moved(site.reshape(-1), value.reshape(-1).astype(x.dtype))

    def moves(rates):
        def of(x, t):
            r = rates(x, t)
            return neighbours(x, r.shape[-1]), r.reshape(-1)

        return of

    def step(key, x, t, dt):
        return euler(draws.uniform(key, x.shape), x, rates_out(x, t), dt)

    general = jumps(moves(rates_out), moves(rates_in) if rates_in else None)
    if rates_in is None:
        return general._replace(step=step)

    def reverse(log_beta):
        def tilted(rates, sign):
            def of(x, t):
                r = rates(x, t)
                gain = jax.vmap(lambda y: log_beta(y, t))(neighbours(x, r.shape[-1]))
                return r * jnp.exp(sign * (gain - log_beta(x, t))).reshape(r.shape)

            return of

        return jump(tilted(rates_in, 1), tilted(rates_out, -1))

    return general._replace(step=step, reverse=reverse)


def superpose(*parts: Generator) -> Generator:
    """The sum of generators on one space; its step takes theirs in turn."""

    def step(key, x, t, dt):
        for part, k in zip(parts, jax.random.split(key, len(parts)), strict=True):
            x = part.step(k, x, t, dt)
        return x

    return _linear(
        lambda pick: lambda f, x, t: sum(pick(p)(f, x, t) for p in parts),
        parts,
        step,
        lambda log_beta: superpose(*(reverse(p, log_beta) for p in parts)),
    )


def scale(generator: Generator, rate: Callable[[Array], Array]) -> Generator:
    """The time change rate(t) L_t."""
    return _linear(
        lambda pick: lambda f, x, t: rate(t) * pick(generator)(f, x, t),
        (generator,),
        lambda key, x, t, dt: generator.step(key, x, t, rate(t) * dt),
        lambda log_beta: scale(reverse(generator, log_beta), rate),
    )


def product(parts: Mapping[str, Generator]) -> Generator:
    """Independent processes, one a component of x = {name: x_name}.

    The components of its reversal are not independent: each is reversed under the density as
    a function of its own component, the others held where they are.
    """

    def total(pick):
        def of(f, x, t):
            alone = lambda name: lambda y: f({**x, name: y})
            return sum(pick(part)(alone(name), x[name], t) for name, part in parts.items())

        return of

    def step(key, x, t, dt):
        keys = jax.random.split(key, len(parts))
        moved = zip(parts.items(), keys, strict=True)
        return {name: part.step(k, x[name], t, dt) for (name, part), k in moved}

    def reverse(log_beta):
        def at(x):
            alone = lambda name: lambda y, t: log_beta({**x, name: y}, t)
            return product({name: part.reverse(alone(name)) for name, part in parts.items()})

        return depending(at)

    return _linear(total, parts.values(), step, reverse)


def depending(at: Callable[[PyTree], Generator]) -> Generator:
    """The generator that at the state x is at(x), without an adjoint."""
    return Generator(
        lambda f, x, t: at(x).apply(f, x, t),
        None,
        lambda key, x, t, dt: at(x).step(key, x, t, dt),
    )


def adjoint(generator: Generator, f: Function, x: PyTree, t: Array) -> Array:
    """(L*_t f)(x).

    Raises:
        ValueError: the generator has none; the message says what to give.
    """
    return needed(generator.adjoint, "adjoint")(f, x, t)


def reverse(generator: Generator, log_beta: LogDensity) -> Generator:
    """The time reversal under marginals beta: K f = beta^-1 L*(beta f) - f beta^-1 L* beta.

    Args:
        generator: of the forward process; its steps still carry forward time t and dt > 0.
        log_beta: (x, t) -> [], the log density up to a constant in x.

    Raises:
        ValueError: the generator has no adjoint.
    """
    return needed(generator.reverse, "reverse")(log_beta)


def carre_du_champ(generator: Generator, f: Function, g: Function, x: PyTree, t: Array) -> Array:
    """Gamma(f, g) = (L(f g) - f L g - g L f) / 2, as L of the product of increments: []."""
    f0, g0 = f(x), g(x)
    return 0.5 * generator.apply(lambda y: (f(y) - f0) * (g(y) - g0), x, t)


def phi(generator: Generator, log_f: Function, x: PyTree, t: Array) -> Array:
    """Phi(f) = f^-1 L f - L log f >= 0, as L of expm1(h) - h with h the increment of log f: []."""
    start = log_f(x)

    def excess(y):
        h = log_f(y) - start
        return jnp.expm1(h) - h

    return generator.apply(excess, x, t)


def simulate(generator: Generator, key: Key, x: PyTree, times: Array) -> PyTree:
    """x after the steps of a time grid, [N + 1] increasing, or decreasing for a reversal."""

    def body(x, inputs):
        i, t, t_next = inputs
        return generator.step(jax.random.fold_in(key, i), x, t, jnp.abs(t_next - t)), None

    inputs = (jnp.arange(len(times) - 1), times[:-1], times[1:])
    return jax.lax.scan(body, x, inputs)[0]


def euler(u: Array, x: Array, rates: Array, dt: Array) -> Array:
    """One jump at most a site, to y with probability dt rates(y), clipped to one.

    Args:
        u: [...] uniform numbers in [0, 1).
        x: [...] integer states.
        rates: [..., K] rates to each value, zero at x.
        dt: broadcastable to [...], time.
    """
    chance = dt * jnp.sum(rates, -1)
    # u itself, rescaled by the event u < chance, is the uniform number of the choice.
    target = draws.categorical(u / jnp.clip(chance, 1e-30, 1), rates)
    return jnp.where(u < chance, target.astype(x.dtype), x)


def needed(part: Callable | None, name: str) -> Callable:
    """`part`, or a ValueError that says how to give a generator its adjoint."""
    if part is None:
        raise ValueError(
            f"this generator has no {name}: give jump(..., rates_in), jumps(..., moves_in) or"
            " Generator(adjoint=..., reverse=...)"
        )
    return part


def _linear(combine, parts, step, reverse) -> Generator:
    """A generator linear in `parts`, with an adjoint and a reversal where all of them have."""
    dual = combine(lambda p: p.adjoint) if all(p.adjoint for p in parts) else None
    back = reverse if all(p.reverse for p in parts) else None
    return Generator(combine(lambda p: p.apply), dual, step, back)


def _turn(space: Space, field: Callable[[Array], Array], x: Array) -> Array:
    """The covariant derivative of a field along itself, D_V V: [*S]."""
    return space.tangent(x, calculus.derivative(field, x, field(x)))
