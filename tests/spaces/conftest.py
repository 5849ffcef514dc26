"""pymanopt turns JAX's double precision on when imported; here it is imported and turned back."""

import contextlib

import jax

before = jax.config.jax_enable_x64
with contextlib.suppress(ImportError):
    import pymanopt.manifolds  # noqa: F401
jax.config.update("jax_enable_x64", before)
