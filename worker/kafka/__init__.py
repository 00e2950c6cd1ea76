"""Apache Kafka for a worker: clients, topics, rights, and ways around the gaps of aiokafka."""
