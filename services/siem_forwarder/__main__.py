"""``python -m services.siem_forwarder``."""

import sys

from services.common.server import main
from services.siem_forwarder.app import create
from services.siem_forwarder.settings import ForwarderSettings

if __name__ == "__main__":
    sys.exit(main("siem-forwarder", ForwarderSettings, create))
