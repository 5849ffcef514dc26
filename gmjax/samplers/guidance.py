"""Guidance as a wrapper Predict -> Predict.

Classifier-free guidance extrapolates from the unconditional to the conditional output,
u + w (c - u). Applied to scores it samples from p_t(x)^(1 - w) p_t(x | y)^w; applied to logits
it samples sites from p(x0 | x_t)^(1 - w) p(x0 | x_t, y)^w, whatever the parametrisation: the known
factor q(x_t | x0) has total weight one in both.
"""

import jax
import jax.numpy as jnp

from gmjax.types import Array, Cond, Predict


def classifier_free(predict: Predict, scale: float, num_classes: int) -> Predict:
    """Guided predictions: unconditional + scale (conditional - unconditional).

    Args:
        predict: a network trained with labels dropped to the null class.
        scale: w; 0 is unconditional, 1 conditional, more is sharper.
        num_classes: the null label.

    Returns:
        A `Predict` that evaluates the network once on a batch of twice the size.

    Source: Ho and Salimans (2022); on discrete posteriors Schiff et al. (2024).
    """

    def guided(x: Array, t: Array, cond: Cond) -> Array:
        assert cond is not None, "guidance needs labels"
        null = {**cond, "label": jnp.full_like(cond["label"], num_classes)}
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), dict(cond), null)
        twice = lambda tree: jax.tree.map(lambda a: jnp.concatenate([a, a]), tree)
        out = predict(twice(x), twice(t), both)
        half = len(t)
        return jax.tree.map(lambda a: a[half:] + scale * (a[:half] - a[half:]), out)

    return guided
