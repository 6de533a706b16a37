"""The orchestrator: starts agent sessions that the policy engine allows."""
