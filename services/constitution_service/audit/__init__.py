"""Audit events: written in the transaction of the decision that they report, or spooled while PostgreSQL is down."""
