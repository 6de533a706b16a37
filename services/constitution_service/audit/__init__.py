"""Audit events: written with what they tell, or spooled while PostgreSQL is away."""
