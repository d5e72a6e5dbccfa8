"""Linear algebra on tiles: what one tile or one iteration does. The caller owns files, tasks and memory
plans.

A symmetric n × n matrix is known by its upper tiles (i, j), i ≤ j, and by `blocks`, the sequence of row
slices that cut 0 … n without gaps; tile (i, j) holds rows ``blocks[i]`` and columns ``blocks[j]``.
"""
