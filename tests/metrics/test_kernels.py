import itertools

import numpy as np
import pytest
from metrics.states import SPECS, states
from scipy.spatial.transform import Rotation
from scipy.stats import norm

from gmjax.metrics import kernels
from gmjax.metrics.geometry import flat
from gmjax.metrics.samples import LAWS, independent
from gmjax.types import DataSpec


def middles(low, high, cells):
    edges = np.linspace(low, high, cells + 1)
    return 0.5 * (edges[1:] + edges[:-1]), (high - low) / cells


def square(low, high, cells):
    """Midpoints of a square and the area of a cell."""
    at, side = middles(low, high, cells)
    return np.stack(np.meshgrid(at, at), -1).reshape(-1, 2), side**2


def sphere():
    (u, du), (v, dv) = middles(-1, 1, 300), middles(-np.pi, np.pi, 300)
    u, v = (a.ravel() for a in np.meshgrid(u, v))
    r = np.sqrt(1 - u * u)
    return np.stack([r * np.cos(v), r * np.sin(v), u], -1), du * dv


def simplex():
    x, area = square(0, 1, 600)
    x = x[x.sum(1) < 1 - 1e-9]
    # Cells that the long edge cuts have their middles on it, and a density of zero there.
    return np.concatenate([x, 1 - x.sum(1, keepdims=True)], 1), area


def hyperbolic():
    """Columns sinh: their span grows with the distance; the volume is da db / height."""
    x, area = square(-6, 6, 500)
    a = np.sinh(x)
    height = np.sqrt(1 + (a * a).sum(1))
    return np.concatenate([height[:, None], a], 1), area * np.cosh(x).prod(1) / height


def turns(y):
    """Rotations y exp(w e) about one axis: the law of the angle is (1 - cos w) / pi of 8 pi^2."""
    w, dw = middles(0, np.pi, 4000)
    x = y.reshape(3, 3) @ Rotation.from_rotvec(w[:, None] * [0.6, 0.0, 0.8]).as_matrix()
    return x.reshape(-1, 9), 8 * np.pi * (1 - np.cos(w)) * dw


NODES = {
    "euclidean": lambda y: square(-14, 14, 500),
    "half_line": lambda y: (lambda at, side: (at[:, None], side))(*middles(0, 120, 60_000)),
    "torus": lambda y: square(-np.pi, np.pi, 200),
    "sphere": lambda y: sphere(),
    "simplex": lambda y: simplex(),
    "hyperbolic": lambda y: hyperbolic(),
    "rotations": turns,
    "counts": lambda y: (np.array(list(itertools.product(range(400), repeat=2))), 1.0),
    "classes": lambda y: (np.array(list(itertools.product(range(3), repeat=2))), 1.0),
}


def data(kind):
    x = states("table", 20)["classes"] if kind == "classes" else states(kind, 20)
    return flat(x)


@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_kernels_integrate_to_one(kind):
    """By midpoints, or by the sum over all states, at three widths about two examples."""
    assert set(kernels.KERNELS) == set(LAWS) == set(NODES)
    x = data(kind)
    kernel = kernels.KERNELS[kind](x, 3)
    for y in x[:2]:
        nodes, volume = NODES[kind](y)
        s = kernel.s(nodes.astype(float), y[None])[:, 0]
        for kappa in (0.5, 4.0, 30.0):
            mass = np.sum(np.exp(kappa * s - kernel.z(y[None], kappa)) * volume)
            assert mass == pytest.approx(1.0, abs=2e-3), kappa


@pytest.mark.parametrize("kind", ["torus", "sphere", "simplex", "counts", "euclidean"])
def test_densities_integrate_to_one(kind):
    x = data(kind)
    spec = SPECS[kind]
    log_prob = kernels.density(spec, x, independent(spec, x).log_prob)
    nodes, volume = NODES[kind](x[0])
    # The law without structure has tails beyond the square.
    assert np.sum(np.exp(log_prob(nodes)) * volume) == pytest.approx(1.0, abs=5e-3)


def test_kernel_density_of_a_known_law():
    """Two normal numbers, 2000 examples: in mean within .03 nats of the law, never above it by
    more than four standard errors; far out the plain law is left, an example's worth."""
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(2, 2000, 2)) * [1.0, 50.0]
    spec = DataSpec((2,), 0, "euclidean")
    plain = independent(spec, x).log_prob
    log_prob = kernels.density(spec, x, plain)
    gap = log_prob(new) - norm.logpdf(new / [1.0, 50.0]).sum(1) + np.log(50)
    assert -0.03 < gap.mean() < 4 * gap.std() / np.sqrt(len(gap))
    far = np.array([[60.0, 0.0]])
    np.testing.assert_allclose(log_prob(far), plain(far) - np.log(2001), rtol=1e-6)


def test_states_on_the_edge_and_in_many_dimensions_have_a_finite_density():
    edge = np.array([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    wide = np.eye(400)[:40]
    for kind, x in (("simplex", edge), ("half_line", edge), ("sphere", wide), ("euclidean", wide)):
        spec = DataSpec(x.shape[1:], 0, kind)
        law = independent(spec, x)
        assert np.isfinite(kernels.density(spec, x, law.log_prob)(x)).all(), kind
