"""Which environment the worker serves: asked first, so that even a refused input is refused by name."""

from temporalio import activity

from activities.failures import classified
from activities.ports import ActivityConfig
from constitution.model import Model


class DeploymentQuestion(Model):
    """Who asks: the workflow type, for the log."""

    asked_by: str


class DeploymentInfo(Model):
    """The environment that this worker serves, and where its people are told; ``run_id`` is the run that asked.

    ``operators``: ids of those who may steer; ``unsigned_steering``: whether anybody may, unsigned.
    """

    environment: str
    namespace: str
    channel: str
    tenants: tuple[str, ...]
    links: dict[str, str]
    run_id: str = ""
    operators: tuple[str, ...] = ()
    unsigned_steering: bool = False


class DeploymentActivities:
    """Reads the configuration of the worker.

    Args:
        config: environment file and trust policy, read once.
        namespace: prefix of every name in shared systems.
    """

    def __init__(self, *, config: ActivityConfig, namespace: str) -> None:
        self._config = config
        self._namespace = namespace

    @activity.defn
    @classified
    async def read_deployment(self, x: DeploymentQuestion) -> DeploymentInfo:
        """Return the environment. Twice, killed half-way, or late: only reads what was read at start."""
        activity.logger.info("deployment_asked", extra={"asked_by": x.asked_by})
        return DeploymentInfo(
            environment=self._config.name,
            namespace=self._namespace,
            channel=self._config.environment.channel,
            tenants=self._config.environment.tenants,
            links=self._config.links,
            run_id=activity.info().workflow_run_id or "",
            operators=self._config.trust.with_role("operator"),
            unsigned_steering=self._config.environment.unsigned_steering == "allow",
        )
