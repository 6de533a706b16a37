"""The answer of ``GET /v1/constitution`` for one release: bytes, headers and ETag, made once and never changed."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.types import Message

from constitution.release import CurrentConstitution
from services.constitution_service.tables.releases import Pointer

RawHeaders = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """Both ways to answer, as messages of ASGI. They are shared by every request: nobody may change them.

    Attributes:
        pointer: the release.
        etag: RFC 9110 §8.8.3; it changes with every generation, also when the document's bytes are the same.
        body: the JSON of the release (constitution.release.CurrentConstitution).
        headers: of both ways, without those of the body.
        whole: the two messages of a 200.
        same: the two messages of a 304.
    """

    pointer: Pointer
    etag: bytes
    body: bytes
    headers: RawHeaders
    whole: tuple[Message, Message]
    same: tuple[Message, Message]

    def matches(self, if_none_match: str | None) -> bool:
        """Tell whether ``If-None-Match`` names this release (weak comparison, RFC 9110 §13.1.2)."""
        if if_none_match is None:
            return False
        tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
        return self.etag.decode() in tags or "*" in tags


def make(pointer: Pointer, current: CurrentConstitution) -> Answer:
    """Return the answer that a verified release gets.

    Args:
        pointer: of the release.
        current: the release; verified.
    """
    body = current.model_dump_json().encode()
    etag = f'"{pointer.generation}-{(pointer.checksum or "sha256:none").removeprefix("sha256:")[:16]}"'.encode()
    headers = (
        (b"etag", etag),
        (b"constitution-version", (pointer.version or "none").encode()),
        (b"constitution-generation", str(pointer.generation).encode()),
        (b"cache-control", b"no-cache"),
    )
    of_body = ((b"content-length", str(len(body)).encode()), (b"content-type", b"application/json"))
    return Answer(
        pointer=pointer,
        etag=etag,
        body=body,
        headers=headers,
        whole=(_start(200, (*headers, *of_body)), {"type": "http.response.body", "body": body}),
        same=(_start(304, headers), {"type": "http.response.body", "body": b""}),
    )


def _start(status: int, headers: RawHeaders) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}
