"""The commented run.yaml that `ntk init` writes: it runs as it stands, on the built-in digits."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import InputError

TEMPLATE = """\
# A run of the NTK pipeline. Next: `ntk plan {name}`, then `ntk run {name}`; the same command again resumes.
# Every field but `data` and `kernel.architecture` has a default; `ntk schema` lists all of them.

data:
  train: {{source: digits}}          # built in; or files: {{x: train.npz#x, y: train.npz#y}}
                                   # (.npy, .npz#key, .zarr/path, .csv, .csv#column; relative to this file)
  split: {{test: 0.2, seed: 0}}      # or a set of its own: test: {{x: test_x.npy, y: test_y.npy}}
  task: classification             # classification | regression | none (Gram matrix and spectrum only)
  normalize: sphere                # sphere | standardize | none

kernel:
  architecture:                    # a list is `serial`; a layer is Name or {{Name: {{argument: value}}}}
    - Dense: {{out_dim: 512, W_std: 1.5, b_std: 0.05}}
    - Relu
    - Dense: {{out_dim: 512, W_std: 1.5, b_std: 0.05}}
    - Relu
    - Dense: {{out_dim: 512, W_std: 1.5, b_std: 0.05}}
    - Relu
    - Dense: {{out_dim: 1}}
  get: [ntk]                       # ntk, nngp or both
  precision: float64               # float64 | float32

gram:
  tile: auto                       # rows of a tile; auto chooses from the memory limit and the workers
  compression: none                # none | lz4 (a fifth to a third smaller, pays on slow stores) | zstd

solve:
  method: auto                     # auto | cholesky | cg | askotch | none
  factor: float64                  # float64 | float32 (refined to float64 accuracy) | auto
  ridge: [1.0e-6, 1.0e-5, 1.0e-4, 1.0e-3, 1.0e-2]   # relative to the mean diagonal of the Gram matrix
  select: loo                      # what chooses the ridge: loo (leave-one-out) | held_out

predict:
  times: []                        # training times (steps × learning rate) to predict for too, without a ridge

spectrum:
  method: auto                     # auto | eigh | band | lanczos (needs a count) | density | none
  count: all                       # how many leading eigenvalues to store
  vectors: 16                      # how many leading eigenvectors to store
  smallest: 0                      # how many of the smallest eigenpairs to find besides

cluster: local                     # a name in cluster.yaml
out: runs/{stem}                   # the run directory, relative to where you call ntk
"""


def write_template(path: Path) -> None:
    """Write the template to a new file.

    Raises:
        InputError: the file exists, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(TEMPLATE.format(name=path.name, stem=path.stem))
    except FileExistsError:
        raise InputError(
            f"{path}: exists and is not replaced", hint="give another PATH, or remove it first"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}", hint="give another PATH") from None
