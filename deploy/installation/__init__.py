"""Checks an installation end to end: `constitution doctor --deployment`. One module for each kind of server."""
