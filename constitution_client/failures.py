"""The message and the exit code of a failed command. Each failure names the next command."""

import sys
import traceback

from constitution.errors import ConstitutionError, NotYetError
from constitution_client.exit_codes import ExitCode
from constitution_client.output import progress
from constitution_client.parts import missing_part
from constitution_client.settings import UsageError

_NEXT = {
    "invalid-request": "correct what is named above; --help after the verb lists what it takes",
    "invalid-document": "draft a document that fits, and compare the two with diff",
    "untrusted": "have a maintainer of the trust policy sign exactly these bytes",
    "not-approved": "constitution status  # lists the runs that wait for the board",
    "evidence-refused": "start the update anew with --dry-run: it runs the regression gate and changes nothing",
    "forbidden": "set CLIENT_KEY_FILE to a key whose client has the scope in the trust policy",
    "not-found": "constitution releases  # lists what there is",
    "conflict": "constitution releases  # then try again with what is current",
    "lease-held": "constitution status  # lists the open runs, the holder among them",
    "lease-lost": "constitution status  # lists the open runs",
    "stale-generation": "constitution current  # then try again",
    "file-refused": "name another file",
    "unavailable": "make status  # shows what runs; then type the same command again",
    "not-yet": "type the same command again",
}


def explain(error: Exception) -> int:
    """Write the problem and the next command to stderr; return the exit code."""
    if isinstance(error, ModuleNotFoundError) and (missing := missing_part(error)) is not None:
        progress(f"error: {missing[0]}")
        progress(f"next: {missing[1]}")
        return ExitCode.USAGE
    if not isinstance(error, ConstitutionError):
        traceback.print_exception(error, file=sys.stderr)
        progress("internal error: the lines above belong in a bug report; nothing that runs in Temporal was stopped")
        return ExitCode.INTERNAL
    progress(f"error: {error.diagnostics()}")
    if not error.hint and error.code in _NEXT:
        progress(f"next: {_NEXT[error.code]}")
    if isinstance(error, UsageError):
        return ExitCode.USAGE
    if isinstance(error, NotYetError):
        return ExitCode.WAITING
    return ExitCode.REFUSED if error.permanent else ExitCode.UNAVAILABLE
