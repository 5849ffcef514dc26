"""The figure of `experiments.vr_iwae_snr`."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments import page

COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def figure(rows: Sequence[Any], published: Mapping[tuple, Any], path: Path) -> None:
    """SNR of phi against N for every d and sigma, of theta, and against M: PNG and PDF.

    Args:
        rows: of `vr_iwae_snr.Row`.
        published: as `vr_iwae_snr.REFERENCE`.
    """
    from matplotlib.lines import Line2D

    dims = list(dict.fromkeys(r.dims for r in rows if r.source == "reduced"))
    sigmas = list(dict.fromkeys(r.sigma for r in rows if r.source == "reduced"))
    alphas = list(dict.fromkeys(r.alpha for r in rows if r.source == "reduced"))
    colours = dict(zip(alphas, COLOURS, strict=False))
    lines, columns = max(2, len(sigmas)), len(dims) + 1
    size = (2.9 * columns, 2.8 * lines)
    with page.figure(path, lines, columns, size, squeeze=False) as (fig, axes):
        for ax in axes[len(sigmas) :, : len(dims)].flat:
            ax.set_visible(False)
        for i, sigma in enumerate(sigmas):
            for j, d in enumerate(dims):
                _panel(
                    axes[i, j],
                    [r for r in rows if (r.dims, r.sigma) == (d, sigma)],
                    colours,
                    published,
                )
                axes[i, j].set_title(rf"$\phi$: $d = {d}$, $\sigma = {sigma:g}$", fontsize=9)
        axes[0, 0].set_ylabel("signal-to-noise ratio")
        _theta(axes[0, -1], [r for r in rows if r.sigma == sigmas[0]], dims)
        _outer(axes[1, -1], [r for r in rows if r.source == "outer"])
        handles = [Line2D([], [], color=c, label=rf"$\alpha = {a:g}$") for a, c in colours.items()]
        grey = partial(Line2D, [], [], color="grey")
        handles += [
            grey(ls="-", label="doubly reparam."),
            grey(ls="--", label="reparam."),
            grey(ls="", marker="o", ms=4, label="by differentiation"),
            grey(ls="", marker="s", ms=6, mfc="none", label="published"),
            grey(ls=":", label="unseen by 1000 draws"),
        ]
        fig.legend(handles=handles, loc="outside lower center", ncols=9, fontsize=7)


def _panel(ax, rows, colours, published):
    for alpha, colour in colours.items():
        for curve, line in (("drep", "-"), ("rep", "--")):
            own = [r for r in rows if (r.alpha, r.curve, r.m) == (alpha, curve, 1)]
            drawn = [r for r in own if r.source == "reduced"]
            if not drawn:
                continue
            ax.plot([r.n for r in drawn], [r.snr for r in drawn], line, color=colour, lw=1.2)
            dots = [r for r in own if r.source == "gradients"]
            ax.plot([r.n for r in dots], [r.snr for r in dots], "o", color=colour, ms=4)
            told = published.get((rows[0].dims, rows[0].sigma, alpha))
            if told and told[1]:
                values = told[1] if curve == "rep" else told[2]
                ax.plot((2, 512), values, "s", color=colour, ms=6, mfc="none")
    ax.axhline(1000**-0.5, color="grey", ls=":", lw=1)
    ax.set(xscale="log", yscale="log", xlabel="particles $N$")


def _theta(ax, rows, dims):
    for d, line in zip(dims, ("-", "--", ":"), strict=False):
        own = [r for r in rows if (r.dims, r.curve, r.alpha) == (d, "theta", 0.0)]
        own = [r for r in own if r.source == "reduced"]
        ax.plot([r.n for r in own], [r.snr for r in own], line, color="black", label=f"$d = {d}$")
    ax.set(xscale="log", yscale="log", xlabel="particles $N$")
    ax.set_title(rf"$\theta$: $\alpha = 0$, $\sigma = {rows[0].sigma:g}$", fontsize=9)
    ax.legend(fontsize=7)


def _outer(ax, rows):
    lines = {"theta": "k-^", "rep": "k--o", "drep": "k-o"}
    for curve, line in lines.items():
        own = [r for r in rows if r.curve == curve]
        label = {"theta": r"$\theta$", "rep": r"$\phi$, rep", "drep": r"$\phi$, drep"}[curve]
        ax.plot([r.m for r in own], [r.snr for r in own], line, ms=4, lw=1, label=label)
    ms = np.array(sorted({r.m for r in rows}))
    low = 0.6 * min(r.snr for r in rows)
    ax.plot(ms, low * np.sqrt(ms / ms[0]), ":", color="grey", label=r"$\sqrt{M}$")
    ax.set(xscale="log", yscale="log", xlabel="outer draws $M$")
    ax.set_title(rf"$d = {rows[0].dims}$, $\alpha = 0$, $N = {rows[0].n}$", fontsize=9)
    ax.legend(fontsize=7)
