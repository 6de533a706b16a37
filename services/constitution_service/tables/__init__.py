"""Rows: what PostgreSQL keeps, read and appended by plain functions over a connection. No other system."""
