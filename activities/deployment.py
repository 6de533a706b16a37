"""Which deployment the worker serves: asked first, so that even a refused input is refused by name."""

from temporalio import activity

from activities.failures import classified
from activities.ports import Deployment
from constitution.model import Model


class DeploymentQuestion(Model):
    """Who asks: the workflow type, for the log."""

    asked_by: str


class DeploymentInfo(Model):
    """The environment that this worker serves, and where its people are told; ``run_id`` is the run that asked."""

    environment: str
    namespace: str
    channel: str
    tenants: tuple[str, ...]
    links: dict[str, str]
    run_id: str = ""


class DeploymentActivities:
    """Reads what the worker was started with.

    Args:
        deployment: environment file and trust policy, read once.
        namespace: prefix of every name in shared systems.
    """

    def __init__(self, *, deployment: Deployment, namespace: str) -> None:
        self._deployment = deployment
        self._namespace = namespace

    @activity.defn
    @classified
    async def read_deployment(self, x: DeploymentQuestion) -> DeploymentInfo:
        """Return the deployment. Twice, killed half-way, or late: only reads what was read at start."""
        activity.logger.info("deployment_asked", extra={"asked_by": x.asked_by})
        environment = self._deployment.environment
        return DeploymentInfo(
            environment=environment.environment,
            namespace=self._namespace,
            channel=environment.channel,
            tenants=environment.tenants,
            links=self._deployment.links,
            run_id=activity.info().workflow_run_id or "",
        )
