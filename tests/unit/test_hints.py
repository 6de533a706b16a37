"""Every command that the product prints works when it is pasted: each is read by the program that would run it.

Collected from the syntax tree of every package that ships, so that a new hint is in the table without being listed.
A hint is a sentence that names no command, or ends in a shell line: commands joined by ``;``, prose only behind ``#``.
What is put into it at run time is replaced by a value of its kind. README, docs and the Makefile are read as well.
"""

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer

from constitution.messages import undo_command
from constitution_client.commands import app

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "workflows",
    "activities",
    "adapters",
    "services",
    "constitution",
    "signatures",
    "deploy",
    "constitution_client",
)
COMMANDS = typer.main.get_command(app)
VERBS = frozenset(COMMANDS.commands)  # type: ignore[attr-defined]
STARTS = re.compile(
    rf"(?<![\w./-])(?:(?:\.venv/bin/)?constitution (?:{'|'.join(sorted(VERBS, key=len, reverse=True))})(?![\w-])"
    r"|make (?:up|down|status|restart|worker|setup|clean|demo|traffic)(?![\w-])"
    r"|temporal (?:workflow|worker|operator|schedule|config|activity|task-queue)(?![\w-])"
    r"|uv sync|git \w+ -|export \w+=)"
)
TARGETS = frozenset(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
VALUES = {
    "generation": "7",
    "checksum": "sha256:" + "0" * 64,
    "workflow_id": "constitution-update/development/CR-142",
    "chosen": "constitution-update/development/CR-142",
    "version": "1.4.0",
    "environment": "development",
    "indexed_value_type": "Keyword",
}
QUOTED = frozenset({"workflow_id", "chosen", "path", "out", "document", "target"})  # people choose these
PLACEHOLDER = re.compile(
    r"…|<[a-z]+>|\b(?:FILE|ID|KEY|KEYFILE|RUN|DOCUMENT|SIGNATURE|CHECKSUM|GENERATION|MAINTAINER)\b"
)
HELP = frozenset(  # help of options and a table of Markdown: read, not pasted
    {
        "With --checksum: decide without asking Temporal, for constitution load.",
        "A file with a signed decision (constitution approve --print); repeat it.",
        "Follow a run live: constitution watch ID. Other views are subcommands.",
    }
)


def _value(expression: ast.expr) -> str:
    """Return a value such as the expression has when the product runs."""
    text = ast.unparse(expression)
    if text.startswith("undo_command("):
        return undo_command(7)
    inner = re.sub(r"^(?:shlex\.)?quote\((?:str\()?(.*?)\)+$", r"\1", text)
    if inner != text:
        return shlex.quote(VALUES.get(inner.rpartition(".")[2], "a name with spaces"))
    assert text.rpartition(".")[2] not in QUOTED, f"{text} is not quoted for a shell"
    assert not text.startswith("run["), f"{text} is not quoted for a shell"
    return next((value for name, value in VALUES.items() if name in text), "x1")


MODULES = sorted(
    str(path.relative_to(CHECKOUT))
    for path in [
        CHECKOUT / "worker.py",
        CHECKOUT / "assessor.py",
        *(path for package in PACKAGES for path in (CHECKOUT / package).rglob("*.py")),
    ]
)


def _nodes(module: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse((CHECKOUT / module).read_text())))


def _texts(nodes: tuple[ast.AST, ...]) -> Iterator[tuple[int, ast.expr]]:
    """Yield every text of a module that is no docstring."""
    inside: set[int] = set()
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and isinstance(
            node.body[0], ast.Expr
        ):
            inside.add(id(node.body[0].value))
        if isinstance(node, ast.JoinedStr):
            inside |= {id(value) for value in node.values}
    for node in nodes:
        if id(node) not in inside and (
            isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
        ):
            yield node.lineno, node


