"""The golden requests that every policy engine is asked after a release: those of the regression gate's own cases.

``policy/cases/**/*.toml`` of the gate's folder holds ``[[case]]`` tables with a ``request``. Here only the requests are
used, as the probe tenant: the right answer to each is the domain's decision by the live document.
"""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from constitution import toml
from constitution.errors import EvidenceError, InvalidRequestError
from constitution.policy.consumer_api import PROBE_TENANT
from constitution.policy.evaluation import EvaluationRequest

# What a case need not say.
_DEFAULTS: dict[str, Any] = {"user": "user-1", "agent": "agent-1", "time": "2026-03-04T10:00:00Z"}


def golden_requests(gate_directory: Path) -> tuple[EvaluationRequest, ...]:
    """Return the distinct requests of all cases, in the order of their files.

    Raises:
        EvidenceError: there is none, or a file cannot be read: without requests nothing is proved.
    """
    folder = gate_directory / "policy" / "cases"
    found: dict[str, EvaluationRequest] = {}
    for path in sorted(folder.rglob("*.toml")):
        try:
            cases = toml.read(path.read_text("utf-8"), what=path.name).get("case", [])
            for case in cases:
                request = EvaluationRequest.model_validate(_DEFAULTS | case["request"] | {"tenant": PROBE_TENANT})
                found.setdefault(request.model_dump_json(), request)
        except (OSError, UnicodeDecodeError, InvalidRequestError, ValidationError, TypeError, KeyError) as error:
            raise EvidenceError(f"the golden cases in {path.name} cannot be read: {error}") from error
    if not found:
        raise EvidenceError(
            f"{folder} holds no golden cases", hint="set `gate` in environment.toml to the regression gate's folder"
        )
    return tuple(found.values())
