"""The policy engine: decides by the constitution in force."""
