"""Kernel regression with infinitely wide networks as scikit-learn estimators, in memory or in a run directory."""

from pipeline.estimators.face import NTKClassifier, NTKGaussianProcess, NTKRegressor

__all__ = ["NTKClassifier", "NTKGaussianProcess", "NTKRegressor"]
