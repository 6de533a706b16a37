"""The drivers behind small Protocols: one module per system."""
