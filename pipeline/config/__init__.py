"""Configuration of a run and of the clusters it may use: frozen, validated, readable from YAML."""
