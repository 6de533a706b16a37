"""A private Sigstore: certificate authority, certificate log, signature log, timestamps, and a login. On loopback."""
