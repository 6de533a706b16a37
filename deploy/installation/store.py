"""The artifact store: can an object be written and read back?"""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from adapters.artifact_store import ArtifactStore, blob_path
from constitution.checksum import checksum_of
from constitution.errors import ConstitutionError
from deploy.installation.check import Check, missing, not_set, ok, refused
from deploy.installation.settings import InstallationSettings

PLACE = "ARTIFACT_STORE_URL"
PROBE = b"written by constitution doctor --deployment\n"


async def store(settings: InstallationSettings) -> AsyncIterator[Check]:
    """Put one small object, always the same, under its own checksum, and read it back; it stays there."""
    url = settings.artifact_store_url
    if url is None:
        yield not_set(PLACE, "constitution-service")
        return
    folder = Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None
    if folder is not None and not folder.is_dir():
        yield missing(PLACE, "answers", f"{folder} is no folder", f"install --directory --mode 0750 {folder}")
        return
    digest = checksum_of(PROBE)
    try:
        opened = ArtifactStore(url)
        await opened.check()
        await opened.put(blob_path(digest), PROBE)
        found = await opened.get(blob_path(digest), digest)
    except ConstitutionError as error:
        yield refused(PLACE, "write and read", error, "env | grep -E '^(AWS|GOOGLE|AZURE)_' | cut -d= -f1")
        return
    if found != PROBE:
        yield missing(PLACE, "write and read", "an object that was just written cannot be read", "constitution doctor")
        return
    yield ok(PLACE, "write and read", f"an object can be written and read at {urlsplit(url).scheme}:")
