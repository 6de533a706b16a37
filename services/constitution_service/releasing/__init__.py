"""Putting a release live, and its standing: leases, authority, the load, standings."""
