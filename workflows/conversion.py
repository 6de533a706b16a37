"""How the worker's payloads and failures travel: one definition for the worker, the tests and the replays."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Final

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.common import RawValue
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter
from temporalio.converter import DefaultFailureConverter, PayloadConverter

_FOLDERS: Final = re.compile(r'File "[^"]*/([^"/]+/[^"/]+)"')


class ArgumentsConverter(PydanticPayloadConverter):
    """Leaves several payloads without types as they are: their reader names the types."""

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        """Decode payloads; several of them without types come back raw."""
        if type_hints is None and len(payloads) > 1:
            return [RawValue(payload) for payload in payloads]
        return super().from_payloads(payloads, type_hints)


class PortableFailures(DefaultFailureConverter):
    """Names a file in a stack trace by its last two parts: histories go into an archive that others read."""

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """Convert an exception and, through this same method, its causes."""
        super().to_failure(exception, payload_converter, failure)
        failure.stack_trace = _FOLDERS.sub(r'File "\1"', failure.stack_trace)


data_converter = dataclasses.replace(
    pydantic_data_converter,
    payload_converter_class=ArgumentsConverter,
    failure_converter_class=PortableFailures,
)
