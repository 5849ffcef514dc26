"""gmjax: generative models in JAX."""
