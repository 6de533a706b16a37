"""``POST /v1/evaluate`` of a policy engine, in turn with a bare endpoint that only parses the same body."""

import json
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench.fleet import REQUESTS, Fleet
from bench.results import DIRECTORY, measuring
from bench.turns import ROUND_S, Asked, Server, in_turn, started, summarised
from deploy.demo.screen import Screen

PATH: Final = "/v1/evaluate"
SCRIPT: Final = """
local bodies, requests, turn = {%s}, {}, 0
local headers = {["Content-Type"] = "application/json"}
init = function()
  for number, body in ipairs(bodies) do requests[number] = wrk.format("POST", nil, headers, body) end
end
request = function()
  turn = turn %% #requests + 1
  return requests[turn]
end
"""


def measure(screen: Screen, *, rounds: int) -> None:
    """Load both in turn, so many rounds; store ``engine``."""
    with (
        Fleet(DIRECTORY / "stack", screen) as fleet,
        started(PATH, {"bare": ["bench.bare"]}) as others,
        measuring("engine") as result,
        TemporaryDirectory() as directory,
    ):
        fleet.end(fleet.update("tool-use", "default"))
        fleet.runs.quiet(seconds=60)
        now = datetime.now(UTC).isoformat()
        bodies = [json.dumps(request | {"time": now}) for request in json.loads(REQUESTS.read_text())]
        script = Path(directory) / "requests.lua"
        script.write_text(SCRIPT % ", ".join(f"[==[{body}]==]" for body in bodies), encoding="utf-8")
        engine = Server(fleet.settings["POLICY_ENGINE_1_URL"] + PATH, fleet.pid("policy-engine-1"))
        asked = {"evaluate": {"engine": Asked(script=script), "bare": Asked(script=script)}}
        found = in_turn({"engine": engine, **others}, asked, rounds=rounds, screen=screen)
        result["rounds"], result["round_s"] = rounds, ROUND_S
        result["summary"] = summarised(found)
