"""constitution-service: stores constitutions, puts them live in one transaction, publishes them to Redis and Kafka."""
