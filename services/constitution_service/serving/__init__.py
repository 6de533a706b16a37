"""What ``GET /v1/constitution`` answers, held in memory: verified once per generation, confirmed by PostgreSQL."""