def _plain(node: ast.expr) -> str:
    """Return the text with each expression as ``x``, to see whether it holds a command at all."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
    assert isinstance(node, ast.Constant)
    return str(node.value)


def _filled(node: ast.expr) -> str:
    if not isinstance(node, ast.JoinedStr):
        return _plain(node)
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else _value(part.value)  # type: ignore[attr-defined]
        for part in node.values
    )


def _commands(module: str) -> list[tuple[int, ast.expr]]:
    """Return every text of a module that holds a command."""
    found = []
    for line, node in _texts(_nodes(module)):
        plain = _plain(node)
        if STARTS.search(plain) and plain not in HELP and "\n|" not in plain:
            found.append((line, node))
    return found


def _read(command: list[str]) -> None:
    """Have the program that would run it read one command; nothing is run."""
    program, *arguments = command
    program = Path(program).name
    if program == "constitution":
        _parse(arguments)
    elif program == "make":
        names = [word for word in arguments if "=" not in word]
        assert set(names) <= TARGETS, f"no such target: {names}"
    elif program == "temporal":
        done = subprocess.run(  # noqa: S603 - Temporal's own program, which only explains itself
            [CHECKOUT / ".venv" / "bin" / "temporal", *arguments, "--help"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
    elif program == "export":
        assert all(re.fullmatch(r"[A-Z_]+=\S+", word) for word in arguments)
    else:
        assert program in {"uv", "git", "curl", "ls", "chmod", "less", "pip"}, f"{program}: who reads this?"


def _parse(arguments: list[str]) -> None:
    """Read arguments with the product's own parser; callbacks and verbs do not run."""
    command, rest = COMMANDS, list(arguments)
    context = command.make_context("constitution", rest, resilient_parsing=False)
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)  # type: ignore[attr-defined]
        context = command.make_context(name, rest, parent=context)


def _shell(line: str) -> list[list[str]]:
    """Return the commands of a shell line without its comment."""
    words = shlex.shlex(line, posix=True, punctuation_chars=";&|>")
    words.whitespace_split = True
    words.commenters = "#"
    commands: list[list[str]] = [[]]
    for word in words:
        if set(word) <= set(";&|"):
            commands.append([])
        elif commands[-1][-1:] == [">"]:
            commands[-1].pop()  # the file that the answer is written to
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def _advice(module: str) -> list[tuple[int, str]]:
    """Everything handed on as a hint or a next command, and what the workflows make by ``journal.command``."""
    found = []
    for node in _nodes(module):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id == "command" and node.args:
            words = [ast.literal_eval(argument) for argument in node.args]
            found.append((node.lineno, f"constitution {words[0]} run/1 {' '.join(words[1:])}"))
        found += [
            (node.lineno, _plain(keyword.value))
            for keyword in node.keywords
            if keyword.arg in {"hint", "command", "next_command"}
            and isinstance(keyword.value, ast.Constant | ast.JoinedStr)
        ]
    return found


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signer's own key: no program can know where it is."""
    file = tmp_path / "key"
    file.write_bytes(b"")
    monkeypatch.setenv("CONSTITUTION_KEY_FILE", str(file))


@contextmanager
def _at(line: int) -> Iterator[None]:
    """Say in which line of the module a text is that cannot be pasted."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in line {line}")
        raise


@pytest.mark.parametrize("module", MODULES)
def test_advice_names_only_verbs_that_there_are(module: str) -> None:
    for line, text in _advice(module):
        with _at(line):
            named = re.findall(r"(?:^|[;:`] ?)constitution ([^\s;]+)", text)
            assert set(named) <= VERBS, f"no such verb: {named}"
            if text.startswith("constitution ") and " run/1" in text:
                _parse(shlex.split(text)[1:])


def _from_the_documents() -> list[object]:
    """Every command line of a code block of README and docs."""
    found: list[object] = []
    for path in [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]:
        blocks = re.findall(r"^```\w*\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
        for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
            typed = re.match(r"(?:\$ )?((?:constitution|python -m constitution_client) .*)", line)
            if typed and not line.startswith("constitution  "):
                found.append(pytest.param(typed[1], id=f"{path.name}: {typed[1][:60]}"))
    return found


@pytest.mark.parametrize("line", _from_the_documents())
def test_a_documented_command_is_read_by_the_command_line(line: str) -> None:
    for command in _shell(line.replace("python -m constitution_client", "constitution")):
        if command[0] == "constitution":
            _parse([word.replace("…", "1") for word in command[1:]])


@pytest.mark.parametrize("module", MODULES)
def test_a_printed_command_is_read_by_the_program_that_it_names(module: str) -> None:
    for number, hint in _commands(module):
        with _at(number):
            _paste(_filled(hint))


def _paste(text: str) -> None:
    begin = STARTS.search(text)
    assert begin is not None
    line = text[begin.start() :].splitlines()[0]
    before = text[: begin.start()].splitlines()[-1:] or [""]
    assert not before[0].strip() or before[0].rstrip().endswith((":", ";")), f"prose runs into the command: {text!r}"
    pasted = line.partition("#")[0] if " # " in line else line
    assert not PLACEHOLDER.search(pasted), f"not to be pasted: {pasted!r}"
    assert "--help" not in pasted, f"help is no next step: {pasted!r}"
    for command in _shell(line):
        _read(command)
