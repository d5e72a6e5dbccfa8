"""Finite width: the networks that architectures describe, in JAX."""
