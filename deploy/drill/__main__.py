"""``python -m deploy.drill``: what ``constitution drill`` runs.

Exit 0 only if every outcome was right; 1 if not; 2: wrong usage; 130: interrupted. However it ends, its servers end
with it; its folder is kept after a failure alone, for the logs.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from constitution_client.exit import leave
from deploy.drill.drill import Drill
from deploy.embedded.stack import Progress, Stack

PASSED, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def drill(
    *,
    json_: Annotated[bool | None, typer.Option("--json/--text")] = None,
    directory: Annotated[Path | None, typer.Option("--directory")] = None,
    keep: Annotated[bool, typer.Option("--keep")] = False,
) -> None:
    """Start scratch servers, drill, print the report, stop and delete the servers."""
    home = (directory or Path(tempfile.mkdtemp(prefix="constitution-drill-"))).resolve()
    if directory is not None and home.exists() and (not home.is_dir() or any(home.iterdir())):
        _say(f"error: {home} is no empty folder: a drill needs one of its own")
        leave(USAGE)
    leave(_run(home, as_json=not sys.stdout.isatty() if json_ is None else json_, keep=keep))


def _run(home: Path, *, as_json: bool, keep: bool) -> int:
    # An empty environment: no server of the operator's is ever used, whatever the shell's settings name.
    stack = Stack(home / "stack", environment={}, progress=_progress)
    code = FAILED
    try:
        report = Drill(stack, _say).run()
        print(json.dumps(report.as_json(), indent=2) if as_json else "\n".join(report.lines()))
        code = PASSED if report.passed else FAILED
    except KeyboardInterrupt:
        _say("interrupted: the servers stop")
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever it was, the drill has failed, says so and leaves nothing behind
        _say(f"error: {str(error) or type(error).__name__}")
    finally:
        stack.stop()
    if code == FAILED:
        _say(f"the logs are kept: less {stack.directory}/log/worker.log; then: constitution drill")
    elif not keep:
        stack.erase()
        shutil.rmtree(home, ignore_errors=True)
    return code


def _progress(news: Progress) -> None:
    if news.text == "running":
        _say(f"  {news.server} runs after {news.seconds:.0f} s")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(drill)
