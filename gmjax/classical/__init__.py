"""Linear and mixture models: fit, log-likelihood and sample as pure, jitted functions of arrays."""
