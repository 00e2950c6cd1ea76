"""Postgres for a worker: connections, the schema with its migrations, and the statements."""
