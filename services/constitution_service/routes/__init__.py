"""The HTTP of constitution-service: reads requests, asks for scopes, writes answers; the work is done beside it."""
