"""Versity S3 Gateway, built from its Go module: a real S3 server over a local directory.

For stacks whose artifact store is to be reached over the network: `ARTIFACT_STORE_URL=s3://artifacts`.
"""

from datetime import timedelta
from pathlib import Path

from deploy.embedded.go_build import go_program
from deploy.embedded.server import Command, NotAnswering, Server

PACKAGE = "github.com/versity/versitygw/cmd/versitygw"
VERSION = "v1.8.0"
BUCKET = "artifacts"
REGION = "us-east-1"
USER = "constitution"


class VersityGateway(Server):
    """The artifact store over S3."""

    name = "versitygw"
    # The first build on a busy machine.
    start_deadline = timedelta(seconds=90)

    def fetch(self) -> None:
        """Build it: about a minute."""
        self._binary()

    def _binary(self) -> Path:
        return go_program(self.directory, self.say, PACKAGE, VERSION)

    async def prepare(self) -> None:
        """Make the bucket: over a directory, a bucket is a folder."""
        (self.directory.data(self.name) / "objects" / BUCKET).mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        """The gateway; its keys travel in the environment."""
        keys = {"ROOT_ACCESS_KEY": USER, "ROOT_SECRET_KEY": self.directory.secret(self.name)}
        address = ("--port", f"127.0.0.1:{self.directory.port(self.name)}", "--region", REGION, "--quiet")
        # --nometa keeps attributes out of extended attributes, which not every file system has.
        over = ("posix", "--nometa", str(self.directory.data(self.name) / "objects"))
        return Command(argv=(str(self._binary()), *address, *over), environment=keys)

    async def check(self) -> None:
        """Ask for the bucket without a key: a refusal is an answer."""
        import httpx  # noqa: PLC0415 - not needed by a stack without it

        from deploy.embedded.loopback import loopback  # noqa: PLC0415 - not needed by a stack without it

        async with loopback(3) as client:
            answer = await client.get(f"{self.urls()['versitygw']}/{BUCKET}")
        if answer.status_code != httpx.codes.FORBIDDEN:
            raise NotAnswering(f"GET /{BUCKET} answers {answer.status_code}")

    def settings(self) -> dict[str, str]:
        """Where it is, and the keys, by the names that every S3 client reads."""
        return {
            "ARTIFACT_STORE_URL": f"s3://{BUCKET}",
            "AWS_ENDPOINT_URL": self.urls()["versitygw"],
            "AWS_ACCESS_KEY_ID": USER,
            "AWS_SECRET_ACCESS_KEY": self.directory.secret(self.name),
            "AWS_REGION": REGION,
            "AWS_ALLOW_HTTP": "true",  # loopback
        }

    def urls(self) -> dict[str, str]:
        """The S3 endpoint."""
        return {"versitygw": f"http://127.0.0.1:{self.directory.port(self.name)}"}
