"""Dual activations: Gaussian expectations E[σ(u) σ(v)] and E[σ'(u) σ'(v)] as elementwise functions of arrays."""
