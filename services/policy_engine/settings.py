"""Settings of the policy engine."""

from pathlib import Path
from tempfile import gettempdir
from typing import Annotated

from pydantic import Field

from services.following.settings import FollowingSettings


class PolicyEngineSettings(FollowingSettings):
    """What the engine needs besides following.

    Args:
        recording_requests: ``RECORDING_REQUESTS``, how many evaluation requests are kept at most; 0 records nothing.
        recording_megabytes: ``RECORDING_MEGABYTES``, most room on disk for them.
        recording_hours: ``RECORDING_HOURS`` after which a request is forgotten.
        recording_directory: ``RECORDING_DIRECTORY`` on whose file system they lie, in a file without a name; default:
            the system's folder for temporary files.
    """

    recording_requests: Annotated[int, Field(ge=0, le=100_000)] = 4096
    recording_megabytes: Annotated[int, Field(ge=1, le=1024)] = 16
    recording_hours: Annotated[float, Field(gt=0, le=24)] = 24.0
    recording_directory: Path = Path(gettempdir())
