"""Temporal: namespace, search attributes, schedule of reconciliation, and who polls our task queues."""

import os
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, GetSystemInfoRequest
from temporalio.client import Client, ScheduleActionExecutionStartWorkflow, ScheduleDescription
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError, RPCStatusCode

from constitution.errors import ConstitutionError
from constitution.names import Names
from constitution_client.temporal import Runs, connect
from deploy.installation.check import Check, cannot_tell, missing, not_set, ok, refused
from workflows.status import SEARCH_ATTRIBUTES

PLACE = "TEMPORAL_ADDRESS"
TIMEOUT = timedelta(seconds=10)
RETENTION = timedelta(days=1)  # a closed run that is forgotten earlier looks like none (docs/operations.md)
HEALTH = "temporal operator cluster health"
_NOT_ALLOWED = {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED}


async def temporal(names: Names, environment: str | None) -> AsyncIterator[Check]:
    """Look at the namespace that Temporal's own settings name: variables, or a profile of its command line."""
    try:
        if not ClientConfig.load_client_connect_config().get("target_host"):
            yield not_set(PLACE, "the worker")
            return
        client = await connect(os.environ)
        info = await client.workflow_service.get_system_info(GetSystemInfoRequest(), timeout=TIMEOUT)
    except ConstitutionError as error:
        yield refused(PLACE, "answers", error, HEALTH)
        return
    except (RuntimeError, ValueError) as error:
        yield missing(PLACE, "address", f"Temporal's configuration cannot be read: {error}", "temporal config list")
        return
    except RPCError as error:
        yield missing(PLACE, "answers", f"Temporal does not answer: {error.message}", HEALTH)
        return
    yield ok(PLACE, "answers", f"Temporal {info.server_version}")
    async for check in _namespace(client):
        yield check
        if check.subject == "namespace" and check.state != "ok":
            return
    for check in await _attributes(client):
        yield check
    if environment is None:
        yield cannot_tell(
            PLACE,
            "schedule",
            "the environment's name is not known",
            "give ENVIRONMENT_FILE the value that every process has",
        )
    else:
        yield await _schedule(client, names.reconcile_id(environment))
    for queue, process in ((names.task_queue(), "worker"), (names.assessor_queue(), "assessor")):
        yield await _pollers(client, queue, process)


async def _namespace(client: Client) -> AsyncIterator[Check]:
    name = client.namespace
    request = DescribeNamespaceRequest(namespace=name)
    try:
        found = await client.workflow_service.describe_namespace(request, timeout=TIMEOUT)
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            command = f"temporal operator namespace create --namespace {name} --retention 720h"
            yield missing(PLACE, "namespace", f"there is no namespace {name!r}", command)
        else:
            yield cannot_tell(PLACE, "namespace", error.message, f"temporal operator namespace describe {name}")
        return
    kept = found.config.workflow_execution_retention_ttl.ToTimedelta()
    yield ok(PLACE, "namespace", name)
    if kept < RETENTION:
        detail = f"closed runs are kept for {kept}, and must be for {RETENTION.days} day at least"
        command = f"temporal operator namespace update --namespace {name} --retention 720h"
        yield missing(PLACE, "retention", detail, command)
    else:
        yield ok(PLACE, "retention", f"closed runs are kept for {kept.total_seconds() / 3600:.0f} h")


async def _attributes(client: Client) -> list[Check]:
    request = ListSearchAttributesRequest(namespace=client.namespace)
    subject = "search attributes"
    command = f"temporal operator search-attribute list --namespace {client.namespace}"
    try:
        known = (await client.operator_service.list_search_attributes(request, timeout=TIMEOUT)).custom_attributes
    except RPCError as error:
        return [cannot_tell(PLACE, subject, f"Temporal does not list them: {error.message}", command)]
    found = list(_wrong(client.namespace, dict(known)))
    return found or [ok(PLACE, subject, f"all {len(SEARCH_ATTRIBUTES)} are registered")]


def _wrong(namespace: str, known: dict[str, int]) -> Iterator[Check]:
    absent = [key for key in SEARCH_ATTRIBUTES if key.name not in known]
    if absent:
        given = " ".join(f"--name {key.name} --type {key.indexed_value_type.name.title()}" for key in absent)
        detail = f"not registered: {', '.join(key.name for key in absent)}; the worker does not start without them"
        command = f"temporal operator search-attribute create --namespace {namespace} {given}"
        yield missing(PLACE, "search attributes", detail, command)
    for key in SEARCH_ATTRIBUTES:
        if key.name in known and known[key.name] != key.indexed_value_type.value:
            detail = f"{key.name} is registered with another type than {key.indexed_value_type.name.title()}"
            command = f"temporal operator search-attribute remove --namespace {namespace} --name {key.name}"
            yield missing(PLACE, "search attributes", detail, f"{command}; constitution doctor --deployment")


async def _schedule(client: Client, identity: str) -> Check:
    subject = "schedule"
    try:
        found = await client.get_schedule_handle(identity).describe(rpc_timeout=TIMEOUT)
    except RPCError as error:
        command = f"temporal schedule describe --schedule-id {identity}"
        if error.status == RPCStatusCode.NOT_FOUND:
            detail = f"there is none of the id {identity}: nothing is reconciled by itself"
            return missing(
                PLACE,
                subject,
                detail,
                "RECONCILE_SECONDS=30 role worker  # in the image: it makes the schedule at its start",
            )
        return cannot_tell(PLACE, subject, error.message, command)
    if found.schedule.state.paused:
        command = f"temporal schedule toggle --unpause --schedule-id {identity} --reason 'the doctor asks'"
        return missing(PLACE, subject, f"{identity} is paused: {found.schedule.state.note}", command)
    return ok(PLACE, subject, f"{identity}, {_last(found)}")


def _last(found: ScheduleDescription) -> str:
    ran = [
        action.started_at
        for action in found.info.recent_actions
        if isinstance(action.action, ScheduleActionExecutionStartWorkflow)
    ]
    return f"last started at {max(ran):%Y-%m-%d %H:%M:%SZ}" if ran else "has started no run yet"


async def _pollers(client: Client, queue: str, process: str) -> Check:
    place = f"task queue {queue}"
    try:
        found = await Runs(client, queue).workers()
    except ConstitutionError as error:
        return cannot_tell(place, "pollers", error.message, f"temporal task-queue describe --task-queue {queue}")
    if not found:
        return missing(
            place, "pollers", f"no {process} polls it", f"role {process}  # in the image; in a checkout: make up"
        )
    return ok(place, "pollers", f"{len(found)} polled within 90 s: {', '.join(found[:4])}")
