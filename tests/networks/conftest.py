import jax
import numpy as np
import pytest


@pytest.fixture(scope="session")
def random_params():
    """(net, *args) -> parameters all drawn at random, those that start at zero included.

    NumPy draws them: compiling a network's initialisers takes longer than the rest of a test.
    """

    def draw(net, *args):
        rng = np.random.default_rng(0)
        like = jax.eval_shape(net.init, jax.random.key(0), *args)
        normal = lambda a: 0.7 * rng.normal(size=a.shape) / np.sqrt(max(a.shape[0], 8))
        return jax.tree.map(lambda a: normal(a).astype(a.dtype), like)

    return draw
