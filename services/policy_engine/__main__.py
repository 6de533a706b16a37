"""``python -m services.policy_engine``."""

import sys

from services.common.server import main
from services.policy_engine.app import create
from services.policy_engine.settings import PolicyEngineSettings

if __name__ == "__main__":
    sys.exit(main("policy-engine", PolicyEngineSettings, create))
