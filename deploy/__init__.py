"""How the runbook is deployed."""
