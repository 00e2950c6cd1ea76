"""Compare what Kafka holds with what Postgres knows."""
