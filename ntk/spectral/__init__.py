"""What the eigenvalues and eigenvectors of a kernel matrix say: pure functions on NumPy arrays.

Conventions: K is the n × n kernel matrix, eigenvalues λ_k are sorted descending with rank k counted from 1,
and column k of the eigenvectors belongs to λ_k. Eigenvalues below n ε λ_max
(`ntk.spectral.stability.noise_floor`) are rounding errors of the computation and are never interpreted.
"""
