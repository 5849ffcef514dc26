"""The figure of `d_linear_convergence`: seven panels and a legend."""

from pathlib import Path

import numpy as np

from experiments import page

COLOURS = {
    "gaussian": "#0072b2",
    "two_point": "#d55e00",
    "mixture_product": "#009e73",
    "sphere": "#cc79a7",
    "mixture": "#e69f00",
    "subspace": "#56b4e9",
}
NAMES = {
    "gaussian": "Gaussian",
    "two_point": "two points, product",
    "mixture_product": "mixture, product",
    "sphere": "sphere",
    "mixture": "Gaussian mixture (Monte Carlo)",
    "subspace": "Gaussian on a subspace",
}
LINES = {"path": "-", "law": "--"}


def figure(rows, constant: float, path: Path) -> None:
    """Draws all panels: PNG and PDF."""
    with page.figure(path, 2, 4, (13.5, 6.2)) as (_, axes):
        own = {p: [r for r in rows if r.panel == p] for p in dict.fromkeys(r.panel for r in rows)}
        dims, steps, needed, delta, size, below, same, legend = axes.ravel()
        _by_law(dims, own["dims"], "dim", constant)
        dims.set(xlabel="dimension $d$", ylabel="KL, nats", title=_count(own["dims"]))
        _by_law(steps, own["steps"], "steps", constant)
        steps.set(xlabel="steps $N$", ylabel="KL, nats", title=f"d = {own['steps'][0].dim}")
        _needed(needed, own["needed"])
        _delta(delta, own["delta"], constant)
        _errors(size, {p[6:]: r for p, r in own.items() if p.startswith("error_")})
        _subspace(below, own["subspace"])
        _same(same, own["localised"])
        _legend(legend)
        page.letter(axes.ravel()[:-1])


def _count(rows):
    return f"N = {rows[0].steps}"


def _by_law(ax, rows, field, constant):
    for law, measure in dict.fromkeys((r.law, r.measure) for r in rows):
        own = [r for r in rows if (r.law, r.measure) == (law, measure)]
        x, y = [getattr(r, field) for r in own], [r.value for r in own]
        drawn = any(r.error for r in own)
        error = [2 * r.error for r in own] if drawn else None
        ax.errorbar(x, y, error, fmt="o" + LINES[measure], ms=3, lw=1.1, color=COLOURS[law])
    own = [r for r in rows if (r.law, r.measure) == ("two_point", "path")]
    ax.plot(
        [getattr(r, field) for r in own], [constant * r.bound for r in own], color="black", lw=1.5
    )
    ax.set(xscale="log", yscale="log")


def _needed(ax, rows):
    for law, measure in dict.fromkeys((r.law, r.measure) for r in rows):
        own = [r for r in rows if (r.law, r.measure) == (law, measure)]
        line = "o" + LINES[measure[7:]]
        ax.plot(
            [r.dim for r in own], [r.value for r in own], line, ms=3, lw=1.1, color=COLOURS[law]
        )
    dims = np.array([max(r.dim for r in rows) / 100, max(r.dim for r in rows)])
    top = max(r.value for r in rows)
    ax.plot(dims, 3 * top * dims / dims[1], ":", color="grey", label="slope 1")
    low = max(r.value for r in rows if r.measure == "needed_law")
    ax.plot(dims, 0.4 * low * (dims / dims[1]) ** 0.5, "-.", color="grey", label="slope 1/2")
    title = f"N for a KL of {rows[0].eps ** 2:.2g}"
    ax.set(xscale="log", yscale="log", xlabel="dimension $d$", ylabel="steps $N$", title=title)
    ax.legend(loc="upper left")


def _delta(ax, rows, constant):
    for grid, colour in (("exponential_decay", "#0072b2"), ("uniform", "#d55e00")):
        for measure, line in LINES.items():
            own = [r for r in rows if (r.grid, r.measure) == (grid, measure)]
            x = [r.delta for r in own]
            name = {"uniform": "uniform grid", "exponential_decay": "the paper's grid"}[grid]
            label = name if measure == "path" else None
            ax.plot(x, [r.value for r in own], "o" + line, ms=3, color=colour, label=label)
            if (grid, measure) == ("exponential_decay", "path"):
                ax.plot(x, [constant * r.bound for r in own], color="black", lw=1.5)
    ax.set(xscale="log", yscale="log", xlabel=r"early stopping $\delta$", ylabel="KL, nats")
    ax.set_title(f"two points, d = {rows[0].dim}, N = {rows[0].steps}")
    ax.invert_xaxis()
    ax.legend(loc="best")


