"""The base of every model on a wire: frozen, no unknown field, no clock and no random default.

A default factory that reads a clock or makes a uuid gives another value when a workflow replays, silently;
so there is none in this package.
"""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A frozen value that refuses unknown fields (pydantic ``extra="forbid"``)."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_bytes="base64", val_json_bytes="base64")
