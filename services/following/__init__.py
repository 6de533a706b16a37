"""Fetch, verify, obey: what policy engine and orchestrator share."""
