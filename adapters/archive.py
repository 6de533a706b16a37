"""The legal archive: a git repository, written through dulwich; no git program is needed.

Bare or not. Bare, a commit costs what it changes. In one with a working tree git's index is read and written whole,
and the files are kept in step with each commit, but a file that somebody has edited and not committed is left alone.
Order of a commit: objects, working tree, index, and the branch last, so that a process killed anywhere leaves either
the old history or the new one, and the same call again completes it.

One writer at a time: a file lock beside the repository's own files (ends with its process), and the branch moves only
from the commit that was read (for writers that know no lock). Git's own lock files do not end with their process: the
file lock says while a writer is at work, so that the next one clears what a killed one left. Locks older than that
writer are somebody else's and stay.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from dulwich.errors import NotGitRepository, NotTreeError
from dulwich.file import FileLocked
from dulwich.index import IndexEntry, index_entry_from_stat
from dulwich.object_store import commit_tree_changes, iter_tree_contents, tree_lookup_path
from dulwich.objects import Blob, Commit, ObjectID, Tree
from dulwich.repo import Repo, UnsupportedExtension, UnsupportedVersion

from adapters.change_log import with_row
from constitution.archive_manifest import listing_bytes
from constitution.checksum import checksum_of
from constitution.errors import InvalidRequestError, UnavailableError
from constitution.receipt import MANIFEST, MANIFEST_SIGNATURE

AUTHOR = b"Constitution Runbook <constitution-runbook@localhost>"
CHANGE_LOG = "docs/SomaAgentHub_Security.md"
LOCK = "constitution-archive.lock"
LOCK_WAIT = 15.0  # seconds; a commit takes some 30 ms
_PART = re.compile(r"^[A-Za-z0-9_@+][A-Za-z0-9._@+-]{0,199}$")  # no leading dot: no .git, no ..
_FILE_MODE = stat.S_IFREG | 0o644


class GitArchive:
    """Implements ``activities.ports.Archive``.

    Args:
        repository: an existing git repository.
        sign: makes ``manifest.dsse.json`` of a folder's name and its ``manifest.json``, the same of the same. None: for
            readers.

    Raises:
        InvalidRequestError: it is none, or of a format that dulwich cannot write.
    """

    def __init__(self, repository: Path, sign: Callable[[str, bytes], bytes] | None = None) -> None:
        self._path = repository
        self._sign = sign
        try:
            with Repo(str(repository)) as repo:
                _refuse_other_formats(repo)
        except (UnsupportedExtension, UnsupportedVersion) as error:
            raise InvalidRequestError(
                f"{repository} is a git repository of a format that the archive cannot write: {error}",
                hint="set ARCHIVE_REPOSITORY to one made by: git init --object-format=sha1 DIRECTORY",
            ) from error
        except NotGitRepository as error:
            raise InvalidRequestError(
                f"{repository} is no git repository", hint="git init it, or set ARCHIVE_REPOSITORY to one that is"
            ) from error

    async def commit(
        self,
        files: dict[str, bytes],
        *,
        change_log_row: tuple[str, str] | None,
        message: str,
        manifest: str | None = None,
    ) -> str:
        """Write files, and the row if no row has its key, in one commit; return the commit that holds them.

        Args:
            files: content by path, relative to the repository's root.
            change_log_row: (key, table row) for ``CHANGE_LOG``.
            message: of the commit.
            manifest: a folder whose ``manifest.json`` is written anew, under the lock: the checksum of every file in
                the folder, those of earlier commits too; and is signed.

        Raises:
            InvalidRequestError: a path would leave the repository, or the row would break the table.
            UnavailableError: the repository cannot be written, or somebody else moved its branch meanwhile.
        """
        for path in (*files, *([manifest] if manifest else [])):
            _check(path)
        return await asyncio.to_thread(self._commit, files, change_log_row, message, manifest)

    async def read(self, path: str) -> bytes | None:
        """Return a file's bytes at HEAD, or None."""
        _check(path)
        return await asyncio.to_thread(self._read, path)

    async def paths(self, folder: str) -> frozenset[str]:
        """Return the path of every file below a folder at HEAD; none if there is no such folder."""
        _check(folder)
        return await asyncio.to_thread(self._paths, folder)

    def _paths(self, folder: str) -> frozenset[str]:
        with self._open() as repo:
            head = _head(repo)
            files = () if head is None else _below(repo, head, folder)
            return frozenset(f"{folder}/{name}" for name, _ in files)

    def _read(self, path: str) -> bytes | None:
        with self._open() as repo:
            return _at_head(repo, _head(repo), path)

    def _commit(self, files: dict[str, bytes], row: tuple[str, str] | None, message: str, manifest: str | None) -> str:
        with self._open() as repo, self._locked(repo):
            head = _head(repo)
            wanted = dict(files)
            if row is not None:
                wanted[CHANGE_LOG] = with_row(_at_head(repo, head, CHANGE_LOG), *row)
            if manifest is not None:
                made = wanted[f"{manifest}/{MANIFEST}"] = _manifest(repo, head, manifest, files)
                if self._sign is not None:
                    wanted[f"{manifest}/{MANIFEST_SIGNATURE}"] = self._sign(manifest.rpartition("/")[2], made)
            before = {path: _at_head(repo, head, path) for path in wanted}
            changed = {path: data for path, data in wanted.items() if before[path] != data}
            if not changed and head is not None:
                return _last_touching(repo, list(wanted)) or head.decode()
            return self._write(repo, head, changed, before, message)

    def _write(
        self, repo: Repo, head: bytes | None, changed: dict[str, bytes], before: dict[str, bytes | None], message: str
    ) -> str:
        changes: list[tuple[bytes, int | None, bytes | None]] = []
        modes = {path: _mode_at_head(repo, head, path) for path in changed}
        for path, data in changed.items():
            blob = Blob.from_string(data)
            repo.object_store.add_object(blob)
            changes.append((path.encode(), modes[path], blob.id))
        tree = Tree() if head is None else repo[repo[head].tree]  # type: ignore[attr-defined]
        commit = Commit()
        commit.tree = commit_tree_changes(repo.object_store, tree, changes)  # type: ignore[arg-type]
        commit.parents = [] if head is None else [head]  # type: ignore[list-item]
        commit.author = commit.committer = AUTHOR
        commit.author_time = commit.commit_time = int(time.time())
        commit.author_timezone = commit.commit_timezone = 0
        commit.encoding = b"UTF-8"
        commit.message = message.encode()
        repo.object_store.add_object(commit)
        if repo.has_index():
            _keep_in_step(repo, changed, before, modes)
        moved = (
            repo.refs.add_if_new(b"HEAD", commit.id, message=b"archive")  # type: ignore[arg-type]
            if head is None
            else repo.refs.set_if_equals(b"HEAD", head, commit.id, message=b"archive")  # type: ignore[arg-type]
        )
        if not moved:
            raise UnavailableError("somebody else committed to the archive at the same moment; trying again is safe")
        return commit.id.decode()

    @contextlib.contextmanager
    def _open(self) -> Iterator[Repo]:
        try:
            with Repo(str(self._path)) as repo:
                yield repo
        except FileLocked as error:
            lock = os.fsdecode(error.lockfilename)
            raise UnavailableError(
                f"the archive {self._path} is locked by another git program: {lock} exists",
                hint=f"if no git is running there, delete {lock}",
            ) from error
        except (OSError, NotGitRepository) as error:
            raise UnavailableError(f"the archive {self._path} cannot be used: {error}") from error

    @contextlib.contextmanager
    def _locked(self, repo: Repo) -> Iterator[None]:
        control = Path(repo.controldir())
        with (control / LOCK).open("a+") as handle:
            _acquire(handle)
            since = os.fstat(handle.fileno())
            if since.st_size:
                _clear_left_locks(control, since.st_mtime_ns)
            handle.truncate(0)
            handle.write(f"{os.getpid()} is writing\n")
            handle.flush()
            try:
                yield
            finally:  # reached by every end but a kill
                handle.truncate(0)


