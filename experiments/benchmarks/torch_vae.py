"""A variational autoencoder of two perceptrons in plain PyTorch, made from our parameters."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from experiments.benchmarks.torch_networks import linear
from gmjax.networks.vae import BOUND


class Autoencoder(nn.Module):
    """`gmjax.networks.vae.Mlp` with tanh and one number an entry: the log-odds of 1."""

    def __init__(self, params: Mapping[str, Any]):
        super().__init__()
        p = params["params"]
        sides = ("inward", "outward")
        count = {side: sum(name.startswith(side) for name in p) for side in sides}
        self.inward, self.outward = (
            nn.ModuleList(linear(p[f"{side}_{i}"]) for i in range(count[side])) for side in sides
        )

    def encode(self, x):
        """x [B, D] -> mean and log std, [B, L]."""
        mean, log_std = _chain(self.inward, x).chunk(2, -1)
        return mean, BOUND * torch.tanh(log_std / BOUND)

    def decode(self, z):
        """z [..., L] -> log-odds [..., D]."""
        return _chain(self.outward, z)


def _chain(layers: nn.ModuleList, h):
    for layer in layers[:-1]:
        h = torch.tanh(layer(h))
    return layers[-1](h)


def loss(model: Autoencoder, x, particles: int):
    """Nats an example, [B]: the ELBO with the KL in closed form, or the IWAE bound of several."""
    mean, log_std = model.encode(x)
    noise = torch.randn(particles, *mean.shape)
    z = mean + log_std.exp() * noise
    logits = model.decode(z)
    target = x.expand(particles, -1, -1)
    missed = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)
    if particles == 1:
        kl = 0.5 * (mean**2 + torch.expm1(2 * log_std) - 2 * log_std).sum(-1)
        return missed[0] + kl
    cost = (0.5 * (z**2 - noise**2) - log_std).sum(-1)  # log q(z | x) - log p(z)
    return np.log(particles) - torch.logsumexp(-missed - cost, 0)


def decoded(model: Autoencoder, z: np.ndarray) -> np.ndarray:
    """Log-odds of codes [n, L]: [n, D]."""
    with torch.no_grad():
        return model.decode(torch.from_numpy(z)).numpy()


class Training:
    """Adam on shuffled batches of data that are held in memory.

    Args:
        params: of our network.
        x: [n, D] of 0 and 1.
        batch: B.
        rate: of learning.
        particles: draws an example.
    """

    def __init__(self, params: Any, x: np.ndarray, batch: int, rate: float, particles: int):
        self.model, self.particles = Autoencoder(params), particles
        self.x, self.batch, self.at = torch.from_numpy(np.asarray(x, np.uint8)), batch, 0
        self.order, self.threads = torch.randperm(len(x)), torch.get_num_threads()
        self.optimizer = torch.optim.Adam(self.model.parameters(), rate)

    def run(self, steps: int, threads: int) -> float:
        """So many updates on so many threads; the last loss."""
        torch.set_num_threads(threads)
        value = torch.zeros(())
        for _ in range(steps):
            if self.at + self.batch > len(self.x):
                self.order, self.at = torch.randperm(len(self.x)), 0
            x = self.x[self.order[self.at : self.at + self.batch]].float()
            self.at += self.batch
            value = loss(self.model, x, self.particles).mean()
            self.optimizer.zero_grad(set_to_none=True)
            value.backward()
            self.optimizer.step()
        return float(value.detach())
