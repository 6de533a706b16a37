"""Writes what an image was built from, as an in-toto statement with SLSA's provenance predicate, to standard output.

    python3 deploy/image/provenance.py --base debian@sha256:… --revision COMMIT --lock uv.lock >provenance.json

Unsigned: it is inside the image, so whoever signs the image signs it too. Source: slsa.dev/spec/v1.0/provenance.
"""

import argparse
import hashlib
import json
import platform
import re
import sys
from pathlib import Path
from typing import Any

BUILD_TYPE = "urn:somaagenthub:constitution-runbook:dockerfile:v1"
_DIGEST = re.compile(r"@sha256:([0-9a-f]{64})$")


def statement(base: str, revision: str, lock: Path) -> dict[str, Any]:
    """Return the statement.

    Args:
        base: name of the image that was built on; its digest, if the name has one.
        revision: commit of the sources.
        lock: the file that names every Python package with its digest.
    """
    materials: list[dict[str, Any]] = [
        {"name": lock.name, "digest": {"sha256": hashlib.sha256(lock.read_bytes()).hexdigest()}},
        {"name": base, **({"digest": {"sha256": found[1]}} if (found := _DIGEST.search(base)) else {})},
        {"name": "source", "digest": {"gitCommit": revision}},
    ]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [],  # the image's digest is known only to who pushes it
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"base": base, "revision": revision},
                "internalParameters": {"python": platform.python_version(), "machine": platform.machine()},
                "resolvedDependencies": materials,
            },
            "runDetails": {"builder": {"id": BUILD_TYPE}},
        },
    }


def main() -> None:
    """Read the arguments and write the statement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True)
    parser.add_argument("--revision", required=True)
    parser.add_argument("--lock", required=True, type=Path)
    given = parser.parse_args()
    json.dump(statement(given.base, given.revision, given.lock), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
