"""What every service of ours shares: problems, tokens, settings, logs, health, limits and the way it runs."""
