"""Remove a customer's personal data from Postgres and from the topics."""
