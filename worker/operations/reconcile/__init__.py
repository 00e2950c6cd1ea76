"""Compare the contents of Kafka with those of Postgres."""
