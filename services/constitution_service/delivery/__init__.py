"""Delivery after a commit: to Redis, Kafka and the signed records in the artifact store."""
