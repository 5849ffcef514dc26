"""A shift of an output is the shift of the score that it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from gmjax.paths import gaussian as paths
from gmjax.paths import heads
from gmjax.processes import (
    ctmc,
    gaussian,
    half_line,
    hyperbolic,
    langevin,
    rotations,
    schedules,
    sphere,
    torus,
    wright_fisher,
)
from gmjax.processes.product import product
from gmjax.samplers import guidance, shifts


@pytest.mark.parametrize("head", heads.HEADS)
def test_of_every_head(head):
    with jax.enable_x64(True):
        path, t = paths.PATHS["vp_cosine"](), jnp.asarray([0.2, 0.7])
        x, out, g = np.random.default_rng(0).normal(size=(3, 2, 3))
        moved = shifts.gaussian(path, head, 1.0)(out, g, x, t)
        score = lambda out: heads.convert(path, jnp.asarray(out), jnp.asarray(x), t, head, "score")
        np.testing.assert_allclose(score(moved) - score(out), g, atol=1e-9)


CLOCK = schedules.linear(0.1, 4.0)
DIFFUSIONS = {
    "vp": lambda: gaussian.vp(CLOCK, (2, 3)),
    "multi_speed": lambda: gaussian.multi_speed(CLOCK, (3,), (0.3, 1.0, 4.0)),
    "langevin": lambda: langevin.langevin(CLOCK, (2, 3)),
    "sphere": lambda: sphere.sphere(CLOCK, (3,)),
    "torus": lambda: torus.torus(CLOCK, (2,)),
    "rotations": lambda: rotations.rotations(CLOCK),
    "hyperbolic": lambda: hyperbolic.brownian(CLOCK, (3,)),
    "half_line": lambda: half_line.cox_ingersoll_ross(CLOCK, (2,)),
    "wright_fisher": lambda: wright_fisher.wright_fisher(CLOCK, (3,), (0.5, 1.0, 2.0)),
    "product": lambda: product({
        "a": gaussian.vp(CLOCK, (2,)), "b": half_line.cox_ingersoll_ross(CLOCK, (1,))
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFUSIONS)
def test_of_every_diffusion(name):
    """By a change that outputs can say, the score that is read changes; by none, nothing."""
    process, (at, one, other) = DIFFUSIONS[name](), jax.random.split(jax.random.key(0), 3)
    x, t = jax.vmap(process.base.sample)(jax.random.split(at, 3)), jnp.asarray([0.1, 0.5, 0.9])
    read, shift = jax.vmap(process.read), shifts.process(process)

    @jax.jit
    def run(out, more):
        before = read(out, x, t)
        g = jax.tree.map(jnp.subtract, read(more, x, t), before)
        moved = read(shift(out, g, x, t), x, t)
        nothing = shift(out, jax.tree.map(jnp.zeros_like, g), x, t)
        return jax.tree.map(jnp.subtract, moved, before), g, nothing

    draw = lambda key: jax.tree.map(lambda a: jax.random.normal(key, a.shape), x)
    out = draw(one)
    changed, g, nothing = run(out, draw(other))
    for found, want in zip(jax.tree.leaves(changed), jax.tree.leaves(g), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-4 * abs(want).max())
    jax.tree.map(np.testing.assert_array_equal, nothing, out)


def test_a_classifier_on_the_sphere_gives_a_riemannian_gradient():
    process = DIFFUSIONS["sphere"]()
    x, t = jnp.asarray([[0.6, 0.0, 0.8]]), jnp.asarray([0.4])
    pole = jnp.asarray([0.0, 0.0, 1.0])
    guided = guidance.classifier(
        lambda x, t, cond: jnp.zeros_like(x),
        lambda x, t, cond: 2.0 * x @ pole,
        shifts.process(process),
        gradient=shifts.tangent(process.space),
    )
    score = jax.vmap(process.read)(guided(x, t, None), x, t)
    np.testing.assert_allclose(score[0], 2 * (pole - 0.8 * x[0]), atol=1e-5)


def test_a_classifier_of_a_product_gives_each_part_its_gradient():
    parts = {"a": gaussian.vp(CLOCK, (2,)), "b": sphere.sphere(CLOCK, (3,))}
    process, pole = product(parts), jnp.asarray([0.0, 0.0, 1.0])
    x, t = {"a": jnp.asarray([[0.3, -1.0]]), "b": jnp.asarray([[0.6, 0.0, 0.8]])}, jnp.full(1, 0.4)
    guided = guidance.classifier(
        lambda x, t, cond: jax.tree.map(jnp.zeros_like, x),
        lambda x, t, cond: x["a"][:, 0] * (x["b"] @ pole),
        shifts.process(process),
        0.5,
        gradient=shifts.tangent({name: part.space for name, part in parts.items()}),
    )
    nothing = jax.tree.map(jnp.zeros_like, x)
    score = jax.vmap(process.read)
    moved, before = score(guided(x, t, None), x, t), score(nothing, x, t)
    np.testing.assert_allclose(moved["a"] - before["a"], [[0.4, 0.0]], atol=1e-5)
    want = 0.15 * (pole - 0.8 * x["b"][0])
    np.testing.assert_allclose((moved["b"] - before["b"])[0], want, atol=1e-5)


def labelled(world):
    """log p(y | x_t) of y in {0, 1} drawn given x0, for every x; and p_t(x | y = 1)."""
    chain, schedule = world.ctmc
    x, t = tiny.states(chain.num_states), 0.6
    says = jax.random.uniform(jax.random.key(5), (len(world.values),))  # p(y = 1 | x0)
    rows = chain.row(jnp.asarray(world.values), schedule.clock(jnp.asarray(t)))
    kernel = rows[:, 0, x[:, 0]] * rows[:, 1, x[:, 1]]  # [x0, x]
    prior = jnp.asarray(world.law.reshape(-1))
    joint = (prior * says) @ kernel
    return x, t, jnp.log(joint / (prior @ kernel)), joint


@pytest.mark.parametrize("name", ["uniform", "absorbing", "birth_death", "rates"])
def test_log_ratios_given_a_label_are_exact(name):
    """log p(y | x) is linear in each site's vector, so that every one-site change is exact."""
    world = tiny.world(name)
    read, k = ctmc.leave_one_out(world.ctmc), world.ctmc.chain.num_states
    x, t, log_y, joint = labelled(world)
    table = log_y.reshape(k, k)
    log_prob = lambda hot, t, cond: jnp.einsum("ba,bc,ac->b", hot[:, 0], hot[:, 1], table)
    network = lambda x, t, cond: world.outputs["leave_one_out"](x, t)
    guided = guidance.classifier(
        shifts.log_ratios(network, read), log_prob, shifts.logits, encode=shifts.one_hot(k)
    )(x, jnp.full(len(x), t), None)
    law = joint.reshape(k, k)
    for at, found in zip(x, jnp.exp(guided), strict=True):
        if law[tuple(at)] > 0:
            np.testing.assert_allclose(found[0], law[:, at[1]] / law[tuple(at)], rtol=2e-3)
            np.testing.assert_allclose(found[1], law[at[0]] / law[tuple(at)], rtol=2e-3)
