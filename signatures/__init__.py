"""Cryptography without I/O: OpenPGP, Sigstore, DSSE and service tokens."""
