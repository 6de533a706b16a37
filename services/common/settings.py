"""Settings that every service reads beside those of every process."""

from typing import Annotated

from pydantic import Field

from adapters.process_settings import ProcessSettings


class Settings(ProcessSettings):
    """Base of every service's settings; subclasses add their own fields.

    Args:
        port: ``PORT``, to listen on; it serves the metrics, too.
    """

    port: Annotated[int, Field(ge=1, le=65535)]
