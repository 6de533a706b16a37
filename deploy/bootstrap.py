"""Gets uv onto a machine that has python3 and little else, and runs it; without arguments it prints its path.

    python3 deploy/bootstrap.py sync --frozen

Runs before anything is installed: standard library only, any Python from 3.8. Needs no root, no pip, no venv and
no curl, and changes nothing outside the cache directory, so that an externally managed Python (PEP 668) is no
obstacle. In this order:

1. uv on PATH, or the one that an earlier run put into the cache.
2. Otherwise pip installs the pinned uv into the cache (`--target`, digests demanded). The pip is
   the machine's own; or a pip wheel that the machine holds (ensurepip, Debian's python3-pip-whl); or pip's wheel
   from the package index that the user's pip configuration or environment names; or, where nothing names one, the
   wheel in Debian's package python3-pip-whl, fetched by apt into a private directory. With no index configured,
   the index is thereby pip's own default: this repository names none.

A person's own settings of uv and pip hold where they say whence packages come and how the network is reached; what
would put them elsewhere, or others in their place, is set aside. Where there is no home that can be written, one in
the checkout's `var` takes its place.
"""

from __future__ import annotations  # for machines whose own Python is old

import configparser
import fcntl
import hashlib
import html.parser
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("uv-requirements.txt")
CHECKOUT = Path(__file__).resolve().parent.parent
# What of a person's settings holds: sources, network, place of the cache, choice of the Python.
KEPT_OF_UV = re.compile(
    r"UV_(DEFAULT_INDEX|EXTRA_INDEX_URL|INDEX.*|FIND_LINKS|CACHE_DIR|NO_CACHE|CONFIG_FILE|NO_CONFIG|CREDENTIALS_DIR"
    r"|KEYRING_PROVIDER|SYSTEM_CERTS|NATIVE_TLS|INSECURE_HOST|HTTP_.*|REQUEST_TIMEOUT|OFFLINE|CONCURRENT_.*|LINK_MODE"
    r"|LOCK_TIMEOUT|NO_PROGRESS|PYTHON|PYTHON_.*|MANAGED_PYTHON|NO_MANAGED_PYTHON)"
)
KEPT_OF_PIP = re.compile(
    r"PIP_(INDEX_URL|EXTRA_INDEX_URL|NO_INDEX|FIND_LINKS|TRUSTED_HOST|PROXY|CERT|CLIENT_CERT|TIMEOUT|DEFAULT_TIMEOUT"
    r"|RETRIES|CACHE_DIR|NO_CACHE_DIR|CONFIG_FILE|KEYRING_PROVIDER|USE_FEATURE|USE_DEPRECATED)"
)
# A hung index must not hang the set-up for ever.
NETWORK_TIMEOUT_SECONDS = 60


class BootstrapError(Exception):
    """No way led to uv; the text says what to do."""


def say(text: str) -> None:
    """Progress goes to standard error: standard output is the answer."""
    sys.stderr.write(f"bootstrap: {text}\n")
    sys.stderr.flush()


