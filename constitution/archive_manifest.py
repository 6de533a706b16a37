"""``manifest.json`` of an archive folder: the checksum of every other file there, as exact bytes. Pure.

``manifest.dsse.json`` beside it is what the archive's writer signed of it, with each commit: a folder says by itself
whose word its files are, also before there is a receipt, and where there never is one.
"""

import json
from collections.abc import Mapping

from constitution.checksum import Checksum
from constitution.environment import Identifier
from constitution.model import Model
from constitution.receipt import MANIFEST, MANIFEST_SIGNATURE, FolderName

MANIFEST_PREDICATE = "urn:somaagenthub:constitution:archive-manifest:v1"
"""``predicateType`` of a signed manifest."""


class ManifestPredicate(Model):
    """Whose folder it is, and the checksum of its ``manifest.json``."""

    environment: Identifier
    folder: FolderName
    manifest: Checksum


def listing_bytes(checksums: Mapping[str, str]) -> bytes:
    """Return the manifest of these files; sorted, so that the same files give the same bytes."""
    itself = {MANIFEST, MANIFEST_SIGNATURE}
    listed = {name: checksum for name, checksum in sorted(checksums.items()) if name not in itself}
    return (json.dumps({"files": listed}, indent=1) + "\n").encode()
