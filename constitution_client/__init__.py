"""The typed client and the command line."""
