"""A record that cannot be trusted, as an OCSF Detection Finding: forwarded with its bytes, never in the way.

Its uid is its place on the topic, which no writer of records can choose.
"""

import base64
import hashlib
import time
from typing import Any

from adapters.kafka_consumer import Record
from services.siem_forwarder.ocsf_schema import OCSF_VERSION
from services.siem_forwarder.sinks.sink import Event

MAX_RAW_BYTES = 64 * 1024  # of the value; the whole of it stays on the topic
MAX_HEADERS = 16
MAX_HEADER_BYTES = 256
MAX_TIME_MS = 253_402_300_799_999  # 9999-12-31: what every SIEM can show


def finding(record: Record, why: str) -> Event:
    """Return the finding about a record.

    Args:
        record: whatever came off the topic.
        why: what is wrong with it.
    """
    uid = f"quarantine:{record.topic}:{record.partition}:{record.offset}"
    value = record.value or b""
    kept = value[:MAX_RAW_BYTES]
    title = f"A record on {record.topic} cannot be trusted"
    moment = record.timestamp_ms if 0 < record.timestamp_ms <= MAX_TIME_MS else int(time.time() * 1000)
    metadata: dict[str, Any] = {
        "version": OCSF_VERSION,
        "uid": uid,
        "product": {"name": "constitution siem-forwarder", "vendor_name": "SomaAgentHub"},
        "log_name": record.topic,
        "is_truncated": len(kept) < len(value),
        "untruncated_size": len(value),
    }
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
        "metadata": metadata,
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


def _bounded(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data[:MAX_HEADER_BYTES]).decode()
