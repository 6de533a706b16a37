"""Every server that a stack may consist of."""

from deploy.embedded.kafka import Kafka
from deploy.embedded.postgres import Postgres
from deploy.embedded.prometheus import Prometheus
from deploy.embedded.server import Server
from deploy.embedded.services import SERVICES
from deploy.embedded.slack import SlackEmulator
from deploy.embedded.temporal import Temporal
from deploy.embedded.valkey import Valkey

INFRASTRUCTURE: tuple[type[Server], ...] = (Temporal, Postgres, Valkey, Kafka, Prometheus, SlackEmulator)
CATALOGUE: dict[str, type[Server]] = {server.name: server for server in (*INFRASTRUCTURE, *SERVICES)}

INFRASTRUCTURE_NAMES = tuple(server.name for server in INFRASTRUCTURE)
ALL_NAMES = tuple(CATALOGUE)
