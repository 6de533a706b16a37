"""How to reach Redis: ``REDIS_URL``."""

from pydantic import SecretStr, field_validator

from adapters.process_settings import FrozenSettings
from adapters.redis_client import connect
from constitution.errors import InvalidRequestError


class RedisSettings(FrozenSettings):
    """Mixed into the settings of every process that talks to Redis.

    Args:
        redis_url: ``REDIS_URL``: ``redis://user:password@host:port/db``, with TLS ``rediss://…``; through Sentinel
            ``redis+sentinel://user:password@sentinel:port,sentinel:port/primary/db``; a cluster
            ``redis+cluster://user:password@node:port,node:port`` (``adapters.redis_client``).
    """

    redis_url: SecretStr

    @field_validator("redis_url")
    @classmethod
    def _readable(cls, value: SecretStr) -> SecretStr:
        try:
            connect(value.get_secret_value())  # connects to nothing yet
        except InvalidRequestError as error:
            raise ValueError(error.message) from None
        return value