def _errors(ax, by_shape):
    for colour, (shape, rows) in zip(
        ("#0072b2", "#d55e00", "#009e73"), by_shape.items(), strict=False
    ):
        for measure, line in LINES.items():
            own = [r for r in rows if r.measure == measure and r.eps]
            label = shape if measure == "path" else None
            ax.plot(
                [r.eps for r in own],
                [r.value for r in own],
                "o" + line,
                ms=3,
                color=colour,
                label=label,
            )
    eps = np.array([r.eps for r in own])
    ax.plot(eps, eps**2, ":", color="grey", label=r"$\varepsilon^2$")
    ax.set(
        xscale="log", yscale="log", xlabel=r"error of the score $\varepsilon$", ylabel="KL, nats"
    )
    ax.set_ylim(None, 1e3)
    ax.set_title(f"two points, d = {own[0].dim}, N = {own[0].steps}")
    ax.legend(loc="upper left", ncols=2)


def _subspace(ax, rows):
    dim = max(r.dim for r in rows if r.intrinsic > 4)
    marks = {("exponential", "path"): "-", ("exponential", "law"): "--", ("ancestral", "law"): ":"}
    for (rule, measure), line in marks.items():
        own = [r for r in rows if (r.rule, r.measure) == (rule, measure)]
        label = f"{rule}, {measure}"
        by_k = sorted((r.intrinsic, r.value) for r in own if r.dim == dim)
        by_d = sorted((r.dim, r.value) for r in own if r.intrinsic == 4)
        ax.plot(*np.array(by_k).T, "s" + line, ms=3, lw=1.1, color="#882255")
        ax.plot(*np.array(by_d).T, "o" + line, ms=3, lw=1.1, color="#56b4e9")
        ax.plot([], [], line, color="grey", label=label)
    ax.plot([], [], "s", color="#882255", ms=3, label=f"against k, d = {dim}")
    ax.plot([], [], "o", color="#56b4e9", ms=3, label="against d, k = 4")
    ax.set(xscale="log", yscale="log", xlabel="$k$ or $d$", ylabel="KL, nats")
    ax.set_ylim(None, 1e4 * max(r.value for r in rows))
    ax.set_title(f"data on k of d, N = {rows[0].steps}")
    ax.legend(loc="best", fontsize=6)


def _same(ax, rows):
    left, right = ([r for r in rows if r.measure == m] for m in ("left", "right"))
    for i, law in enumerate(dict.fromkeys(r.law for r in rows)):
        own = [(a, b) for a, b in zip(left, right, strict=True) if a.law == law]
        t = np.array([a.delta for a, _ in own]) * 1.06 ** (i - 2.5)
        ratio = [a.value / b.value for a, b in own]
        error = [2 * a.error / b.value for a, b in own]
        ax.errorbar(t, ratio, error, fmt="o", ms=3, lw=1, capsize=2, color=COLOURS[law])
    ax.axhline(1, color="black", lw=0.8)
    ax.set(xscale="log", xlabel="time $t$", ylabel="left over right side")
    ax.set_title(r"$\sigma^3 / 2\sigma'\ d/dt\ E\,tr\,\Sigma_t = E\,tr\,\Sigma_t^2$")


def _legend(ax):
    ax.axis("off")
    for law, colour in COLOURS.items():
        ax.plot([], [], color=colour, lw=3, label=NAMES[law])
    ax.plot([], [], "-", color="grey", label="KL of the path")
    ax.plot([], [], "--", color="grey", label=r"KL of the law, $q_\delta$ against $p_N$")
    ax.plot([], [], color="black", lw=1.5, label="the bound, its constant fitted once")
    ax.legend(loc="center left", fontsize=9)
