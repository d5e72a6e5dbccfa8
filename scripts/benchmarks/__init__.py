"""Benchmarks: what a person runs to know how fast this machine does the work, as ratios within one run."""
