"""Putting a release live, and what becomes of it: leases, authority, the load, standings."""
