"""A record that cannot be trusted, as an OCSF Detection Finding: forwarded with its bytes, never in the way.

Its uid is its place on the topic, which no writer of records can choose.
"""

import base64
import hashlib
import time
from typing import Any

from adapters.kafka_consumer import ConsumedMessage
from services.siem_forwarder.ocsf_schema import OCSF_VERSION
from services.siem_forwarder.sinks.sink import Event

MAX_RAW_BYTES = 64 * 1024  # of the value; the whole of it stays on the topic
MAX_HEADERS = 16
MAX_HEADER_BYTES = 256
MAX_NAME = 256  # characters of an event's uid
TOO_LARGE = "the receiver answers 413 to this event alone"
MAX_TIME_MS = 253_402_300_799_999  # 9999-12-31: what every SIEM can show


def finding(record: ConsumedMessage, why: str) -> Event:
    """Return the finding about a record.

    Args:
        record: as it came off the topic.
        why: what is wrong with it.
    """
    uid = f"quarantine:{record.topic}:{record.partition}:{record.offset}"
    value = record.value or b""
    kept = value[:MAX_RAW_BYTES]
    moment = record.timestamp_ms if 0 < record.timestamp_ms <= MAX_TIME_MS else int(time.time() * 1000)
    made = _finding(uid, f"A record on {record.topic} cannot be trusted", why, moment)
    made["metadata"] |= {
        "log_name": record.topic,
        "is_truncated": len(kept) < len(value),
        "untruncated_size": len(value),
    }
    return made | {
        "raw_data": base64.b64encode(kept).decode(),
        "raw_data_size": len(kept),
        "raw_data_hash": {"algorithm_id": 3, "algorithm": "SHA-256", "value": hashlib.sha256(value).hexdigest()},
        "unmapped": {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "encoding": "base64",
            "key": _bounded(record.key),
            "headers": [[name[:64], _bounded(header)] for name, header in record.headers[:MAX_HEADERS]],
        },
    }


def too_large(event: Event, *, size: int) -> Event:
    """Return the finding that takes the place of an event which the receiver takes in no size; about 1 kB.

    Args:
        event: named by its ``metadata.uid``.
        size: bytes of the event as it was sent.
    """
    told = str(event.get("metadata", {}).get("uid", ""))[:MAX_NAME]
    moment = event.get("time")
    if not isinstance(moment, int) or not 0 < moment <= MAX_TIME_MS:
        moment = int(time.time() * 1000)
    why = f"{TOO_LARGE}: event {told} ({size} bytes): {str(event.get('message', ''))[:200]}"
    made = _finding(f"too-large:{told}", "An event is too large for this receiver", why, moment)
    return made | {"unmapped": {"uid": told, "size": size, "class_uid": event.get("class_uid")}}


def _finding(uid: str, title: str, why: str, moment: int) -> dict[str, Any]:
    return {
        "activity_id": 1,
        "activity_name": "Create",
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "type_uid": 200401,
        "severity_id": 4,
        "severity": "High",
        "status_id": 1,
        "status": "New",
        "time": moment,
        "message": f"{title}: {why[:1000]}",
        "finding_info": {"uid": uid, "title": title, "desc": why[:1000], "types": ["quarantined-record"]},
        "metadata": {
            "version": OCSF_VERSION,
            "uid": uid,
            "product": {"name": "constitution siem-forwarder", "vendor_name": "SomaAgentHub"},
        },
    }


def _bounded(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data[:MAX_HEADER_BYTES]).decode()
