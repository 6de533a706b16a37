"""Takes a start or message that carries several arguments, and turns it into one that is refused in words.

Temporal's SDK decodes surplus arguments without a type, and calls the handler with them all. The one stalls the
workflow task for ever when a payload cannot be decoded; the other raises ``TypeError``, which fails the run: a signal
with two arguments, which anybody can send, would end an update in mid-publish without compensation. The converter in
``workflows.conversion`` leaves them undecoded; this interceptor replaces them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from temporalio.worker import (
    ExecuteWorkflowInput,
    HandleSignalInput,
    HandleUpdateInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

from workflows.input import several


class OneArgument(Interceptor):
    """Every workflow and every message takes one argument; its reader refuses more."""

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002, ARG002 - the SDK's name
    ) -> type[WorkflowInboundInterceptor] | None:
        """Return what stands before each run."""
        return _OneArgument


class _OneArgument(WorkflowInboundInterceptor):
    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002 - the SDK's name
        return await self.next.execute_workflow(dataclasses.replace(input, args=_one(input.args)))

    async def handle_signal(self, input: HandleSignalInput) -> None:  # noqa: A002 - the SDK's name
        await self.next.handle_signal(dataclasses.replace(input, args=_one(input.args)))

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:  # noqa: A002 - the SDK's name
        return await self.next.handle_update_handler(dataclasses.replace(input, args=_one(input.args)))


def _one(arguments: Sequence[Any]) -> Sequence[Any]:
    return arguments if len(arguments) < 2 else (several(len(arguments)),)
