"""Other libraries, imported only where they are installed."""

import importlib.util
import os
from collections.abc import Callable

import numpy as np

from gmjax.types import Array


def have_flow_matching() -> bool:
    """Are PyTorch and `flow_matching`, with what its solver imports, installed?"""
    return all(importlib.util.find_spec(name) for name in ("torch", "flow_matching", "tqdm"))


def flow_matching(posterior: Array, x: Array, steps: int) -> Callable[[], object]:
    """Discrete Euler steps of Meta's `flow_matching` under a fixed posterior.

    The steps start at time 0.5 and have length 0.01. The last one only draws from the posterior
    and is cheaper than the others.

    Args:
        posterior: [B, *S, V] probabilities, what its model puts out.
        x: [B, *S] states.
        steps: of one run.

    Returns:
        A function that makes one run.
    """
    import torch
    from flow_matching.path import MixtureDiscreteProbPath
    from flow_matching.path.scheduler import PolynomialConvexScheduler
    from flow_matching.solver import MixtureDiscreteEulerSolver
    from flow_matching.utils import ModelWrapper

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    table = torch.from_numpy(np.array(posterior))
    start = torch.from_numpy(np.array(x)).long()

    class Fixed(ModelWrapper):
        def __init__(self):
            super().__init__(None)

        def forward(self, x, t, **extras):
            return table

    path = MixtureDiscreteProbPath(PolynomialConvexScheduler(n=1.0))
    solver = MixtureDiscreteEulerSolver(Fixed(), path, posterior.shape[-1])
    grid = 0.5 + 0.01 * torch.arange(steps + 1)
    return lambda: solver.sample(start, step_size=None, time_grid=grid)
