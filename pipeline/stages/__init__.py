"""The stages of a run. Each joins a plan, the store, the runtime and the mathematics; none imports another."""
