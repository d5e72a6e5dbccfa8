"""The conventions of scikit-learn, by its own checks. All three share the compiled kernels of one network."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from pipeline.estimators import NTKClassifier, NTKGaussianProcess, NTKRegressor


# Warnings are errors in these tests; one check warns on purpose, of what it skips.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([NTKRegressor(), NTKClassifier(), NTKGaussianProcess(posterior="ntkgp")])
def test_conventions(estimator: Any, check: Any) -> None:
    check(estimator)
