"""``python -m bench.fanout_asker COUNT PORT ENVIRONMENT_FILE SERVICE_URL GENERATION``: asks so many targets once.

Runs the assessor's own sync (``activities.sync.Sync``), heartbeats, report and attestation included, then the lower
bound: a bare loop of as many HTTP requests by the same client, at the same concurrency, that looks at no answer.
A process of its own, so that its peak memory is that of this number of targets. Prints one JSON object.
"""

import asyncio
import json
import resource
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
from temporalio.testing import ActivityEnvironment

from activities.attesting import Attester
from activities.fan_out import AT_ONCE, each
from activities.sync import Converged, Sync, SyncTask
from adapters.targets import LIMITS, TIMEOUT, HttpTargets
from bench.replicas import address, name
from constitution.environment import Target
from constitution.release import Release
from constitution.trust.attestation import SyncPredicate
from signatures.attestations import verify_attestation
from signatures.tokens import mint
from tests.integration.activity_support import make_config
from tests.world.author import Author
from tests.world.files import EnvironmentFiles


def targets_of(count: int, port: int) -> tuple[Target, ...]:
    """Return the replicas that ``bench.replicas`` serves."""
    return tuple(
        Target(id=name(number), kind="policy_engine", url=f"http://{address(number)}:{port}") for number in range(count)
    )


async def measure(count: int, port: int, files: EnvironmentFiles, service: str, generation: int) -> dict[str, Any]:
    """Ask once, then ask barely."""
    author = Author(files, service)
    targets = targets_of(count, port)
    client = HttpTargets(files.key("assessor-client"), files.trust.environment)
    beats: list[int] = []
    activity = ActivityEnvironment()
    activity.on_heartbeat = lambda *details: beats.append(len(json.dumps(details)))
    with TemporaryDirectory() as scratch:
        config = make_config(files, Path(scratch), targets=targets)
        assessor = Attester(service=author.assessor, config=config, key=files.key("assessor"))
        sync = Sync(targets=client, service=author.assessor, config=config, assessor=assessor)
        release, _ = await assessor.release(generation)
        task = SyncTask(
            generation=generation,
            checksum=release.checksum,
            rings=release.rings,
            deadline_seconds=300,
            require_all=True,
        )
        before, cpu = psutil.Process().memory_info().rss, time.process_time()
        began = time.perf_counter()
        found = await activity.run(sync.converge, task)
        asked_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        proved = await _proved(sync, author, release, found)
    bare_s = await _barely(targets, files)
    await client.aclose()
    await author.aclose()
    return {
        "targets": count,
        "seconds": asked_s,
        "cpu_seconds": cpu_s,
        "bare_seconds": bare_s,
        "ratio": asked_s / bare_s,
        "questions": sum(state.asked for state in found.tally.states.values()),
        "peak_rss": peak,
        "grown_by": peak - before,
        "largest_heartbeat": max(beats),
        "heartbeats": len(beats),
        "result_bytes": len(found.report.model_dump_json()),
        "converged": len(found.report.converged) + found.report.more_converged,
        **proved,
    }


async def _barely(targets: tuple[Target, ...], files: EnvironmentFiles) -> float:
    """Send as many requests by the same library with the same limits, at the same concurrency; look at no answer."""
    key, environment = files.key("assessor-client"), files.trust.environment
    token = mint(key, environment=environment, scopes=["policy:refresh"], now=datetime.now(UTC))
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(timeout=TIMEOUT, limits=LIMITS, trust_env=False) as http:

        async def ask(target: Target) -> None:
            (await http.post(f"{target.url}/v1/policy/refresh", headers=headers)).raise_for_status()

        began = time.perf_counter()
        await each(targets, ask, at_once=AT_ONCE)
        return time.perf_counter() - began


async def _proved(sync: Sync, author: Author, release: Release, found: Converged) -> dict[str, Any]:
    """Sign and store; then verify what constitution-service stored, and compare it with the targets."""
    began = time.perf_counter()
    await sync.attest(release, found)
    signed_s = time.perf_counter() - began
    envelope = (await author.worker.attestations(generation=release.generation))[-1]
    began = time.perf_counter()
    said = verify_attestation(envelope, author.files.trust)
    problems = said.problems(release, found.tally.states) if isinstance(said, SyncPredicate) else ("it is no sync",)
    return {
        "attestation_bytes": len(envelope.model_dump_json()),
        "sign_and_store_seconds": signed_s,
        "verify_seconds": time.perf_counter() - began,
        "problems": problems,
    }


if __name__ == "__main__":
    many, listen, file, url, generation_of = sys.argv[1:]
    world = EnvironmentFiles(Path(file).parent)
    print(json.dumps(asyncio.run(measure(int(many), int(listen), world, url, int(generation_of)))))
