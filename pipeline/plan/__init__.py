"""Plans: tiles, tasks and projected memory, as values computed before anything runs.

Nothing here imports numpy, zarr or jax, so that a plan can be read and printed at once.
"""
