"""Generative models in JAX: noising processes, losses and samplers on any state space.

JAX 0.10.2 and later compile sums over matrix products for CPUs with fusions of YNNPACK, some of
which come out wrong without a word: sum(w @ M) over a batch with M one number broadcast, and
sum((m @ x)^2) over more than 16 384 vectors x. Importing this package turns these fusions off; it
has to come before JAX computes anything. An entry of XLA_FLAGS for them is left as it is.
Source: https://github.com/jax-ml/jax/issues/39103.
"""

import os
from importlib import metadata

__version__ = "0.1.0"

_FUSIONS = "--xla_cpu_experimental_ynn_fusion_type"


def _safe(flags: str, version: str) -> str:
    """XLA_FLAGS without the wrong fusions, for a version of jaxlib that has them."""
    release = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    affected = (0, 10, 2) <= release < (0, 13)
    return f"{flags} {_FUSIONS}=".strip() if affected and _FUSIONS not in flags else flags


if _flags := _safe(os.environ.get("XLA_FLAGS", ""), metadata.version("jaxlib")):
    os.environ["XLA_FLAGS"] = _flags
