"""A running service takes each signed version of its trust policy, and nothing else, without a restart."""

import shutil
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from constitution.api import LoadRequest, LoadResult
from constitution.errors import ConstitutionError, ForbiddenError, UnavailableError, UntrustedError
from constitution.trust.attestation import GatePredicate
from constitution_follow import Follower
from tests.helpers import eventually
from tests.world.author import Author
from tests.world.documents import following
from tests.world.environment import ServiceEnvironment
from tests.world.processes import Service
from tests.world.readings import Topics
from tests.world.trust import entry, new_client_key, new_key, next_version, path_of


async def in_force(running: ServiceEnvironment, version: int) -> None:
    """Wait until the service obeys this version of the trust policy."""

    async def taken() -> bool:
        return await running.service.metric("trust_policy_version") == version

    await eventually(taken)


async def told(topics: Topics, activity: str) -> list[str]:
    """What the audit stream says of the trust policy."""
    events = [record.value for record in await topics.audit()]
    return [event["message"] for event in events if event["api"]["operation"] == activity]


async def test_a_signed_version_is_taken_and_an_unsigned_or_older_one_is_refused(
    service_environment: ServiceEnvironment, topics: Topics, tmp_path: Path
) -> None:
    running, files = service_environment, service_environment.files
    path = path_of(files)
    before = tmp_path / "before"
    shutil.copytree(path.parent, before)
    await running.author.push(running.author.draft("1.0.0"))

    path.write_text(path.read_text().replace("\nversion = 1\n", "\nversion = 2\n", 1))  # nobody signed it

    async def refused() -> str:
        state = (await running.author.worker.ready()).checks["trust"]
        assert "no signatures lead to from version 1" in state
        return state

    await eventually(refused)
    assert await running.service.metric("trust_policy_refused_total") >= 1
    assert await running.service.metric("trust_policy_version") == 1
    shutil.copytree(before, path.parent, dirs_exist_ok=True)

    next_version(files, (entry(files, "clients", "worker"), ""))
    await in_force(running, 2)
    with pytest.raises(ForbiddenError):
        await running.author.push(running.author.draft("1.1.0"))
    assert (await running.author.worker.ready()).checks["trust"] == "ok"

    shutil.rmtree(path.parent)
    shutil.copytree(before, path.parent)  # the older one again, as from a backup
    late = Service("constitution_service", running.settings, tmp_path / "late.log").start()
    code = await eventually(late.running.poll)
    assert code != 0
    assert "version 2 was in force here" in late.output()

    async def named() -> bool:
        return "leads to version 1, but 2 is in force" in (await running.author.worker.ready()).checks["trust"]

    await eventually(named)
    assert await running.service.metric("trust_policy_version") == 2

    async def audited() -> bool:
        refusals = await told(topics, "trust.refused")
        wanted = ("no signatures lead to", "version 2 was in force here", "leads to version 1")
        return all(any(words in message for message in refusals) for words in wanted)

    await eventually(audited)
    (taken,) = await told(topics, "trust.taken")
    assert taken.startswith("version 2 of the trust policy is in force: sha256:")


async def test_no_process_starts_with_other_bytes_under_a_number_that_was_in_force(
    service_environment: ServiceEnvironment, topics: Topics, tmp_path: Path
) -> None:
    running, path = service_environment, path_of(service_environment.files)
    path.write_text(path.read_text().replace("approval = 2", "approval = 1"))
    late = Service("constitution_service", running.settings, tmp_path / "late.log").start()
    assert await eventually(late.running.poll) != 0
    assert "version 1 has other bytes than the one that was in force here" in late.output()

    async def audited() -> bool:
        return any("other bytes" in message for message in await told(topics, "trust.refused"))

    await eventually(audited)


async def test_what_a_version_no_longer_vouches_for_is_served_to_nobody(
    service_environment: ServiceEnvironment,
) -> None:
    """Who obeys it already goes on; who starts has nothing to obey, and denies."""
    running, author, files = service_environment, service_environment.author, service_environment.files
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    hers = entry(files, "people", "mara").partition("openpgp = ")[2].partition("\n")[0]
    added, certificate = new_key(files, "mara")
    program = partial(Follower, service=running.service.url, trust=path_of(files), target="a", poll_seconds=0.1)
    async with program() as follower:
        next_version(files, (hers, f"[{added}]"), certificates=certificate)
        await in_force(running, 2)

        async def refused() -> str:
            try:
                await author.current()
            except UnavailableError as error:
                return error.message
            return ""

        assert "cannot be confirmed" in await eventually(refused)
        assert follower.status().generation == 1
        with pytest.raises(UnavailableError):
            async with program(wait_seconds=0.5):
                raise AssertionError("it must not start")
        second = await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
        served = await author.current()
        assert served is not None
        assert served.generation == second.generation
        await eventually(lambda: follower.status().generation == second.generation)


