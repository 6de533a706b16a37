"""The real nginx, unpacked from the distribution's package: what companies put before a server, and what it demands."""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from deploy.embedded.server import Command
from tests.ports import free_port
from tests.world.authority import Authority
from tests.world.debian import Unpacked
from tests.world.started import started


class _Nginx(ABC):
    """What the doors have in common.

    Args:
        folder: takes its configuration and its log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()

    @abstractmethod
    def _server(self) -> str:
        """The inside of the one ``server`` block."""

    @abstractmethod
    async def _check(self) -> None:
        """Raise while it does not answer."""

    def _upstream(self) -> str:
        """What stands beside the server block."""
        return ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Run it; yields host and port."""
        packages = await asyncio.to_thread(Unpacked, "nginx", "nginx")
        temporary = "".join(
            f"{kind}_temp_path {self._folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        configuration = f"""
daemon off; master_process off; pid {self._folder}/nginx.pid; error_log {self._folder}/nginx.log;
events {{}}
http {{
  access_log off;
  {temporary}
  {self._upstream()}
  server {{
    {self._server()}
  }}
}}
"""
        file = self._folder / "nginx.conf"
        file.write_text(configuration, encoding="utf-8")
        argv = (packages.program("usr/sbin/nginx"), "-c", str(file), "-e", str(self._folder / "nginx.log"))
        command = Command(argv=argv, cwd=self._folder)
        log = self._folder / "nginx.out"
        async with started(command, environment={"PATH": os.defpath}, log=log, ready=self._check):
            yield f"127.0.0.1:{self.port}"


class Balancer(_Nginx):
    """One address for all replicas of a service: the next one is asked where the first takes no connection.

    Args:
        ports: of the replicas.
        folder: as above.
        unready: a 503 means that a replica is not ready: the next is asked, also by a POST. It stands for a balancer
            that looks at ``/readyz``, which nginx does not.
    """

    def __init__(self, ports: Sequence[int], *, folder: Path, unready: bool = False) -> None:
        super().__init__(folder)
        self._ports, self._unready = ports, unready

    def _upstream(self) -> str:
        servers = " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in self._ports)
        return f"upstream replicas {{ {servers} }}"

    def _server(self) -> str:
        more = "proxy_next_upstream error timeout http_503 non_idempotent;" if self._unready else ""
        return f"""
    listen 127.0.0.1:{self.port};
    location / {{ proxy_pass http://replicas; client_max_body_size 8m; {more} }}
"""

    async def _check(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"http://127.0.0.1:{self.port}/healthz")).status_code == httpx.codes.OK


class TokenDoor(_Nginx):
    """Passes on what comes below ``/door/`` with a bearer token, and refuses all else.

    Args:
        url: of the server behind it.
        token: the one that is let in.
        folder: as above.
    """

    def __init__(self, url: str, *, token: str, folder: Path) -> None:
        super().__init__(folder)
        self._url, self._token = url, token

    def _server(self) -> str:
        return f"""
    listen 127.0.0.1:{self.port};
    location /door/ {{
      if ($http_authorization != "Bearer {self._token}") {{ return 401; }}
      proxy_pass {self._url}/;
    }}
"""

    async def _check(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"http://127.0.0.1:{self.port}/door/")
            assert answer.status_code == httpx.codes.UNAUTHORIZED


class GrpcDoor(_Nginx):
    """Lets calls through to a gRPC server that come over TLS with a client's certificate and an API key.

    Args:
        address: of the server behind it.
        authority: gave the door its certificate, and must have given the client's.
        key: the one that is let in.
        folder: as above.
    """

    def __init__(self, address: str, *, authority: Authority, key: str, folder: Path) -> None:
        super().__init__(folder)
        self._address, self._authority, self._key = address, authority, key

    def _server(self) -> str:
        own = self._authority.issue("door")
        return f"""
    listen 127.0.0.1:{self.port} ssl http2;
    ssl_certificate {own.certificate}; ssl_certificate_key {own.key};
    ssl_client_certificate {self._authority.file}; ssl_verify_client on;
    client_max_body_size 0;
    location / {{
      if ($http_authorization != "Bearer {self._key}") {{ return 401; }}
      grpc_read_timeout 600s; grpc_send_timeout 600s;
      grpc_pass grpc://{self._address};
    }}
"""

    async def _check(self) -> None:
        _reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()
        await writer.wait_closed()
