"""Conditional probability paths: Gaussian noising, interpolants, couplings, geodesics, mixtures."""
