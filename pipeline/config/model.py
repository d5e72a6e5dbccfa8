"""The configuration of a run (`run.yaml`) as a frozen, validated value.

Every default stands here and nowhere else. Unknown keys are refused; types are checked strictly, so that a
misspelt or mistyped value never falls back to a default in silence.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Kernel = Literal["ntk", "nngp"]
Task = Literal["classification", "regression", "none"]


class Model(BaseModel):
    """Frozen, closed to unknown keys; field descriptions end up in `ntk schema`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class Source(Model):
    """Where a set of inputs comes from: files, or a data set that is built in; sizes alone are enough for a plan."""

    x: str | None = None
    """Inputs: `.npy`, `.npz#key`, `.zarr/path`, `.csv`; shape (rows, ...). Relative to this file's folder."""
    y: str | None = None
    """Labels or targets, one row per input: as for `x`; `.csv#column` picks a column."""
    source: Literal["digits", "teacher"] | None = None
    """A built-in data set instead of files: `digits`, the 1,797 handwritten digits of scikit-learn (8×8); `teacher`,
    Gaussian inputs labelled by a random network, of the size given by `rows`, `features` and `classes`."""
    rows: Annotated[int, Field(ge=2)] | None = None
    """Number of inputs of a `teacher`, or of data that are not there yet and only planned with."""
    features: Annotated[int, Field(ge=1)] | None = None
    """Numbers in one input, as `rows`; `data.shape` makes images of them."""
    classes: Annotated[int, Field(ge=1)] = 10
    """Classes (in regression: targets), as `rows`."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Which `teacher`."""
    draw: Annotated[int, Field(ge=0)] = 0
    """Which of the independent sets of inputs for that teacher."""

    @property
    def absent(self) -> bool:
        """Whether nothing but its sizes is there."""
        return self.x is None and self.source is None

    @model_validator(mode="after")
    def _one_origin(self) -> Source:
        sized = self.rows is not None or self.features is not None
        made = self.source == "teacher" or (self.absent and sized)
        if (self.x is not None and self.source is not None) or (self.absent and not made):
            raise ValueError("needs either `x` (a file) or `source` (a built-in data set), and not both")
        if made and (self.rows is None or self.features is None):
            raise ValueError("needs both `rows` and `features`")
        if sized and not made:
            raise ValueError("`rows` and `features` do not go with data that have their own size")
        if self.x is None and self.y is not None:
            raise ValueError("`y` does not go with `source`: a built-in data set has its own labels")
        return self


class Split(Model):
    """A held-out share taken from the training rows; stratified by class in classification."""

    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the rows held out."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the shuffle."""


class Data(Model):
    """Inputs, targets and how they are prepared."""

    train: Source
    """Training inputs and targets."""
    test: Source | None = None
    """Held-out inputs (targets optional: without them predictions are stored but not scored)."""
    split: Split | None = None
    """Instead of `test`: hold out a share of the training rows."""
    task: Task = "classification"
    """`classification` (integer or string labels, encoded as centred one-hot), `regression`, or `none`."""
    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)] | None = None
    """Shape of one input for the network, when files hold it flat: `[8, 8, 1]` makes images (height, width,
    channels)."""
    normalize: Literal["sphere", "standardize", "none"] = "sphere"
    """`sphere`: every input scaled to Euclidean norm 1; `standardize`: every feature to mean 0 and variance 1
    (statistics of the training rows); `none`."""

    @model_validator(mode="before")
    @classmethod
    def _source_shorthand(cls, value: Any) -> Any:
        if isinstance(value, dict) and "source" in value and "train" not in value:
            value = {**value, "train": {"source": value["source"]}}
            del value["source"]
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Data:
        if self.test is not None and self.split is not None:
            raise ValueError("give either `test` or `split`, not both")
        if self.task != "none" and self.train.x is not None and self.train.y is None:
            raise ValueError(
                f"task {self.task} needs `train.y`; use `task: none` for a Gram matrix and spectrum only"
            )
        return self


