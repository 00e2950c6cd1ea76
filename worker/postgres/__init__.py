"""Postgres as a worker needs it: connections, the schema with its migrations, and the statements."""
