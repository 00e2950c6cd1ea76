"""The operations: everything that a person runs, and a worker's tasks beside its lanes."""
