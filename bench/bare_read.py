"""``python -m bench.bare_read KIND ANSWER PORT``: what ``GET /v1/constitution`` is compared with.

``bare`` is the lower bound of any Python service: an ASGI application of a few lines that returns the very bytes and
headers of constitution-service's answer, by the same server with its usual settings. ``validating`` is what people
write first: a FastAPI route that validates answer and document on each call. ``ANSWER`` is a JSON file of the answer's
headers and body.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from constitution.policy.document import Constitution
from constitution.release import CurrentConstitution

PATH: Final = "/v1/constitution"


def bare(headers: dict[str, str], body: bytes) -> ASGIApp:
    """Return the application: 304 for the ETag, else 200."""
    etag = headers["etag"].encode()
    without = [(name.encode(), value.encode()) for name, value in headers.items() if not name.startswith("content-")]
    whole = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if (b"if-none-match", etag) in scope["headers"]:
            await send({"type": "http.response.start", "status": 304, "headers": without})
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.start", "status": 200, "headers": whole})
        await send({"type": "http.response.body", "body": body})

    return app


def validating(body: bytes) -> FastAPI:
    """Return the application: it reads answer and document as models, and FastAPI writes the answer."""
    app = FastAPI()

    @app.get(PATH)
    async def read() -> CurrentConstitution:
        current = CurrentConstitution.model_validate_json(body)
        Constitution.model_validate_json(current.document or "")
        return current

    return app


if __name__ == "__main__":
    kind, file, port = sys.argv[1:]
    answer: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    content = answer["body"].encode()
    served = bare(answer["headers"], content) if kind == "bare" else validating(content)
    uvicorn.run(
        served, port=int(port), lifespan="off", log_config=None, access_log=False, server_header=False, http="h11"
    )
