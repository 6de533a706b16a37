"""The sandbox in which workflows run: one definition for the worker, the tests and the replay of stored histories."""

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

PASSED_THROUGH = ("constitution", "activities", "pydantic", "pydantic_core", "annotated_types")
"""Imported once, outside the sandbox: the domain and the payloads are pure, and a second copy of their classes would
not equal the first."""


def workflow_runner() -> SandboxedWorkflowRunner:
    """Return the runner of this product's workflows."""
    return SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH))
