"""The identity that a new Kafka gets."""

import uuid

from deploy.embedded.kafka import cluster_id


def test_no_cluster_id_looks_like_an_option() -> None:
    rest = uuid.uuid4().bytes[1:]
    found = [cluster_id(uuid.UUID(bytes=bytes((first, *rest)))) for first in range(256)]
    assert not [identity for identity in found if identity.startswith("-")]
    assert {len(identity) for identity in found} == {22}  # as Kafka writes its own
