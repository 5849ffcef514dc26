"""Chains against the matrix exponential, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from gmjax.processes import chains
from gmjax.types import UserError

CYCLE = np.array([[-1.0, 1, 0, 0], [0, -2, 2, 0], [0, 0, -0.5, 0.5], [1.5, 0, 0.5, -2]])

CASES = {
    "uniform": (chains.uniform(5), np.full((5, 5), 1 / 5) - np.eye(5)),
    "absorbing": (chains.absorbing(4), np.outer(np.ones(5), np.eye(5)[4]) - np.eye(5)),
    "birth_death": (
        chains.birth_death(4),
        np.array([[-1.0, 1, 0, 0], [1, -2, 1, 0], [0, 1, -2, 1], [0, 0, 1, -1]]),
    ),
    "gaussian": (chains.gaussian(6, 2.0, 1.5), None),
    "rates": (chains.rates(CYCLE), CYCLE),
}


def matrix(name):
    """The rate matrix of a case, read back from its rows."""
    chain, r = CASES[name]
    rows = np.asarray(chain.rates_out(jnp.arange(chain.num_states)), np.float64)
    built = rows - np.diag(rows.sum(1))
    if r is not None:
        np.testing.assert_allclose(built, r, atol=1e-6)
    return built


def test_every_chain_is_tested():
    assert set(CASES) == set(chains.CHAINS)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("b", [1e-3, 0.1, 1.0, 7.3])
def test_kernel_is_the_matrix_exponential(name, b):
    chain, _ = CASES[name]
    k, v = chain.num_states, chain.num_values
    q = scipy.linalg.expm(b * matrix(name))
    states = jnp.arange(k)
    np.testing.assert_allclose(chain.row(states, b), q, atol=3e-6)
    np.testing.assert_allclose(chain.column(states, b), q.T, atol=3e-6)
    # One site too, where a dense chain takes the other route through its factors.
    np.testing.assert_allclose(chain.row(states[1:2], b)[0], q[1], atol=3e-6)
    np.testing.assert_allclose(chain.column(states[1:2], b)[0], q[:, 1], atol=3e-6)
    p = np.random.default_rng(0).dirichlet(np.ones(v), size=7)
    start = np.pad(p, ((0, 0), (0, k - v)))
    law = start @ q
    np.testing.assert_allclose(chain.push(jnp.asarray(p, jnp.float32), b), law, atol=3e-6)
    np.testing.assert_allclose(chain.push(jnp.asarray(p[:1], jnp.float32), b), law[:1], atol=3e-6)
    np.testing.assert_allclose(
        np.exp(chain.log_push(jnp.log(jnp.asarray(p, jnp.float32)), b)), law, atol=3e-6
    )
    if b <= 1:
        np.testing.assert_allclose(
            chain.pull(jnp.asarray(law, jnp.float32), b), start, atol=1e-4 * np.linalg.cond(q)
        )


def positive_expm(r, b):
    """exp(b R) in float64, every entry right relative to itself: sums of what is not negative."""
    c = -np.diag(r).min()
    halvings = max(0, int(np.ceil(np.log2(max(b * c, 1e-12))))) + 1
    step = b / 2**halvings * (r + c * np.eye(len(r)))
    q = term = np.eye(len(r))
    for j in range(1, 100):
        term = term @ step / j
        q = q + term
    q = q * np.exp(-b * c / 2**halvings)
    for _ in range(halvings):
        q = q @ q
        q /= q.sum(1, keepdims=True)
    return q


DENSE = {
    "birth_death": lambda: chains.birth_death(17),
    "gaussian": lambda: chains.gaussian(33, 8.0, 1.0),
    "rates": lambda: chains.rates(CYCLE),
    "fast": lambda: chains.rates(1e3 * CYCLE),
    "slow": lambda: chains.birth_death(64),
}


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("name", DENSE)
def test_small_entries_of_a_dense_kernel_are_right(name, double):
    with jax.enable_x64(double):
        chain = DENSE[name]()
        states = jnp.arange(chain.num_states)
        off = np.asarray(chain.rates_out(states), np.float64)
        r = off - np.diag(off.sum(1))
        both = lambda x: jax.jit(lambda b: (chain.row(x, b), chain.column(x, b)))
        runs = [(states, both(states)), (states[1:2], both(states[1:2]))]
        for b in np.float32([1e-4, 1e-3, 0.01, 0.3, 4.0, 60.0, 1e3, 1e4]).astype(float):
            q = positive_expm(r, b)
            for at, run in runs:
                for found, exact in zip(run(b), (q[at], q[:, at].T), strict=True):
                    assert found.dtype == (jnp.float64 if double else jnp.float32)
                    seen = exact > 1e-30  # less may underflow
                    # Sums of S numbers, three products deep, round to less.
                    np.testing.assert_allclose(
                        np.asarray(found)[seen], exact[seen], rtol=1e-10 if double else 1e-5
                    )
                    assert np.all(np.asarray(found) >= 0)


@pytest.mark.parametrize("name", CASES)
def test_rates_in_transpose_and_exit_rates_sum(name):
    chain, _ = CASES[name]
    r = matrix(name)
    off = r - np.diag(np.diag(r))
    states = jnp.arange(chain.num_states)
    np.testing.assert_allclose(chain.rates_in(states), off.T, atol=1e-6)
    np.testing.assert_allclose(chain.exit_rate(states), off.sum(1), rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_stationary_law_is_the_limit(name):
    chain, _ = CASES[name]
    np.testing.assert_allclose(chain.stationary @ matrix(name), 0, atol=1e-6)
    limit = chain.row(jnp.arange(chain.num_values), 200.0)
    np.testing.assert_allclose(limit, np.tile(chain.stationary, (len(limit), 1)), atol=1e-5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n", [2, 20_000])
def test_samples_follow_the_kernel(name, n):
    """A chi-square test at level 1e-3, for both ways a dense chain draws."""
    chain, _ = CASES[name]
    x0, b = 1, 0.7
    keys = jax.random.split(jax.random.key(3), 20_000 // n)
    draw = jax.jit(jax.vmap(lambda key: chain.sample(key, jnp.full(n, x0), b)))
    x = np.asarray(draw(keys)).reshape(-1)
    expected = scipy.linalg.expm(b * matrix(name))[x0]
    seen = np.bincount(x, minlength=chain.num_states)
    possible = expected > 1e-12
    assert np.all(seen[~possible] == 0)
    law = expected[possible] / expected[possible].sum()
    assert scipy.stats.chisquare(seen[possible], law * x.size).pvalue > 1e-3


def test_gaussian_chain_has_its_limit_and_detailed_balance():
    chain, _ = CASES["gaussian"]
    x = np.arange(6)
    law = np.exp(-((x - 2.5) ** 2) / 8)
    np.testing.assert_allclose(chain.stationary, law / law.sum(), atol=1e-9)
    flow = chain.stationary[:, None] * matrix("gaussian")
    np.testing.assert_allclose(flow, flow.T, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_irreversible_kernel_holds_over_scales(scale):
    """The binary powers keep their accuracy for long times and fast chains."""
    r = scale * CYCLE
    chain = chains.rates(r)
    for b in [1e-4 / scale, 3.0 / scale, 1e4 / scale]:
        expected = scipy.linalg.expm(b * r)
        np.testing.assert_allclose(chain.row(jnp.arange(4), b), expected, atol=1e-5)


def test_large_reversible_kernel_matches():
    chain = chains.gaussian(64, 32.0, 4.0)
    rows = np.asarray(chain.rates_out(jnp.arange(64)), np.float64)
    r = rows - np.diag(rows.sum(1))
    np.testing.assert_allclose(
        chain.row(jnp.arange(64), 0.3), scipy.linalg.expm(0.3 * r), atol=2e-6
    )


@pytest.mark.parametrize(
    "bad, word",
    [
        (np.zeros((2, 3)), "square"),
        (np.array([[1.0, -1.0], [1.0, -1.0]]), ">= 0"),
        (np.array([[-1.0, 2.0], [1.0, -1.0]]), "sum"),
        (np.zeros((3, 3)), "stationary"),
        (np.array([[np.nan, 1.0], [1.0, -1.0]]), "finite"),
    ],
)
def test_what_is_no_rate_matrix_is_named(bad, word):
    with pytest.raises(UserError, match=word):
        chains.rates(bad)
