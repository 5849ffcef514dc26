"""Draws by inverse CDF against the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gmjax import draws, generators


@pytest.mark.parametrize("k", [1, 2, 3, 17, 129, 256])
def test_categorical_is_the_inverse_cdf(k):
    rng = np.random.default_rng(k)
    w = rng.gamma(0.3, size=(500, k)).astype(np.float32)
    u = rng.uniform(size=500).astype(np.float32)
    cdf = np.cumsum(w.astype(np.float64), -1)
    expected = (cdf <= (u * cdf[:, -1])[:, None]).sum(-1)
    # A draw within float32 rounding of a boundary may fall to either side.
    edge = np.abs(cdf / cdf[:, -1:] - u[:, None]).min(-1) < 1e-6
    np.testing.assert_array_equal(np.asarray(draws.categorical(u, w))[~edge], expected[~edge])
    assert edge.mean() < 0.01


def vectors():
    """Weights of every kind that a draw may meet, by name."""
    rng = np.random.default_rng(0)
    sparse = lambda k, few: (rng.uniform(size=k) < few / k) * rng.gamma(0.3, size=k)
    ones = lambda k, share: (rng.uniform(size=k) < share).astype(float)
    at = lambda k, *places: np.isin(np.arange(k), places).astype(float)
    tail = lambda k, small, place: np.where(np.arange(k) == place, 1.0, small)
    return {
        "one": np.ones(1),
        "one of two": at(2, 1),
        "gap": np.array([0.5113275647163391, 0, 0, 0.6867895722389221]),
        "last": at(17, 16),
        "first": at(17, 0),
        "none": np.zeros(17),
        "gamma": rng.gamma(0.3, size=17),
        "every other": np.tile([0.3, 0.0], 32),
        "tiny": 1e-30 * rng.gamma(0.3, size=20),
        "below normal": np.tile([0.0, 0.0, 1e-40, 2e-45], 5),
        "one below normal": 1e-45 * at(264, 200),
        "huge": 1e28 * rng.gamma(0.3, size=20),
        "ends": at(129, 0, 128),
        "powers": 2.0 ** -np.arange(60),
        "levels": rng.gamma(0.3, size=256),
        "mask": np.append(np.zeros(256), 1.0),
        "sparse": sparse(264, 5),
        "sites": ones(784, 0.5),
        "few sites": ones(784, 0.02),
        "tail last": tail(784, 1e-6, 0),
        "tail first": tail(784, 1e-6, 783),
        "steep": np.exp(30 * rng.uniform(size=500)) * ones(500, 0.5),
        "softmax": np.exp(3 * rng.normal(size=1000)),
        "words": sparse(5000, 30),
    }


VECTORS = {name: w.astype(np.float32) for name, w in vectors().items()}
QUICK = ("one", "gap", "none", "tiny", "below normal", "mask", "sparse")
EDGES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in VECTORS]


def law_of(u, w):
    """(draws jitted, draws op by op) of one vector at the uniform numbers u [N], in chunks."""
    choose = jax.vmap(draws.chooser(jnp.asarray(w)))
    size = int(2**22 // max(1, len(w)) ** 0.5)
    parts = [jnp.asarray(u[i : i + size]) for i in range(0, len(u), size)]
    return (np.concatenate([f(p) for p in parts]) for f in (jax.jit(choose), choose))


def near_edges(w):
    """The uniform numbers in float32 about every partial sum, where rounding decides."""
    cdf = np.cumsum(w, dtype=np.float64) / max(w.sum(dtype=np.float64), 1e-300)
    steps = np.round(cdf * 2**23)[:, None] + np.arange(-4, 5)
    return np.unique(np.clip(steps, 0, 2**23 - 1) * 2.0**-23).astype(np.float32)


def holds(w, u, x):
    assert x.min() >= 0 and x.max() < len(w)
    if w.any():
        assert np.all(w[x] > 0), f"an entry of weight zero at u = {u[w[x] == 0][:3]}"
    else:
        assert not x.any()


@pytest.mark.simulates  # the compiler fuses products and sums only when it optimises
@pytest.mark.parametrize("name", EDGES)
def test_what_has_no_weight_is_never_drawn_at_the_edges(name):
    w, u = VECTORS[name], near_edges(VECTORS[name])
    for x in law_of(u, w):
        holds(w, u, x)
    single = jax.jit(draws.categorical)
    for v in u[:: max(1, len(u) // 8)]:
        holds(w, np.atleast_1d(v), np.atleast_1d(single(jnp.float32(v), jnp.asarray(w))))


@pytest.mark.slow
@pytest.mark.simulates
@pytest.mark.parametrize("name", VECTORS)
def test_every_uniform_number_gives_the_law(name):
    w, u = VECTORS[name], (np.arange(2**23) * 2.0**-23).astype(np.float32)
    x = next(law_of(u, w))
    holds(w, u, x)
    if w.any():
        # Each end of an entry moves by the rounding of sums of depth log2 K and by the spacing.
        p = np.where(w > 0, np.maximum(w, np.finfo(np.float32).tiny), 0).astype(np.float64)
        p = p / p.sum()
        off = np.bincount(x, minlength=len(w)) / 2**23 - p
        assert np.abs(off).max() <= (3 + np.log2(len(w))) * 2.0**-22


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 25_000])
def test_small_weights_beside_a_large_one_keep_their_law(place):
    k, n, small = 50_257, 2_000_000, 1e-8
    w = np.full(k, small, np.float32)
    w[place] = 1.0
    u = jax.random.uniform(jax.random.key(place), (n,))
    x = next(law_of(np.asarray(u), w))
    tail = x[x != place]
    p = (k - 1) * small / (1 + (k - 1) * small)
    # Four standard errors: one in 16 000.
    assert abs(len(tail) - n * p) < 4 * np.sqrt(n * p)
    groups = np.histogram(np.delete(np.arange(k), place), 20, (0, k))[0]
    counts = np.histogram(tail, 20, (0, k))[0]
    assert scipy.stats.chisquare(counts, groups / groups.sum() * len(tail)).pvalue > 1e-4


def test_uniform_numbers_are_fine_near_zero():
    """The first 23 bits of jax.random.uniform, and a choice after an event of small probability."""
    n, chance, k = 2**20, 2.0**-12, 2**14
    u = draws.uniform(jax.random.key(0), (n,))
    coarse = jax.random.uniform(jax.random.key(0), (n,))
    assert u.dtype == coarse.dtype and u.min() >= 0 and u.max() < 1
    assert jnp.abs(u - coarse).max() <= 2.0**-23
    event = u[u < chance]
    y = generators.euler(event, jnp.full(event.shape, -1), jnp.full((len(event), k), chance / k), 1)
    # Of m draws of k equal entries k (1 - exp(-m / k)) differ, to an error of m / sqrt(2 k);
    # the 2048 multiples of 2^-23 below the chance would leave nine such errors fewer.
    m = len(event)
    assert np.all(y >= 0) and abs(m - n * chance) < 4 * np.sqrt(n * chance)
    assert abs(len(np.unique(y)) - k * -np.expm1(-m / k)) < 4 * m / np.sqrt(2 * k)


def test_weights_of_half_precision_are_summed_in_single():
    w = jnp.ones(1000, jnp.bfloat16)  # in bfloat16 the sum of ones stops at 256
    x = np.asarray(jax.vmap(draws.chooser(w))(jnp.arange(1000) / 1000 + 5e-4))
    np.testing.assert_array_equal(x, np.arange(1000))


@pytest.mark.parametrize("rate", [0.0, 1e-3, 0.4, 3.0, 40.0, 300.0])
def test_poisson_is_the_inverse_cdf(rate):
    u = np.linspace(1e-3, 1 - 1e-3, 999).astype(np.float32)
    expected = scipy.stats.poisson.ppf(u, rate) if rate else np.zeros(999)
    n = np.asarray(jax.jit(draws.poisson)(u, jnp.full(999, rate, jnp.float32)))
    assert np.mean(n != expected) < 0.005  # rounding at the boundaries
    assert np.abs(n - expected).max() <= 1
    assert n[0] == expected[0] and draws.poisson(jnp.zeros(1), jnp.full(1, rate))[0] <= expected[0]


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1e-30, 0.5, 63.99, 64.0, 3e3, 1e6])
def test_poisson_has_its_law_at_every_uniform_number(rate):
    u = (np.arange(2**23) * 2.0**-23).astype(np.float32)
    n = np.asarray(jax.jit(draws.poisson)(u, jnp.full(u.shape, rate, jnp.float32)))
    assert np.all(np.diff(n) >= 0)
    k, counts = np.unique(n, return_counts=True)
    gap = np.cumsum(counts) / len(u) - scipy.stats.poisson.cdf(k, np.float32(rate))
    assert np.abs(gap).max() < 1.5e-6
    assert scipy.stats.poisson.sf(k[-1] - 1, np.float32(rate)) > 2.0**-26  # no outlier
    mean, var = n.mean(dtype=np.float64), n.var(dtype=np.float64)
    np.testing.assert_allclose([mean, var], np.float32(rate), rtol=3e-4, atol=1e-6)


def test_poisson_ends_at_the_largest_uniform_number():
    u = jnp.full(3, 1 - 2**-24, jnp.float32)
    n = draws.poisson(u, jnp.asarray([0.0, 1.0, 100.0]))
    assert n[0] <= 16 and n[1] <= 40 and n[2] <= 250
