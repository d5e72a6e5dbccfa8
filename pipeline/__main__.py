"""`python -m pipeline` is the same as `ntk`."""

from pipeline.cli import main

main()
