"""The HTTP of constitution-service: reads requests, requires scopes, writes answers; the packages below do the work."""
