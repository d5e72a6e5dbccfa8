"""Shared by all tests; warnings are errors (pyproject.toml)."""

from hypothesis import settings

# Compilation makes first calls slow; a time limit per example would test the machine.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