def _acquire(handle: IO[str]) -> None:
    ends = time.monotonic() + LOCK_WAIT
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > ends:
                raise UnavailableError(f"another process has held the archive's lock for {LOCK_WAIT:g} s") from error
            time.sleep(0.02)
        else:
            return


def _clear_left_locks(control: Path, since_ns: int) -> None:
    """Delete the lock files that a killed writer left: those made while it was at work.

    Args:
        control: the repository's own folder.
        since_ns: when that writer began, by the file system's clock.
    """
    left = [control / "index.lock", control / "HEAD.lock", control / "packed-refs.lock"]
    left += (control / "refs").rglob("*.lock")
    left += (control / "objects").glob("??/*.lock")
    for path in left:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime_ns >= since_ns:
                path.unlink()


def _refuse_other_formats(repo: Repo) -> None:
    """Refuse what dulwich opens, and would then write SHA-1 objects and loose branches into, which git cannot read.

    Source: git, Documentation/technical/repository-version: extensions.

    Raises:
        UnsupportedExtension: as dulwich says it of extensions that it does not know at all.
    """
    for name, value in repo.get_config().items((b"extensions",)):
        if value.lower() != _READABLE.get(name.lower(), value.lower()):
            raise UnsupportedExtension(f"{name.decode()} = {value.decode('utf-8', 'replace')}")


