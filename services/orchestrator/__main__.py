"""``python -m services.orchestrator``."""

import sys

from services.common.server import main
from services.orchestrator.app import create
from services.orchestrator.settings import OrchestratorSettings

if __name__ == "__main__":
    sys.exit(main("orchestrator", OrchestratorSettings, create))