def find_uv() -> str:
    """Path of a uv that runs, installing one into the cache where there is none.

    Raises:
        BootstrapError: None can be had.
    """
    found = shutil.which("uv")
    if found is not None and _runs([found]):
        return found
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    target = cache_directory() / f"uv-{platform.machine()}-{digest}"
    uv = target / "bin" / "uv"
    with Path(f"{target}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _runs([str(uv)]):
            _install(target)
    if not _runs([str(uv)]):
        raise BootstrapError(f"the installed uv does not run: {uv}")
    return str(uv)


def home() -> Path:
    """The person's home; one in the checkout's `var` where there is none that can be written.

    Raises:
        BootstrapError: Neither can be.
    """
    try:
        own = Path.home()  # HOME, else the machine's list of users
        if own.is_absolute() and _writable(own / ".cache"):
            return own
    except RuntimeError:
        pass  # a user whom the machine does not know
    substitute = CHECKOUT / "var" / "home"
    if not _writable(substitute):
        raise BootstrapError(f"neither your home nor {substitute} can be written; set HOME to a folder that can be")
    return substitute


def cache_directory() -> Path:
    """The directory of this product's downloads, made if it is missing (XDG Base Directory Specification).

    Raises:
        BootstrapError: It cannot be written.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = (
        Path(given) if given.startswith("/") else home() / ".cache"
    )  # others are to be ignored, says the specification
    directory = base / "constitution-runbook"
    if not _writable(directory):
        raise BootstrapError(f"{directory} cannot be written; set XDG_CACHE_HOME to a folder that can be")
    return directory


def _writable(directory: Path) -> bool:
    """Whether files can be made in a directory, which is made if it is missing."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=str(directory)):
            return True
    except OSError:
        return False


def tools_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for uv and pip: with a home that can be written, without settings that change what is made."""
    return {
        **{
            name: value
            for name, value in environment.items()
            if not name.startswith(("UV_", "PIP_")) or KEPT_OF_UV.fullmatch(name) or KEPT_OF_PIP.fullmatch(name)
        },
        "HOME": str(home()),
    }


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run([*command, "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _install(target: Path) -> None:
    say("installing uv into the cache")
    with tempfile.TemporaryDirectory(prefix="bootstrap-", dir=str(target.parent)) as scratch:
        pip = _pip(Path(scratch))
        command = [
            *pip,
            "install",
            *("--quiet", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:"),
            *("--require-hashes", "--requirement", str(REQUIREMENTS), "--target", str(Path(scratch) / "uv")),
        ]
        environment = {
            **tools_environment(os.environ),
            "PIP_ROOT_USER_ACTION": "ignore",  # it warns root about changing the system; --target does not
            "PIP_USER": "0",  # a pip.conf may say otherwise
            "PIP_REQUIRE_VIRTUALENV": "0",  # likewise
        }
        if subprocess.run(command, check=False, stdout=sys.stderr, env=environment).returncode != 0:
            raise BootstrapError("pip could not install uv; its message is above. Install uv by hand and try again")
        shutil.rmtree(str(target), ignore_errors=True)
        (Path(scratch) / "uv").rename(target)


def _pip(scratch: Path) -> list[str]:
    """The command that runs a pip, from the nearest source that has one."""
    own = [sys.executable, "-m", "pip"]
    if _runs(own):
        return own
    problems = []
    sources = {
        "a pip wheel on this machine": _held_wheel,
        "pip's wheel from the configured package index": _wheel_from_configured_index,
        "the distribution's package python3-pip-whl": _wheel_from_debian,
    }
    for name, source in sources.items():
        try:
            wheel = source(scratch)
        except (OSError, ValueError, BootstrapError) as error:
            problems.append(f"  {name}: {error}")
            continue
        if wheel is not None:
            # A wheel of pip runs where it lies (zipimport).
            return [sys.executable, f"{wheel}/pip"]
        problems.append(f"  {name}: none")
    raise BootstrapError("this machine has no uv and no pip, and none could be had:\n" + "\n".join(problems))


def _held_wheel(_scratch: Path) -> Path | None:
    folders = [Path("/usr/share/python-wheels")]
    spec = importlib.util.find_spec("ensurepip")  # Debian's python3 comes without it
    if spec is not None and spec.origin is not None:
        folders.append(Path(spec.origin).parent / "_bundled")
    return _newest([wheel for folder in folders for wheel in folder.glob("pip-*.whl")])


def _newest(wheels: list[Path]) -> Path | None:
    return max(wheels, key=lambda wheel: _version(wheel.name), default=None)


def _version(name: str) -> tuple[int, ...]:
    """The version in a wheel's file name; a pre-release counts as older than all others."""
    text = name.split("-")[1]
    return tuple(int(part) for part in text.split(".")) if re.fullmatch(r"[\d.]+", text) else ()


def configured_index() -> str | None:
    """The package index that the user's environment or pip configuration names; None where nothing does."""
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if os.environ.get(name):
            return os.environ[name]
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - also for a user whom the machine does not know
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    global_files = [
        Path(folder) / "pip" / "pip.conf" for folder in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")
    ]
    files = [*global_files, Path("/etc/pip.conf"), home / ".pip" / "pip.conf", config_home / "pip" / "pip.conf"]
    if os.environ.get("PIP_CONFIG_FILE"):
        files.append(Path(os.environ["PIP_CONFIG_FILE"]))
    index = None
    for file in files:  # later files win, as in pip
        parser = configparser.RawConfigParser()
        parser.read(str(file))
        for section in ("global", "install"):
            index = parser.get(section, "index-url", fallback=index)
    return index


class _Links(html.parser.HTMLParser):
    """Collects the links of a simple-index page (PEP 503) that any Python may use."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "a" and attributes.get("href") and "data-yanked" not in attributes:
            self.links.append(attributes["href"] or "")


def _wheel_from_configured_index(scratch: Path) -> Path | None:
    index = configured_index()
    if index is None:
        return None
    page = index.rstrip("/") + "/pip/"
    say("fetching pip's wheel from the configured package index")
    links = _Links()
    links.feed(_get(page, accept="text/html").decode())
    wheels = {}
    for link in links.links:
        url = urllib.parse.urljoin(page, link)
        name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
        if re.fullmatch(r"pip-[\d.]+-py3-none-any\.whl", name):
            wheels[name] = url
    if not wheels:
        raise BootstrapError("it lists no wheel of pip")
    # The newest that still supports this Python; pip drops a Python about a year after its end of life.
    newest = sorted(wheels, key=_version)
    name = newest[-1] if sys.version_info >= (3, 10) else next(n for n in reversed(newest) if _version(n) < (25, 1))
    data = _get(wheels[name].partition("#")[0], accept="*/*")
    algorithm, _, expected = urllib.parse.urlsplit(wheels[name]).fragment.partition("=")
    if algorithm == "sha256" and hashlib.sha256(data).hexdigest() != expected:
        raise BootstrapError(f"the sha256 of {name} is not the one on the index page")
    wheel = scratch / name
    wheel.write_bytes(data)
    return wheel


def _get(url: str, *, accept: str) -> bytes:
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise BootstrapError("its address is neither http nor https")
    password = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    parts = urllib.parse.urlsplit(url)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if parts.username:
        password.add_password(
            None, bare, urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
        )
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(password))
    request = urllib.request.Request(bare, headers={"Accept": accept})  # noqa: S310 - the scheme is checked above
    with opener.open(request, timeout=NETWORK_TIMEOUT_SECONDS) as answer:
        return bytes(answer.read())


def _wheel_from_debian(scratch: Path) -> Path | None:
    apt, unpack = shutil.which("apt-get"), shutil.which("dpkg-deb")
    if apt is None or unpack is None:
        return None
    say("fetching pip's wheel from the distribution's package python3-pip-whl")
    lists, cache = scratch / "lists", scratch / "cache"
    for directory in (lists / "partial", cache / "archives" / "partial"):
        directory.mkdir(parents=True)
    # Lists and cache of our own: works without root, and leaves the machine's own untouched.
    private = ["-qq", "-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={cache}", "-o", "Debug::NoLocking=1"]
    for verb in (["update"], ["download", "python3-pip-whl"]):
        done = subprocess.run(
            [apt, *private, *verb], cwd=str(scratch), check=False, stdout=sys.stderr, stderr=subprocess.PIPE
        )
        if done.returncode != 0:
            raise BootstrapError(f"apt-get {verb[0]}: {done.stderr.decode(errors='replace').strip()[-300:]}")
    package = next(iter(scratch.glob("python3-pip-whl_*.deb")))
    subprocess.run([unpack, "-x", str(package), str(scratch / "root")], check=True)
    return _newest(list((scratch / "root/usr/share/python-wheels").glob("pip-*.whl")))


if __name__ == "__main__":
    try:
        program = find_uv()
        if sys.argv[1:]:
            os.execve(program, [program, *sys.argv[1:]], tools_environment(os.environ))  # noqa: S606 - no shell is meant
        sys.stdout.write(program + "\n")
    except BootstrapError as problem:
        sys.exit(f"error: {problem}")
