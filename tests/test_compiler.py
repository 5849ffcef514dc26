"""Programs that YNNPACK's fusions get wrong are right once gmjax is imported."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmjax

PROGRAM = """
import gmjax, jax, jax.numpy as jnp
t = jnp.asarray([0.5, 2.0])
total = jax.jit(lambda w, t: jnp.sum(w @ jnp.broadcast_to(t[:, None, None], (2, 2, 10)), -1))
print(float(total(jnp.ones((2, 7, 2)), t)[1, 3]))
"""


@pytest.mark.parametrize("flags", ["", "--xla_cpu_enable_fast_math=false"])
def test_sums_of_products_in_a_process_of_their_own(flags):
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert out.returncode == 0, out.stderr
    assert float(out.stdout) == 40.0


def test_sums_of_products_here():
    x = jnp.zeros((40_000, 3)).at[:, 0].set(jnp.arange(40_000.0) % 100)
    square = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2)))
    np.testing.assert_array_equal(square(x), x[:, 0] ** 2)
    w, t = jnp.ones((3, 20, 2)), jnp.asarray([0.5, 1.0, 2.0])
    one = lambda w, t: jnp.sum(w @ jnp.broadcast_to(t, (2, 10)))
    total = jax.jit(jax.vmap(jax.vmap(one, (0, None))))
    np.testing.assert_allclose(total(w, t), 20 * t[:, None] * np.ones((3, 20)), rtol=1e-6)


def test_what_the_user_says_is_left():
    own = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT"
    assert gmjax._safe(own, "0.10.2") == own
    assert gmjax._safe("--a=1", "0.11.0") == "--a=1 --xla_cpu_experimental_ynn_fusion_type="
    assert gmjax._safe("--a=1", "0.10.1") == gmjax._safe("--a=1", "0.13.0") == "--a=1"
