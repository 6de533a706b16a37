"""Every server that a stack may consist of."""

from deploy.embedded.kafka import Kafka
from deploy.embedded.postgres import Postgres
from deploy.embedded.prometheus import Prometheus
from deploy.embedded.server import Server
from deploy.embedded.services import SERVICES
from deploy.embedded.sigstore.servers import SIGSTORE
from deploy.embedded.slack import SlackEmulator
from deploy.embedded.temporal import Temporal
from deploy.embedded.toxiproxy import Toxiproxy
from deploy.embedded.valkey import Valkey
from deploy.embedded.versitygw import VersityGateway

INFRASTRUCTURE: tuple[type[Server], ...] = (Temporal, Postgres, Valkey, Kafka, Prometheus, SlackEmulator)
# Started where they are asked for by name: the faults of tests/faults, an artifact store over S3, a private Sigstore.
ON_REQUEST: tuple[type[Server], ...] = (Toxiproxy, VersityGateway, *SIGSTORE)
CATALOGUE: dict[str, type[Server]] = {server.name: server for server in (*INFRASTRUCTURE, *SERVICES, *ON_REQUEST)}

INFRASTRUCTURE_NAMES = tuple(server.name for server in INFRASTRUCTURE)
ALL_NAMES = tuple(server.name for server in (*INFRASTRUCTURE, *SERVICES))
