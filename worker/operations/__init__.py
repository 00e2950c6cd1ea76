"""Everything that a person runs, and what a worker does beside its lanes."""
