"""constitution-service: stores constitutions, puts them live in one transaction, tells Redis and Kafka about it."""