_READABLE = {b"objectformat": b"sha1", b"refstorage": b"files"}


def _check(path: str) -> None:
    if not path or not all(_PART.fullmatch(part) for part in path.split("/")):
        raise InvalidRequestError(f"{path[:200]!r} is no path inside the archive")


def _head(repo: Repo) -> bytes | None:
    try:
        return repo.head()
    except KeyError:  # nothing was ever committed
        return None


def _at_head(repo: Repo, head: bytes | None, path: str) -> bytes | None:
    if head is None:
        return None
    try:
        _, found = tree_lookup_path(repo.__getitem__, repo[head].tree, path.encode())  # type: ignore[attr-defined]
    except (KeyError, NotTreeError):
        return None
    blob = repo[found]
    return blob.as_raw_string() if isinstance(blob, Blob) else None


def _mode_at_head(repo: Repo, head: bytes | None, path: str) -> int:
    """Return the mode of a file: what it has, and for a new one a plain file's.

    Raises:
        InvalidRequestError: there is something else than a file.
    """
    if head is None:
        return _FILE_MODE
    try:
        mode, _ = tree_lookup_path(repo.__getitem__, repo[head].tree, path.encode())  # type: ignore[attr-defined]
    except (KeyError, NotTreeError):
        return _FILE_MODE
    if not stat.S_ISREG(mode):
        raise InvalidRequestError(
            f"{path} in the archive is no regular file: git has it with mode {mode:o}",
            hint="commit a regular file in its place",
        )
    return mode


def _below(repo: Repo, head: bytes, folder: str) -> Iterator[tuple[str, ObjectID]]:
    """Yield every file below a folder, by its path relative to that folder, with its object.

    One by one: an archive has a dozen files a release, for ever.
    """
    try:
        _, tree = tree_lookup_path(repo.__getitem__, repo[head].tree, folder.encode())  # type: ignore[attr-defined]
    except (KeyError, NotTreeError):
        return
    for entry in iter_tree_contents(repo.object_store, tree):
        if entry.sha is not None:
            yield entry.path.decode(), entry.sha


def _manifest(repo: Repo, head: bytes | None, folder: str, files: dict[str, bytes]) -> bytes:
    """List every file of a folder with its checksum; sorted, so that the same files give the same.

    An earlier manifest's entry of a file stands, unless the file is written now: that one was altered or deleted
    since must stay visible, and not be covered by the next commit.
    """
    there = {} if head is None else dict(_below(repo, head, folder))
    listed = {name: checksum_of(repo[found].as_raw_string()) for name, found in there.items()}
    with contextlib.suppress(KeyError, ValueError, TypeError):  # none yet, or no manifest of ours: then what is there
        listed |= json.loads(repo[there[MANIFEST]].as_raw_string())["files"]
    prefix = f"{folder}/"
    listed |= {path.removeprefix(prefix): checksum_of(data) for path, data in files.items() if path.startswith(prefix)}
    return listing_bytes(listed)


def _last_touching(repo: Repo, paths: list[str]) -> str | None:
    for entry in repo.get_walker(paths=[path.encode() for path in paths], max_entries=1):
        return entry.commit.id.decode()
    return None


def _keep_in_step(
    repo: Repo, changed: dict[str, bytes], before: dict[str, bytes | None], modes: dict[str, int]
) -> None:
    root = Path(repo.path).resolve()
    index = repo.open_index()
    for path, data in changed.items():
        target = root / path
        if not target.parent.resolve().is_relative_to(root):
            raise InvalidRequestError(f"{path} leads out of the archive through a link in its working tree")
        target.parent.mkdir(parents=True, exist_ok=True)
        there = target.read_bytes() if target.is_file() and not target.is_symlink() else None
        if there == before[path] or there is None:
            _replace(target, data, stat.S_IMODE(modes[path]))
            there = data
        blob = Blob.from_string(data)
        if there == data:
            index[path.encode()] = index_entry_from_stat(target.stat(), blob.id, mode=modes[path])
        else:  # somebody's uncommitted edit stays; no stat, so that git compares contents and shows it as modified
            index[path.encode()] = IndexEntry(
                ctime=0, mtime=0, dev=0, ino=0, mode=modes[path], uid=0, gid=0, size=0, sha=blob.id
            )
    index.write()


def _replace(target: Path, data: bytes, permissions: int) -> None:
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".archive-")
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            os.fchmod(descriptor, permissions)
            handle.write(data)
        partial.replace(target)
    except BaseException:  # whatever ends the write, also a cancel, must not leave half a file
        partial.unlink(missing_ok=True)
        raise
