"""The one store of certificate authorities for every TLS client of this product: the machine's own.

A company's private authority is installed there, and ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` name another one, as OpenSSL
reads them; the list that a library ships contains neither. Only a machine without any store gets that list.
"""

import ssl

import certifi


def authorities() -> ssl.SSLContext:
    """Return a context that verifies names and certificates against the machine's authorities."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not paths.cafile and not paths.capath:  # None where OpenSSL's file or folder does not exist
        context.load_verify_locations(certifi.where())
    return context
