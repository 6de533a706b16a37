"""One environment's files: keys, trust policy, environment.toml, made by the ceremony that production uses."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Final

from constitution.trust.trust_policy import TrustPolicy
from constitution_client.ceremony import PEOPLE, NewPerson, make_trust
from deploy.embedded import development, stack_directory
from signatures.tokens import ClientKey, mint
from signatures.trust_files import load_trust

CHECKOUT: Final = stack_directory.CHECKOUT
ENVIRONMENT: Final = development.ENVIRONMENT  # the one that embedded servers are set up for
TENANTS: Final = ("global", "acme")


@dataclass(frozen=True)
class EnvironmentFiles:
    """What lies in one folder."""

    directory: Path

    @classmethod
    def make(cls, directory: Path, *, people: Sequence[NewPerson] = PEOPLE) -> "EnvironmentFiles":
        """Hold the key ceremony and write ``environment.toml``."""
        make_trust(directory, ENVIRONMENT, people=people)
        return cls.configured(directory)

    @classmethod
    def configured(cls, directory: Path) -> "EnvironmentFiles":
        """Write ``environment.toml`` where a key ceremony was held."""
        files = cls(directory)
        files.environment_file.write_text(
            f'schema_version = 1\nenvironment = "{ENVIRONMENT}"\ngate = "gate"\ntenants = {json.dumps(TENANTS)}\n'
        )
        return files

    @cached_property
    def trust(self) -> TrustPolicy:
        """The trust policy; read once, after whatever a test has added to it."""
        return load_trust(self.directory / "trust" / "trust.toml")

    @property
    def environment_file(self) -> Path:
        return self.directory / "environment.toml"

    def tsk(self, person: str) -> bytes:
        """A person's secret key."""
        return (self.directory / "keys" / f"{person}.tsk").read_bytes()

    def key_file(self, client: str) -> Path:
        return self.directory / "keys" / f"{client}.jwk"

    def key(self, client: str) -> ClientKey:
        """The key by which a client of constitution-service makes its tokens."""
        return ClientKey.load(self.key_file(client))

    def token(self, client: str, *scopes: str, environment: str = ENVIRONMENT) -> str:
        return mint(self.key(client), environment=environment, scopes=scopes, now=datetime.now(UTC))

    def bearer(self, scope: str, client: str = "target", environment: str = ENVIRONMENT) -> dict[str, str]:
        """Headers of a call that needs ``scope``."""
        return {"Authorization": f"Bearer {self.token(client, scope, environment=environment)}"}
