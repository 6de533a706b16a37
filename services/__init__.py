"""The services that the runbook names."""