class KernelConfig(Model):
    """Which kernel is computed, and in which precision."""

    architecture: list[Any] | dict[str, Any] | str | None = None
    """The network: a list is `serial`, a layer is `Name` or `{Name: {argument: value}}`."""
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = None
    """A kernel function of your own instead, `package.module:fn`, called as fn(x1, x2) -> (rows1, rows2); needs
    the flag --allow-code."""
    get: Annotated[tuple[Kernel, ...], Field(strict=False)] = ("ntk",)
    """Which kernels to compute and store: `[ntk]`, `[nngp]` or both."""
    precision: Literal["float64", "float32"] = "float64"
    """Arithmetic and storage of the Gram matrix."""

    @field_validator("get", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if isinstance(value, str):
            return ("ntk", "nngp") if value == "both" else (value,)
        return value

    @field_validator("get")
    @classmethod
    def _distinct(cls, value: tuple[Kernel, ...]) -> tuple[Kernel, ...]:
        if not value:
            raise ValueError("must name at least one kernel: ntk, nngp")
        if len(set(value)) != len(value):
            raise ValueError("names a kernel twice")
        return tuple(sorted(value, reverse=True))  # one order, whatever was written: ntk before nngp

    @model_validator(mode="after")
    def _one_kernel(self) -> KernelConfig:
        if (self.architecture is None) == (self.function is None):
            raise ValueError("needs either `architecture` or `function`, and not both")
        return self


class GramConfig(Model):
    """How the Gram matrix is cut and stored."""

    tile: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Rows and columns of a tile (= one Zarr chunk); `auto` chooses from the memory limit and the workers."""
    compression: Literal["none", "lz4", "zstd"] = "none"
    """Kernel entries compress little (measured: 1.3 to 1.5 times in float32, 1.2 in float64), at 1 to 2 GB/s with `lz4`
    and 0.3 to 0.6 with `zstd`, which gains no more. `none` is the fastest on a local disk; `lz4` pays where the store
    takes less than about 1 GB/s."""
    cross: bool = False
    """Whether K(test, train) is stored as well; predictions do not need it."""


def _several(value: Any) -> Any:
    """One number as a tuple of one."""
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _distinct_sorted(value: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(value)) != len(value):
        raise ValueError("names a value twice")
    return tuple(sorted(value))


class SolveConfig(Model):
    """Kernel regression (K + ridge · mean(diag K) · I) A = Y."""

    method: Literal["auto", "cholesky", "cg", "askotch", "none"] = "auto"
    """`cholesky`: blocked, out of core; `cg`: preconditioned block conjugate gradients; `auto`: the faster one of them
    for this size, by the plan; `askotch`: accelerated block coordinate descent on rows of the Gram matrix that are
    computed when they are needed, so that the matrix is never stored; `none`: no regression."""
    ridge: Annotated[
        tuple[Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)], ...], Field(strict=False)
    ] = (
        1e-6,
        1e-5,
        1e-4,
        1e-3,
        1e-2,
    )
    """Ridge values relative to the mean diagonal of the Gram matrix."""
    factor: Literal["float64", "float32", "auto"] = "float64"
    """Arithmetic of the Cholesky factor. `float32`: about half the time; coefficients are refined to float64 accuracy,
    leave-one-out errors are good to three digits, and where that fails the factor is made again in float64, with the
    reason in the metrics. `auto`: float32 for the ridges at which it is sure to do."""
    in_memory: bool | Literal["auto"] = "auto"
    """`cholesky`: whether one worker holds the whole matrix and factors it there, with the threads of all workers, or
    all work on tiles in the store. `auto`: in memory where it fits the limit of a worker on this machine and is a
    matter of a minute at most, because a factor in the making is lost with its worker."""
    keep_factor: bool = False
    """Whether the Cholesky factor of every ridge stays in the store (4 n² bytes each in float64), for variances of
    predictions; it is removed when the ridge is solved otherwise."""
    kernel: Kernel | Literal["auto"] = "auto"
    """Which stored kernel is regressed with; `auto`: ntk when it is stored."""
    select: Literal["loo", "held_out"] = "loo"
    """What chooses the ridge: leave-one-out error of the training rows, or the error on the held-out rows (which
    then is no longer an unbiased test error; the report says so)."""

    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """`cg`, `askotch`: relative residual that every right-hand side must reach."""
    preconditioner: Literal["rpcholesky", "nystrom", "none"] = "rpcholesky"
    """`cg`: randomly pivoted Cholesky (needs some columns of the matrix only), randomised Nyström, or none."""
    rank: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """`cg`: largest rank of the preconditioner; `auto` chooses from the rows and the memory limit. `askotch`: rank of
    the approximation of a block; `auto`: 100."""
    max_iterations: Annotated[int, Field(ge=1)] = 1000
    """`cg`, `askotch`: most products with the matrix, or passes over it, for each ridge."""
    block: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """`askotch`: rows of a step; `auto`: a hundredth of all, at least 256."""

    @field_validator("ridge", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return _several(value)

    @field_validator("ridge")
    @classmethod
    def _sorted(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value:
            raise ValueError("must name at least one value")
        return _distinct_sorted(value)


class PredictConfig(Model):
    """Predictions for the held-out rows, beside those with the ridges."""

    times: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1e300, allow_inf_nan=False)], ...], Field(strict=False)
    ] = ()
    """Training times, steps of gradient descent times its learning rate on half the mean squared error: networks that
    trained that long, without a ridge, are predicted too."""

    @field_validator("times", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return _several(value)

    @field_validator("times")
    @classmethod
    def _sorted(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        return _distinct_sorted(value)


class SpectrumConfig(Model):
    """Eigenvalues of the stored Gram matrices."""

    method: Literal["auto", "eigh", "band", "lanczos", "density", "none"] = "auto"
    """`eigh`: all eigenpairs in memory (LAPACK); `band`: all eigenvalues and some vectors, out of core; `lanczos`: the
    `count` leading pairs from products with the matrix; `density`: how many eigenvalues lie where, with error bars;
    `none`: no spectrum. `auto` chooses by rows, memory and `count`."""
    count: Annotated[int, Field(ge=1)] | Literal["all"] = "all"
    """How many leading eigenvalues are stored."""
    vectors: Annotated[int, Field(ge=0)] = 16
    """How many leading eigenvectors are stored, at most `count`."""
    smallest: Annotated[int, Field(ge=0)] = 0
    """How many of the smallest eigenpairs are found besides, through a Cholesky factor of the matrix."""
    probes: Annotated[int, Field(ge=2, le=1024)] = 16
    """Random vectors of `density`: error bars shrink with their square root."""
    steps: Annotated[int, Field(ge=2, le=10_000)] = 100
    """Products with the matrix for each probe of `density`: what finer details it resolves."""

    @model_validator(mode="after")
    def _leading_are_counted(self) -> SpectrumConfig:
        if self.method == "lanczos" and self.count == "all":
            raise ValueError("method lanczos finds leading eigenpairs: give `count` as a number")
        return self


class RunConfig(Model):
    """Everything a run depends on, apart from the machines it runs on."""

    data: Data
    kernel: KernelConfig
    gram: GramConfig = GramConfig()
    solve: SolveConfig = SolveConfig()
    predict: PredictConfig = PredictConfig()
    spectrum: SpectrumConfig = SpectrumConfig()
    cluster: str = "local"
    """A name in cluster.yaml."""
    out: str = "runs/ntk"
    """The run directory, relative to the current directory; or a place in an object store, `s3://BUCKET/PREFIX`."""

    @model_validator(mode="after")
    def _kernel_is_stored(self) -> RunConfig:
        if self.solve.kernel != "auto" and self.solve.kernel not in self.kernel.get:
            raise ValueError(
                f"solve.kernel is {self.solve.kernel}, but kernel.get stores only {', '.join(self.kernel.get)}"
            )
        return self

    @model_validator(mode="after")
    def _cross_has_rows(self) -> RunConfig:
        if self.gram.cross and self.data.test is None and self.data.split is None:
            raise ValueError("gram.cross is true, but nothing is held out: give data.test or data.split")
        return self

    @model_validator(mode="after")
    def _held_out_is_there(self) -> RunConfig:
        if self.solve.select == "held_out":
            test = self.data.test
            if test is None and self.data.split is None:
                raise ValueError(
                    "solve.select is held_out, but nothing is held out: give data.test or data.split"
                )
            if test is not None and test.x is not None and test.y is None:
                raise ValueError("solve.select is held_out, but data.test has no y to measure an error with")
        return self

    @model_validator(mode="after")
    def _what_reads_the_matrix_has_it(self) -> RunConfig:
        if not self.stores_gram:
            wants = {
                f"spectrum.method is {self.spectrum.method}": self.spectrum.method not in ("auto", "none"),
                "gram.cross is true": self.gram.cross,
                "predict.times are given": bool(self.predict.times),
                "solve.ridge has a zero": 0.0 in self.solve.ridge,
            }
            for what, wanted in wants.items():
                if wanted:
                    raise ValueError(
                        f"solve.method is askotch, which stores no Gram matrix and needs ridges > 0, but {what}: "
                        "use solve.method cg or cholesky"
                    )
        return self

    @property
    def stores_gram(self) -> bool:
        """Whether the Gram matrix is computed and stored: not where regression by `askotch` is all there is to do."""
        return self.solve.method != "askotch" or self.data.task == "none"

    @property
    def solve_kernel(self) -> str:
        """The kernel that regression uses."""
        return self.kernel.get[0] if self.solve.kernel == "auto" else self.solve.kernel

    @property
    def solves(self) -> bool:
        """Whether this run has a regression to do."""
        return self.data.task != "none" and self.solve.method != "none"

    @property
    def predictors(self) -> int:
        """How many predictions each held-out row gets: one for a ridge, one for a training time."""
        return len(self.solve.ridge) + len(self.predict.times)

    @property
    def predicts(self) -> bool:
        """Whether this run has held-out rows to predict."""
        return self.solves and (self.data.test is not None or self.data.split is not None)
