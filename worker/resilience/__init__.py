"""Waiting, retrying and giving up: the same few rules wherever something may fail."""
