"""``python -m services.constitution_service``."""

import sys

from services.common.server import main
from services.constitution_service.app import create
from services.constitution_service.settings import ServiceSettings

if __name__ == "__main__":
    sys.exit(main("constitution-service", ServiceSettings, create))
