"""Which settings each process reads, by the classes that read them."""

import re

from deploy.settings_reference import PROCESSES

# Read by the libraries of Temporal, the object stores and TLS, and by the gate, as docs/settings.md says.
OF_OTHERS = re.compile(r"(TEMPORAL|AWS|GOOGLE|AZURE|GATE)_[A-Z_]+|SSL_CERT_FILE")


def names_of(process: str) -> set[str]:
    """Every setting that a process reads."""
    return {name.upper() for name in PROCESSES[process].model_fields}


def needed_by(process: str) -> set[str]:
    """Those without which it does not start."""
    return {name.upper() for name, field in PROCESSES[process].model_fields.items() if field.is_required()}
