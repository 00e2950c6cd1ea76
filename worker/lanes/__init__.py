"""Exactly once: one partition, one owner, one batch at a time."""