@pytest.mark.slow
async def test_a_maintainers_key_is_rotated_and_then_revoked(service_environment: ServiceEnvironment) -> None:
    running, author, files = service_environment, service_environment.author, service_environment.files
    old = author.sign(author.draft("1.0.0"))
    hers = 'certificate = "certificates/mara.asc" }'
    added, certificate = new_key(files, "mara")
    next_version(files, (hers, f"{hers}, {added}"), certificates=certificate)
    await in_force(running, 2)
    await author.push(author.draft("1.1.0"))  # by the new key
    first, _, _ = entry(files, "people", "mara").partition(added)
    start = first.index("openpgp = [") + len("openpgp = [")
    next_version(files, (first[start:], ""))
    await in_force(running, 3)
    await author.push(author.draft("1.2.0"))
    with pytest.raises(UntrustedError) as refused:
        await author.worker.push(author.draft("1.0.0"), [old])
    assert "belongs to nobody who may sign here" in refused.value.diagnostics()


@pytest.mark.slow
async def test_a_board_members_key_is_revoked_and_the_open_approval_with_it(
    service_environment: ServiceEnvironment,
) -> None:
    running, author, files = service_environment, service_environment.author, service_environment.files
    document = author.draft("1.0.0")
    request = await author.prepared(document)
    next_version(files, (entry(files, "people", "alva"), ""), by=("bruno", "chen"))
    await in_force(running, 2)
    with pytest.raises(ConstitutionError) as refused:
        await loaded(author, request)
    assert "not in the trust policy" in refused.value.diagnostics()
    approved = author.approvals(
        document,
        members=("bruno", "chen"),
        change_request=request.change_request,
        evidence=request.test_evidence,
        plan=author.plan(request.update_id),
    )
    assert (await loaded(author, request.model_copy(update={"approvals": approved}))).generation == 1


async def loaded(author: Author, request: LoadRequest) -> LoadResult:
    lease = await author.lease(request.update_id)
    try:
        return await author.load(request.model_copy(update={"fencing_token": lease.fencing_token}), uuid4().hex)
    finally:
        await author.release_lease(lease)


@pytest.mark.slow
async def test_an_operators_key_is_revoked(service_environment: ServiceEnvironment) -> None:
    running, author, files = service_environment, service_environment.author, service_environment.files
    update = str(uuid4())
    await author.worker.accept_order(author.order_request(update, "hold", "olga", reason="to look"))
    next_version(files, (entry(files, "people", "olga"), ""))
    await in_force(running, 2)
    with pytest.raises(ConstitutionError, match="not in the trust policy"):
        await author.worker.accept_order(author.order_request(update, "hold", "olga", reason="to look again"))


@pytest.mark.slow
async def test_an_assessors_key_is_revoked(service_environment: ServiceEnvironment) -> None:
    running, author, files = service_environment, service_environment.author, service_environment.files
    document = author.draft("1.0.0")
    identity = await author.ask(await author.push(document))
    record = await author.record(document, identity)
    digest = await author.assessor.put_evidence(record)
    stolen = files.key_file("assessor").read_text()
    added = new_client_key(files, "assessor")
    held = entry(files, "assessors", "assessor")
    key = held.split('public_key = "')[1].split('"')[0]
    next_version(files, (key, added.public_text()))
    await in_force(running, 2)
    await author.attest(GatePredicate.of(record, digest))
    files.key_file("assessor").write_text(stolen)
    with pytest.raises(UntrustedError, match="does not verify"):
        await author.attest(GatePredicate.of(record, digest))


@pytest.mark.slow
async def test_the_services_key_is_rotated_and_the_old_one_signs_nothing(
    service_environment: ServiceEnvironment, tmp_path: Path
) -> None:
    running, author, files = service_environment, service_environment.author, service_environment.files
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    held = entry(files, "services", "constitution-service")
    added = new_client_key(files, "constitution-service-2")
    also = f'{held}\n\n[[services]]\nid = "{added.id}"\npublic_key = "{added.public_text()}"'
    next_version(files, (held, also))
    await in_force(running, 2)
    settings = {**running.settings, "STATEMENT_KEY_FILE": str(files.key_file(added.id))}
    service = await Service("constitution_service", settings, tmp_path / "second.log").start().ready()
    other = Author(files, service.url)
    try:
        second = await other.confirmed(other.draft("1.1.0", following(first)), expected_generation=1)
        next_version(files, (f"{held}\n\n", ""))
        await in_force(running, 3)
        state = (await author.worker.ready()).checks["trust"]
        assert "the statement key of constitution-service is not in version 3" in state
        request = await author.prepared(author.draft("1.2.0", following(second)))
        with pytest.raises(UntrustedError, match="nobody would obey it"):
            await loaded(author, request)
    finally:
        await other.aclose()
        service.stop()
