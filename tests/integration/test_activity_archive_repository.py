"""The archive's git repository: real git looks at what dulwich wrote, and writers are killed in mid-air."""

import asyncio
import shutil
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from adapters.archive import CHANGE_LOG, LOCK, GitArchive
from constitution.errors import InvalidRequestError, UnavailableError
from tests.world.files import CHECKOUT

FOLDER = "docs/legal/constitution/1.0.0-1"
ROW = ("testing/1/completed", "| 1.0.0 | 1 | sha256:00 | completed | alva | now |")


def git(repository: Path, *arguments: str) -> str:
    program = shutil.which("git")
    assert program is not None
    done = subprocess.run(  # noqa: S603 - git itself looks at what dulwich wrote
        [program, "-C", repository, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture(params=["bare", "with a working tree"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "archive"
    path.mkdir()
    git(path, "init", "--quiet", *(["--bare"] if request.param == "bare" else []))
    return path


def is_bare(repository: Path) -> bool:
    return git(repository, "rev-parse", "--is-bare-repository") == "true"


async def test_the_same_call_twice_is_one_commit_and_one_row(repository: Path) -> None:
    archive = GitArchive(repository)
    files = {f"{FOLDER}/document.json": b"{}", f"{FOLDER}/README.md": b"> Pledge\n"}
    first = await archive.commit(files, change_log_row=ROW, message="Archive", manifest=FOLDER)
    other = await archive.commit({"docs/other.txt": b"x"}, change_log_row=None, message="Other")
    again = await archive.commit(files, change_log_row=ROW, message="Archive", manifest=FOLDER)
    assert first == again != other
    assert git(repository, "rev-list", "--count", "HEAD") == "2"
    log = (await archive.read(CHANGE_LOG) or b"").decode()
    assert log.startswith("> Pledge: nothing here is mocked")
    assert log.count("sha256:00") == 1
    assert git(repository, "fsck", "--strict") == ""
    if not is_bare(repository):
        assert git(repository, "status", "--porcelain") == ""
        assert (repository / FOLDER / "document.json").read_bytes() == b"{}"


async def test_to_list_many_files_takes_little_more_than_the_list(repository: Path) -> None:
    archive = GitArchive(repository)
    wanted = {f"docs/legal/{n}/{name}.json" for n in range(400) for name in ("document", "manifest", "outcome", "gate")}
    await archive.commit(dict.fromkeys(wanted, b"{}"), change_log_row=None, message="Many")
    await archive.paths("docs/legal")  # what is made once is made now
    tracemalloc.start()
    try:
        found = await archive.paths("docs/legal")
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == wanted
    assert peak < 1.8 * held, (held / len(found), peak / len(found))


async def test_author_is_the_worker_and_nobody_else(repository: Path) -> None:
    commit = await GitArchive(repository).commit({"a/b.txt": b"x"}, change_log_row=None, message="Subject\n\nBody\n")
    said = git(repository, "log", "-1", "--format=%an <%ae>|%cn|%s|%H")
    assert said == f"Constitution Runbook <constitution-runbook@localhost>|Constitution Runbook|Subject|{commit}"


async def test_many_writers_at_once_lose_nothing(repository: Path) -> None:
    archives = [GitArchive(repository) for _ in range(4)]
    rows = [(f"testing/{n}/completed", f"| 1.0.{n} | {n} |") for n in range(12)]
    await asyncio.gather(
        *(
            archives[n % 4].commit({f"docs/{n}/x.txt": b"x"}, change_log_row=row, message="m", manifest=f"docs/{n}")
            for n, row in enumerate(rows)
        )
    )
    log = (await archives[0].read(CHANGE_LOG) or b"").decode()
    assert all(log.count(f"<!-- {key} -->") == 1 for key, _ in rows)
    assert git(repository, "rev-list", "--count", "HEAD") == "12"
    if not is_bare(repository):
        assert git(repository, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/x", "a/../../x", ".git/config", "a/.git/x", "a//b", "", "a/\0", "a\\..\\x", "docs/ space", "-n"],
)
async def test_a_hostile_path_writes_nothing(repository: Path, path: str) -> None:
    archive = GitArchive(repository)
    with pytest.raises(InvalidRequestError):
        await archive.commit({path: b"x"}, change_log_row=None, message="m")
    assert git(repository, "count-objects") == "0 objects, 0 kilobytes"


async def test_a_link_in_the_working_tree_leads_nowhere(tmp_path: Path) -> None:
    repository, outside = tmp_path / "archive", tmp_path / "outside"
    repository.mkdir()
    outside.mkdir()
    git(repository, "init", "--quiet")
    (repository / "docs").symlink_to(outside)
    with pytest.raises(InvalidRequestError, match="through a link"):
        await GitArchive(repository).commit({"docs/x.txt": b"x"}, change_log_row=None, message="m")
    assert list(outside.iterdir()) == []


async def test_somebodys_uncommitted_edit_is_left_alone(tmp_path: Path) -> None:
    repository = tmp_path / "archive"
    repository.mkdir()
    git(repository, "init", "--quiet")
    archive = GitArchive(repository)
    await archive.commit({"a.txt": b"one\n"}, change_log_row=None, message="m")
    (repository / "a.txt").write_bytes(b"mine\n")
    await archive.commit({"a.txt": b"two\n"}, change_log_row=None, message="m")
    assert (repository / "a.txt").read_bytes() == b"mine\n"
    assert git(repository, "show", "HEAD:a.txt") == "two"
    assert git(repository, "status", "--porcelain") == "M a.txt"


async def test_the_manifest_lists_files_of_earlier_commits_too(repository: Path) -> None:
    archive = GitArchive(repository)
    await archive.commit({f"{FOLDER}/a.json": b"a"}, change_log_row=None, message="m", manifest=FOLDER)
    await archive.commit({f"{FOLDER}/h/b.json": b"b"}, change_log_row=None, message="m", manifest=FOLDER)
    manifest = (await archive.read(f"{FOLDER}/manifest.json") or b"").decode()
    assert '"a.json": "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"' in manifest
    assert '"h/b.json"' in manifest
    assert "manifest.json" not in manifest


WRITER = """
import asyncio, sys
from pathlib import Path
from adapters.archive import GitArchive

async def main():
    archive = GitArchive(Path(sys.argv[1]))
    for n in range(1000):
        row = (f"testing/{n}/completed", f"| 1.0.{n} |")
        await archive.commit({f"docs/{n}/x.txt": b"x" * n}, change_log_row=row, message="m", manifest=f"docs/{n}")
        print(n, flush=True)

asyncio.run(main())
"""


async def test_a_writer_killed_anywhere_leaves_a_repository_that_the_next_call_completes(repository: Path) -> None:
    archive = GitArchive(repository)
    done = -1
    for lines in (1, 3, 4, 2):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, repository, cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(lines + done + 1):
            done = int(await process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        await process.wait()
    for n in range(done + 3):  # the one that was in the air, the one after it, and all before
        row = (f"testing/{n}/completed", f"| 1.0.{n} |")
        await archive.commit({f"docs/{n}/x.txt": b"x" * n}, change_log_row=row, message="m", manifest=f"docs/{n}")
    log = (await archive.read(CHANGE_LOG) or b"").decode()
    assert all(log.count(f"<!-- testing/{n}/completed -->") == 1 for n in range(done + 3))
    # A killed writer may leave objects that nothing names yet; what is named must be whole.
    assert git(repository, "fsck", "--strict", "--no-dangling") == ""
    if not is_bare(repository):
        assert git(repository, "status", "--porcelain") == ""


def locks_in(repository: Path) -> set[str]:
    return {path.name for path in repository.rglob("*.lock")}


KILLED_AT_A_FILE = """
import asyncio, itertools, os, signal, sys
from pathlib import Path
import dulwich.file
from dulwich.file import _GitFile
from adapters.archive import GitArchive

moments, dies_at = itertools.count(1), int(sys.argv[2])

def may_die():
    if next(moments) == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)

class Mortal(_GitFile):
    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        may_die()

    def close(self):
        may_die()
        super().close()

dulwich.file._GitFile = Mortal
asyncio.run(GitArchive(Path(sys.argv[1])).commit({"docs/2.txt": b"two"}, change_log_row=None, message="m"))
"""


@pytest.mark.slow
async def test_a_writer_killed_with_any_file_half_written_locks_nobody_out(repository: Path) -> None:
    archive = GitArchive(repository)
    await archive.commit({"docs/1.txt": b"one"}, change_log_row=None, message="m")
    start = git(repository, "rev-parse", "HEAD")
    deaths = 0
    for dies_at in range(1, 100):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED_AT_A_FILE, repository, str(dies_at), cwd=CHECKOUT
        )
        if await process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL
        deaths += 1
        await archive.commit({"docs/2.txt": b"two"}, change_log_row=None, message="m")
        assert git(repository, "show", "HEAD:docs/2.txt") == "two"
        assert locks_in(repository) == {LOCK}
        git(repository, "update-ref", "HEAD", start)  # the next writer does it all again
        git(repository, "reflog", "expire", "--expire=all", "--all")
        git(repository, "prune", "--expire=now")
        if not is_bare(repository):
            git(repository, "reset", "--hard", "--quiet")
            (repository / "docs" / "2.txt").unlink(missing_ok=True)
    assert deaths >= 10  # before and after each of two trees, a blob, a commit and the branch, at least
    assert git(repository, "show", "HEAD:docs/2.txt") == "two"
    assert git(repository, "fsck", "--strict", "--no-dangling") == ""


async def test_a_lock_that_git_itself_holds_is_respected_and_named(repository: Path) -> None:
    archive = GitArchive(repository)
    await archive.commit({"docs/1.txt": b"one"}, change_log_row=None, message="m")
    control = repository if is_bare(repository) else repository / ".git"
    held = control / git(repository, "symbolic-ref", "HEAD")
    held = held.with_name(f"{held.name}.lock")
    held.touch()
    with pytest.raises(UnavailableError, match=held.name):
        await archive.commit({"docs/2.txt": b"two"}, change_log_row=None, message="m")
    assert held.exists()
    held.unlink()
    await archive.commit({"docs/2.txt": b"two"}, change_log_row=None, message="m")
    assert git(repository, "show", "HEAD:docs/2.txt") == "two"


def test_a_folder_that_is_no_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="is no git repository"):
        GitArchive(tmp_path)


@pytest.mark.parametrize("bare", [True, False])
def test_a_repository_that_dulwich_would_spoil_is_refused_at_the_start(tmp_path: Path, bare: bool) -> None:
    git(tmp_path, "init", "--quiet", "--object-format=sha256", *(["--bare"] if bare else []), "archive")
    with pytest.raises(InvalidRequestError, match="objectformat = sha256") as refused:
        GitArchive(tmp_path / "archive")
    command = refused.value.hint.partition(": ")[2].replace("DIRECTORY", "other")
    git(tmp_path, *command.split()[1:])  # what the hint says works when typed
    GitArchive(tmp_path / "other")


@pytest.mark.parametrize(
    ("version", "extension", "value", "accepted"),
    [
        ("0", "refStorage", "reftable", False),
        ("1", "refStorage", "reftable", False),
        ("1", "partialClone", "origin", False),
        ("1", "fromTomorrow", "true", False),
        ("2", "noop", "true", False),
        ("1", "objectFormat", "sha1", True),
        ("1", "worktreeConfig", "true", True),
    ],
)
def test_a_format_that_is_not_known_is_not_written(
    tmp_path: Path, version: str, extension: str, value: str, accepted: bool
) -> None:
    git(tmp_path, "init", "--quiet")
    with (tmp_path / ".git" / "config").open("a") as config:  # git itself would refuse some of them from then on
        config.write(f"[core]\n\trepositoryformatversion = {version}\n[extensions]\n\t{extension} = {value}\n")
    if accepted:
        GitArchive(tmp_path)
    else:
        with pytest.raises(InvalidRequestError, match="cannot write"):
            GitArchive(tmp_path)


async def test_a_legal_departments_own_page_keeps_every_byte_and_its_mode(repository: Path, tmp_path: Path) -> None:
    if is_bare(repository):
        work = tmp_path / "work"
        git(tmp_path, "clone", "--quiet", str(repository), str(work))
    else:
        work = repository
    page = b"# Sicherheitshandbuch\r\n\r\nGepr\374ft durch die Rechtsabteilung.\r\n\014\r\nSeite zwei.\r\n"
    file = work / CHANGE_LOG
    file.parent.mkdir()
    file.write_bytes(page)
    file.chmod(0o755)
    git(work, "add", "-A")
    git(work, "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false", "commit", "-qm", "a")
    if is_bare(repository):
        git(work, "push", "--quiet", "origin", "HEAD")
    archive = GitArchive(repository)
    await archive.commit({}, change_log_row=ROW, message="Archive")
    written = await archive.read(CHANGE_LOG) or b""
    assert written.startswith(page)
    assert written.removeprefix(page).count(b"\n") == written.removeprefix(page).count(b"\r\n") > 0
    assert git(repository, "ls-tree", "HEAD", CHANGE_LOG).startswith("100755")
    assert git(repository, "fsck", "--strict") == ""
    if not is_bare(repository):
        assert git(repository, "status", "--porcelain") == ""
        assert file.read_bytes() == written


async def test_a_link_in_place_of_the_change_log_is_named(repository: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    git(tmp_path, "clone", "--quiet", str(repository), str(work))
    (work / "docs").mkdir()
    (work / CHANGE_LOG).symlink_to("elsewhere.md")
    git(work, "add", "-A")
    git(work, "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false", "commit", "-qm", "a")
    git(work, "push", "--quiet", "origin", "HEAD:refs/heads/pushed")
    head = git(repository, "symbolic-ref", "HEAD")
    git(repository, "update-ref", head, "refs/heads/pushed")
    with pytest.raises(InvalidRequestError, match="no regular file"):
        await GitArchive(repository).commit({}, change_log_row=ROW, message="Archive")
