"""Lets what downloads servers trust the authorities of the machine, as uv, Go and apt do by themselves.

A company's private authority is installed there. `requests` (Kafka's jars) and Node (the emulator's packages) ship a
list of their own and ask for the machine's by a setting; one that a person has set holds.
"""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTINGS = ("REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")

BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine
)


def machine_bundle() -> str | None:
    """The file with the machine's authorities; ``SSL_CERT_FILE`` names another one, as OpenSSL reads it."""
    paths = (ssl.get_default_verify_paths().cafile, *BUNDLES)
    return next((path for path in paths if path and Path(path).is_file()), None)


@contextmanager
def machine_trusted() -> Iterator[None]:
    """Give this process, and what it starts, the settings by which downloaders trust the machine's authorities."""
    bundle = machine_bundle()
    given = [name for name in SETTINGS if bundle and not os.environ.get(name)]
    os.environ.update(dict.fromkeys(given, bundle or ""))
    try:
        yield
    finally:
        for name in given:
            os.environ.pop(name, None)
