"""What is told after a commit: Redis, Kafka and the signed records in the artifact store."""
