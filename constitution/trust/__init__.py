"""Who may sign, what they sign, and which signatures count. Pure; cryptography is in signatures/."""
