"""The networks of `benchmarks.euclidean` in plain PyTorch, made from our parameters.

Each takes the parameters of one of ours and is the same function of (x, t): weights are copied,
so that what is compared is how the same work is run. Images are [B, H, W, C] at both ends, as
ours are. Only for networks of one number an entry, without classes, contexts, mixer and dropout.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

Params = Mapping[str, Any]


def _tensor(a: Any) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.array(a, np.float32)))


def linear(p: Params) -> nn.Linear:
    """A dense layer: kernel [in, out], bias [out]."""
    layer = nn.Linear(*p["kernel"].shape)
    layer.weight, layer.bias = _tensor(np.asarray(p["kernel"]).T), _tensor(p["bias"])
    return layer


def conv(p: Params, stride: int = 1) -> nn.Conv2d:
    """A convolution: kernel [h, w, in, out], bias [out]; of stride 2 the caller pads."""
    side, _, inside, out = p["kernel"].shape
    layer = nn.Conv2d(inside, out, side, stride, padding=side // 2 if stride == 1 else 0)
    layer.weight = _tensor(np.asarray(p["kernel"]).transpose(3, 2, 0, 1))
    layer.bias = _tensor(p["bias"])
    return layer


def norm(p: Params) -> nn.GroupNorm:
    """A group norm with the largest number of groups up to 8 that divides."""
    width = p["scale"].shape[0]
    groups = next(g for g in (8, 6, 4, 3, 2, 1) if width % g == 0)
    layer = nn.GroupNorm(groups, width, eps=1e-6)
    layer.weight, layer.bias = _tensor(p["scale"]), _tensor(p["bias"])
    return layer


class Perceptron(nn.Module):
    """`euclidean.Perceptron`."""

    def __init__(self, params: Params):
        super().__init__()
        p = params["params"]
        self.layers = nn.ModuleList(linear(p[f"Dense_{i}"]) for i in range(len(p)))

    def forward(self, x, t):
        h = torch.cat([x, t[:, None]], -1)
        for layer in self.layers[:-1]:
            h = functional.silu(layer(h))
        return self.layers[-1](h)


class Time(nn.Module):
    """`embeddings.Condition` without classes."""

    waves: torch.Tensor

    def __init__(self, p: Params):
        super().__init__()
        self.first, self.second = linear(p["Dense_1"]), linear(p["Dense_0"])
        waves = torch.from_numpy(np.geomspace(1, 1e3, self.first.in_features // 2))
        self.register_buffer("waves", waves.float())

    def forward(self, t):
        angle = t[:, None] * self.waves
        features = math.sqrt(2) * torch.cat([angle.sin(), angle.cos()], -1)
        return self.second(functional.silu(self.first(features)))


class Block(nn.Module):
    """`unet.Block`."""

    def __init__(self, p: Params):
        super().__init__()
        self.norm, self.conv = norm(p["GroupNorm_0"]), conv(p["Conv_0"])
        self.film = linear(p["Dense_0"])
        self.norm_2, self.conv_2 = norm(p["GroupNorm_1"]), conv(p["Conv_1"])
        self.skip = conv(p["Conv_2"]) if "Conv_2" in p else nn.Identity()

    def forward(self, x, c):
        h = self.conv(functional.silu(self.norm(x)))
        scale, shift = self.film(c)[:, :, None, None].chunk(2, 1)
        h = functional.silu(self.norm_2(h) * (1 + scale) + shift)
        return self.skip(x) + self.conv_2(h)


class Attention(nn.Module):
    """`unet.Attention`."""

    def __init__(self, p: Params, heads: int = 4):
        super().__init__()
        self.norm, self.qkv, self.out = norm(p["GroupNorm_0"]), *map(linear, _dense_layers(p))
        self.heads = heads

    def forward(self, x):
        b, c, height, width = x.shape
        tokens = self.norm(x).reshape(b, c, -1).transpose(1, 2)
        qkv = self.qkv(tokens).reshape(b, height * width, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        out = self.out(mixed.reshape(b, height * width, c))
        return x + out.transpose(1, 2).reshape(x.shape)


def _dense_layers(p: Params) -> list[Params]:
    """The dense layers of a module in their order."""
    return [p[f"Dense_{i}"] for i in range(sum(name.startswith("Dense_") for name in p))]


class UNet(nn.Module):
    """`continuous.UNet`; its Attention must have a width that four heads divide."""

    def __init__(self, params: Params, levels: int, blocks: int):
        super().__init__()
        p = params["params"]
        self.levels, self.blocks = levels, blocks
        self.time = Time(p["Condition_0"])
        self.block = nn.ModuleDict({n: Block(p[n]) for n in p if n.endswith("_block")})
        self.attention = nn.ModuleDict({n: Attention(p[n]) for n in p if n.endswith("_attention")})
        strides = [2 if 0 < i < levels else 1 for i in range(2 * levels)]
        self.conv = nn.ModuleList(conv(p[f"Conv_{i}"], s) for i, s in enumerate(strides))
        self.norm = norm(p["GroupNorm_0"])

    def level(self, h, c, name):
        h = self.block[f"{name}_block"](h, c)
        name = f"{name}_attention"
        return self.attention[name](h) if name in self.attention else h

    def forward(self, x, t):
        c, convs = functional.silu(self.time(t)), iter(self.conv)
        h = next(convs)(x.permute(0, 3, 1, 2))
        skips = [h]
        for i in range(self.levels):
            for j in range(self.blocks):
                h = self.level(h, c, f"down_{i}_{j}")
                skips.append(h)
            if i < self.levels - 1:
                h = next(convs)(functional.pad(h, (0, 1, 0, 1)))
                skips.append(h)
        for i in reversed(range(self.levels)):
            for j in range(self.blocks + 1):
                h = self.level(torch.cat([h, skips.pop()], 1), c, f"up_{i}_{j}")
            if i > 0:
                h = next(convs)(functional.interpolate(h, scale_factor=2, mode="nearest"))
        return next(convs)(functional.silu(self.norm(h))).permute(0, 2, 3, 1)


class TokenBlock(nn.Module):
    """`transformer.Block`."""

    def __init__(self, p: Params, heads: int):
        super().__init__()
        self.heads = heads
        self.modulation = linear(p["Modulation_0"]["Dense_0"])
        self.qkv, self.out, self.up, self.down = map(linear, _dense_layers(p))

    def forward(self, h, c, cos, sin):
        scale, shift, gate, scale_2, shift_2, gate_2 = self.modulation(c)[:, None].chunk(6, -1)
        h = h + gate * self.attend(_normalise(h) * (1 + scale) + shift, cos, sin)
        u = self.up(_normalise(h) * (1 + scale_2) + shift_2)
        return h + gate_2 * self.down(functional.gelu(u, approximate="tanh"))

    def attend(self, h, cos, sin):
        b, n, width = h.shape
        q, k, v = self.qkv(h).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(b, n, width))


def _normalise(h):
    return functional.layer_norm(h, h.shape[-1:], eps=1e-6)


def _rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Transformer(nn.Module):
    """`continuous.Transformer` on images, with both kinds of positions.

    Args:
        params: of ours.
        patch, heads: of ours.
        positions: [T, C], its sinusoidal positions.
        angles: [T, d / 2], its rotary angles.
    """

    positions: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, params: Params, patch: int, heads: int, positions: Any, angles: Any):
        super().__init__()
        p, self.patch = params["params"], patch
        self.time = Time(p["Condition_0"])
        self.modulation = linear(p["Modulation_0"]["Dense_0"])
        self.first, self.last = map(linear, _dense_layers(p))
        self.blocks = nn.ModuleList(
            TokenBlock(p[f"block_{i}"], heads) for i in range(sum("block_" in name for name in p))
        )
        fixed = torch.from_numpy(np.array(positions)), torch.from_numpy(np.array(angles))
        self.register_buffer("positions", fixed[0])
        self.register_buffer("cos", fixed[1].cos())
        self.register_buffer("sin", fixed[1].sin())

    def forward(self, x, t):
        b, height, width, channels = x.shape
        p, rows, columns = self.patch, height // self.patch, width // self.patch
        cells = x.reshape(b, rows, p, columns, p, channels).transpose(2, 3)
        h = self.first(cells.reshape(b, rows * columns, -1)) + self.positions
        c = functional.silu(self.time(t))
        for block in self.blocks:
            h = block(h, c, self.cos, self.sin)
        scale, shift = self.modulation(c)[:, None].chunk(2, -1)
        out = self.last(_normalise(h) * (1 + scale) + shift)
        return out.reshape(b, rows, columns, p, p, channels).transpose(2, 3).reshape(x.shape)
