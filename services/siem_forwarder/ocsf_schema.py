"""The pinned OCSF schema, as JSON Schema 2020-12 of each class (package ocsf-json-schema, pinned exactly)."""

from typing import Any

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

OCSF_VERSION = "1.6.0"
MAX_PROBLEMS = 5


class OcsfSchema:
    """Validates events of any class of OCSF 1.6.0. Classes are compiled when first met."""

    def __init__(self) -> None:
        self._schemas = OcsfJsonSchemaEmbedded(get_ocsf_schema(OCSF_VERSION))
        self._validators: dict[int, Draft202012Validator] = {}

    def problems(self, event: Any) -> tuple[str, ...]:
        """Return what is wrong with an event, a few problems at most; nothing when it is valid.

        Checked besides the class's schema: ``metadata.version`` is the pinned one, ``type_uid`` is
        ``class_uid * 100 + activity_id``, and ``metadata.uid`` is there: without it nobody can drop duplicates.
        """
        if not isinstance(event, dict):
            return ("not an object",)
        class_uid = event.get("class_uid")
        if not isinstance(class_uid, int) or isinstance(class_uid, bool):
            return ("class_uid is missing or no integer",)
        try:
            validator = self._validator(class_uid)
        except ValueError:
            return (f"there is no class {class_uid} in OCSF {OCSF_VERSION}",)
        found = []
        for error in validator.iter_errors(event):
            found.append(f"{error.json_path}: {error.message[:200]}")
            if len(found) == MAX_PROBLEMS:
                return tuple(found)
        if not found:
            found = list(_beyond_the_schema(event))
        return tuple(found)

    def _validator(self, class_uid: int) -> Draft202012Validator:
        if class_uid not in self._validators:
            name = self._schemas.lookup_class_name_from_uid(class_uid)
            self._validators[class_uid] = Draft202012Validator(self._schemas.get_class_schema(name))
        return self._validators[class_uid]


def _beyond_the_schema(event: dict[str, Any]) -> tuple[str, ...]:
    found = []
    if event["metadata"].get("version") != OCSF_VERSION:
        found.append(f"metadata.version is not {OCSF_VERSION}")
    if not event["metadata"].get("uid"):
        found.append("metadata.uid is missing")
    if event["type_uid"] != event["class_uid"] * 100 + event["activity_id"]:
        found.append("type_uid is not class_uid * 100 + activity_id")
    return tuple(found)
