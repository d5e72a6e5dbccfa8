"""Running plans: the frontier, the executors and the clusters they stand on. The only place with Dask."""
