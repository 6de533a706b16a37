"""Real servers from packages, supervised in one place."""
