"""``manifest.json`` of an archive folder: the checksum of every other file there, as exact bytes. Pure."""

import json
from collections.abc import Mapping

from constitution.receipt import MANIFEST


def listing_bytes(checksums: Mapping[str, str]) -> bytes:
    """Return the manifest of these files; sorted, so that the same files give the same bytes."""
    listed = {name: checksum for name, checksum in sorted(checksums.items()) if name != MANIFEST}
    return (json.dumps({"files": listed}, indent=1) + "\n").encode()
