"""Rows of PostgreSQL, read and appended by plain functions over a connection. No other system."""
