"""Other libraries, imported only where they are installed."""

import importlib.util
import os
from collections.abc import Callable
from typing import Any

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


def have_torch() -> bool:
    """Is PyTorch installed?"""
    return importlib.util.find_spec("torch") is not None


def _torch_device() -> str:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return "cuda" if torch.cuda.is_available() else "cpu"


def torch_training(
    network: Any, rate: float, data: np.ndarray, half: bool, compiled: bool
) -> Callable[[], object]:
    """One update in plain PyTorch: x = (1 - t) x0 + t eps, velocity eps - x0, Adam.

    Args:
        network: a module (x [B, *S], t [B]) -> [B, *S].
        rate: Adam's.
        data: x0 [B, *S].
        half: matrix products and convolutions in bfloat16.
        compiled: the network by `torch.compile`.

    Returns:
        A function that makes one update; its first call compiles.
    """
    import torch

    device = _torch_device()
    model = network.to(device)
    adam = torch.optim.Adam(model.parameters(), lr=rate)
    model = torch.compile(model) if compiled else model
    x0 = torch.from_numpy(data).to(device)
    spread = (-1,) + (1,) * (x0.ndim - 1)

    def update():
        t, eps = torch.rand(len(x0), device=device), torch.randn_like(x0)
        x = x0 + t.reshape(spread) * (eps - x0)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            out = model(x, t)
        loss = ((out.float() - (eps - x0)) ** 2).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss.item()

    return update


def torch_sampling(
    network: Any, start: np.ndarray, steps: int, half: bool, compiled: bool
) -> Callable[[], object]:
    """Euler steps of the flow from t = 1 to 0 in plain PyTorch, without gradients.

    Args:
        network: as of `torch_training`.
        start: x at t = 1, [B, *S].
        steps: equal ones.
        half, compiled: as of `torch_training`.

    Returns:
        A function that makes one run.
    """
    import torch

    device = _torch_device()
    model = network.to(device)
    model = torch.compile(model) if compiled else model
    first = torch.from_numpy(start).to(device)

    @torch.no_grad()
    def run():
        x = first
        for i in range(steps):
            t = torch.full((len(x),), 1 - i / steps, device=device)
            with torch.autocast(device, torch.bfloat16, enabled=half):
                out = model(x, t)
            x = x - out.float() / steps
        return x.sum().item()

    return run


def flow_matching_training(network: Any, rate: float, data: np.ndarray) -> Callable[[], object]:
    """One update as in the 2-D example of `flow_matching`: its path, mean square, Adam."""
    import torch
    from flow_matching.path import AffineProbPath
    from flow_matching.path.scheduler import CondOTScheduler

    model = network.to(_torch_device())
    path, x1 = AffineProbPath(scheduler=CondOTScheduler()), torch.from_numpy(data)
    adam = torch.optim.Adam(model.parameters(), lr=rate)

    def update():
        adam.zero_grad()
        found = path.sample(x_0=torch.randn_like(x1), x_1=x1, t=torch.rand(len(x1)))
        loss = ((model(found.x_t, found.t) - found.dx_t) ** 2).mean()
        loss.backward()
        adam.step()
        return loss.item()

    return update


def flow_matching_sampling(network: Any, start: np.ndarray, steps: int) -> Callable[[], object]:
    """The solver of `flow_matching` from given points, by Euler steps."""
    import torch
    from flow_matching.solver import ODESolver
    from flow_matching.utils import ModelWrapper

    class Velocity(ModelWrapper):
        def forward(self, x, t, **extras):
            return self.model(x, t.expand(len(x)))

    _torch_device()
    solver, x0 = ODESolver(velocity_model=Velocity(network)), torch.from_numpy(start)
    return lambda: solver.sample(x_init=x0, method="euler", step_size=1 / steps)
