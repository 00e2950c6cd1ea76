"""Verify what Postgres and the transitions topic hold of the history, and anchor it elsewhere."""
