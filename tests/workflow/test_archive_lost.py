"""The legal archive is lost, and there is no second copy: what its releases' folders said is written anew."""

import asyncio
import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from dulwich.repo import Repo

from adapters.archive import CHANGE_LOG
from constitution.release import CurrentConstitution
from tests.helpers import eventually
from tests.world.environment import RunningEnvironment

pytestmark = [pytest.mark.timeout(360), pytest.mark.slow]  # it empties the archive of every release before it


def contents(root: Path) -> dict[str, bytes]:
    """The committed files of releases, but for closed histories, receipts and what comes with them, and the manifests.

    The head of the audit stream is the one of the moment when a folder is written. What was refused, by tests before
    this one, is in the lost archive alone.
    """
    with Repo(str(root)) as repo:
        store = repo.object_store
        entries = store.iter_tree_contents(repo[repo.head()].tree)  # type: ignore[attr-defined]
        files = {entry.path.decode(): repo[entry.sha].as_raw_string() for entry in entries}
    lost = ("/rejected-", "/audit-head-", "/histories/", "/attestations/", "/orders/", "receipt", "manifest")
    kept = {path: data for path, data in files.items() if not any(part in path for part in lost)}
    rows = [line for line in kept.pop(CHANGE_LOG).splitlines() if b"rejected" not in line]
    return kept | {CHANGE_LOG: b"\n".join(rows)}


async def test_a_lost_archive_is_written_anew_by_doctor(env: RunningEnvironment, live: CurrentConstitution) -> None:
    await env.rest()  # the guard has archived the histories
    root = Path(env.settings["ARCHIVE_REPOSITORY"])
    before = await asyncio.to_thread(contents, root)
    assert f"docs/legal/constitution/{live.version}-{live.generation}/document.json" in before
    shutil.rmtree(root)
    Repo.init(str(root), mkdir=True).close()

    code, out, err = await env.constitution("doctor", "--repair", "--closed-seconds", "1", "--json")
    assert "archive-missing" in {finding["code"] for finding in json.loads(out)["findings"]}, err

    async def written() -> bool:
        # Five releases a run, oldest last: an archive of many takes several.
        await env.constitution("doctor", "--repair", "--closed-seconds", "1", "--json")
        with Repo(str(root)) as repo:
            if b"refs/heads/master" not in repo.get_refs() and b"refs/heads/main" not in repo.get_refs():
                return False
        return await asyncio.to_thread(contents, root) == before

    await eventually(written, timedelta(seconds=300))
    code, out, err = await env.constitution("doctor", "--closed-seconds", "1", "--json")
    assert (code, json.loads(out)["findings"]) == (0, []), err
