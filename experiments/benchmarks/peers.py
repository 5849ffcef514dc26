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


def _perceptron(width: int, layers: int):
    """The network of `benchmarks.manifold` in PyTorch, its output projected to the sphere."""
    import torch
    from flow_matching.utils import ModelWrapper
    from flow_matching.utils.manifolds import Sphere

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sizes = [4, *[width] * layers]
    parts: list[torch.nn.Module] = []
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):
        parts += [torch.nn.Linear(a, b), torch.nn.SiLU()]
    body = torch.nn.Sequential(*parts, torch.nn.Linear(width, 3))
    manifold = Sphere()

    class Velocity(ModelWrapper):
        def __init__(self):
            super().__init__(body)

        def forward(self, x, t, **extras):
            t = t.reshape(-1, 1).expand(len(x), 1)
            return manifold.proju(x, body(torch.cat([x, t], -1)))

    return Velocity(), manifold


def sphere_training(width: int, layers: int, rate: float, data: np.ndarray) -> Callable[[], object]:
    """One update of Riemannian flow matching on the sphere from the uniform law.

    Args:
        width, layers: of the perceptron.
        rate: Adam's.
        data: [B, 3] unit vectors.

    Returns:
        A function that makes one update.
    """
    import torch
    from flow_matching.path import GeodesicProbPath
    from flow_matching.path.scheduler import CondOTScheduler

    network, manifold = _perceptron(width, layers)
    path = GeodesicProbPath(scheduler=CondOTScheduler(), manifold=manifold)
    adam = torch.optim.Adam(network.parameters(), lr=rate)
    x1 = torch.from_numpy(data)

    def update():
        x0 = manifold.projx(torch.randn_like(x1))
        found = path.sample(x_0=x0, x_1=x1, t=torch.rand(len(x1)))
        loss = ((network(found.x_t, found.t) - found.dx_t) ** 2).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss.item()

    return update


def sphere_sampling(
    width: int, layers: int, start: np.ndarray, steps: int, method: str
) -> Callable[[], object]:
    """The peer's Riemannian solver from given points.

    Args:
        width, layers: of the perceptron.
        start: [B, 3] unit vectors.
        steps: of the solver.
        method: "euler" or "midpoint".

    Returns:
        A function that makes one run.
    """
    import torch
    from flow_matching.solver import RiemannianODESolver

    network, manifold = _perceptron(width, layers)
    solver = RiemannianODESolver(manifold, network)
    x0 = torch.from_numpy(start)
    return lambda: solver.sample(x0, step_size=1 / steps, method=method)
