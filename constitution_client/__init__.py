"""The typed client and the command line.

Imports nothing here: ``constitution --help`` must not pay for httpx, Temporal or Sigstore.
"""
