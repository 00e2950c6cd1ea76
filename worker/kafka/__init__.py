"""Apache Kafka as a worker needs it: clients, topics, rights, and the ways around what aiokafka leaves out."""
