"""``python -m services.policy_engine``."""

import sys

from services.common.server import main
from services.following.settings import FollowingSettings
from services.policy_engine.app import create

if __name__ == "__main__":
    sys.exit(main("policy-engine", FollowingSettings, create))
