"""``python -m deploy.drill``: what ``constitution drill`` runs. Exit 0 only if every outcome was right."""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from constitution_client.exit import leave
from deploy.drill.drill import Drill
from deploy.drill.killer import DrillError
from deploy.embedded.control import StackError
from deploy.embedded.stack import Progress, Stack


def drill(
    *,
    json_: Annotated[bool | None, typer.Option("--json/--text")] = None,
    directory: Annotated[Path | None, typer.Option("--directory")] = None,
    keep: Annotated[bool, typer.Option("--keep")] = False,
) -> None:
    """Start scratch servers, drill, print the report, stop and delete the servers."""
    home = (directory or Path(tempfile.mkdtemp(prefix="constitution-drill-"))).resolve()
    if directory is not None and home.exists() and any(home.iterdir()):
        _say(f"error: {home} is not empty: a drill needs a folder of its own")
        leave(2)
    leave(_run(home, as_json=not sys.stdout.isatty() if json_ is None else json_, keep=keep))


def _run(home: Path, *, as_json: bool, keep: bool) -> int:
    # An empty environment: no server of the operator's is ever used, whatever the shell's settings name.
    stack = Stack(home / "stack", environment={}, progress=_progress)
    passed = False
    try:
        report = Drill(stack, _say).run()
        print(json.dumps(report.as_json(), indent=2) if as_json else "\n".join(report.lines()))
        passed = report.passed
    except (DrillError, StackError) as error:
        _say(f"error: {error}")
    finally:
        stack.stop()
        if passed and not keep:
            stack.erase()
            shutil.rmtree(home, ignore_errors=True)
    if not passed:
        _say(f"the logs are kept: less {stack.directory}/log/worker.log; then: constitution drill")
    return 0 if passed else 1


def _progress(news: Progress) -> None:
    if news.text == "running":
        _say(f"  {news.server} runs after {news.seconds:.0f} s")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(drill)
