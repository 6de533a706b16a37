"""Keyless signatures by sigstore-python: a login, a certificate of ten minutes, a bundle.

Against the public instance, or a private one that SIGSTORE_TRUST_CONFIG_FILE names. Who is logged in comes from a file
with an identity token, from the CI job that this runs in, or from a browser; where there is none, the address is
printed, and the code that it shows is typed here. A token is never an argument: every user of the machine could read
it. Sigstore is imported here, at the first login, because its import costs a second.
"""

import contextlib
import os
import sys
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from constitution.errors import UnavailableError, UntrustedError
from constitution.trust.trust_policy import Person, TrustPolicy
from constitution_client.files import read_bytes
from constitution_client.output import progress
from constitution_client.prompting import interruptible
from constitution_client.settings import ClientSettings, UsageError
from signatures.sigstore import Signatory, signatory

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken


@dataclass(frozen=True, slots=True, kw_only=True)
class KeylessOptions:
    """The command line's part.

    Args:
        token_file: holds an identity token.
        browser: one may be opened here.
    """

    token_file: Path | None = None
    browser: bool = True


class _Opener(webbrowser.BaseBrowser):
    """Opens the machine's browser, and says which address: the window may be on another screen."""

    def __init__(self, usual: webbrowser.BaseBrowser) -> None:
        super().__init__("constitution")
        self._usual = usual

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        progress(f"log in at {url}, which a browser opens now; where there is none, repeat this with --no-browser")
        return self._usual.open(url, new, autoraise)


@dataclass(frozen=True, slots=True)
class KeylessSigner:
    """Somebody who has logged in, with the certificate that says so."""

    _signer: Any
    _certificate: Any

    @classmethod
    def log_in(cls, options: KeylessOptions, configured: ClientSettings) -> "KeylessSigner":
        """Have somebody log in, and fetch their certificate.

        Raises:
            UsageError: the token file or the trust config is none.
            UntrustedError: the login, or the certificate, is refused.
            UnavailableError: a server does not answer.
        """
        from sigstore.sign import SigningContext, Signer  # noqa: I001 - late: see the module's docstring

        with _translated():
            config = _config(configured)
            token = _token(options, config)
            signer = Signer(token, SigningContext.from_trust_config(config))
            # No public name gives the certificate before something is signed, and a person is told first who signs.
            return cls(signer, signer._signing_cert())  # noqa: SLF001 - pinned: tests/unit/test_sigstore_names.py

    def person(self, trust: TrustPolicy) -> tuple[Person, Signatory]:
        """Return who this is by the trust policy.

        Raises:
            UntrustedError: the trust policy does not know the identity by this issuer.
        """
        found = signatory(self._certificate, trust.people)
        person = trust.person(found.person)
        if person is None:
            raise UntrustedError(f"{found.person} is not in the trust policy")
        return person, found

    def sign(self, data: bytes) -> bytes:
        """Return a bundle with a message signature over ``data``.

        Raises:
            UntrustedError: the certificate has expired meanwhile, or a server refuses.
            UnavailableError: a server does not answer.
        """
        with _translated():
            return str(self._signer.sign_artifact(data).to_json()).encode()

    @property
    def identities(self) -> tuple[str, ...]:
        """What the certificate says of the signer."""
        from cryptography import x509

        names = self._certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return tuple(str(name.value) for name in names)


def _config(configured: ClientSettings) -> "ClientTrustConfig":
    from sigstore.models import ClientTrustConfig

    file = configured.sigstore_trust_config_file
    if file is None:
        return ClientTrustConfig.production()
    data = read_bytes(file, what="Sigstore trust config")
    try:
        return ClientTrustConfig.from_json(data.decode())
    except Exception as error:  # pydantic, ValueError, Sigstore's own: all of it is no such file
        raise UsageError(
            f"{file} is no Sigstore trust config",
            hint="make up SIGSTORE=1  # writes one, which SIGSTORE_TRUST_CONFIG_FILE in var/stack.env names",
        ) from error


def _token(options: KeylessOptions, config: "ClientTrustConfig") -> "IdentityToken":
    from sigstore.oidc import IdentityToken, Issuer, detect_credential

    if options.token_file is not None:
        return IdentityToken(read_bytes(options.token_file, what="identity token", secret=True).decode().strip())
    ambient = detect_credential()
    if ambient is not None:
        progress("the identity is that of the CI job that this runs in")
        return IdentityToken(ambient)
    issuer = Issuer(config.signing_config.get_oidc_url())
    here = options.browser and _has_browser()
    if not here and not sys.stdin.isatty():
        raise UsageError(
            "nobody is here to log in", hint="--identity-token FILE  # a file with an identity token (mode 0600)"
        )
    # Its prompt goes to stdout, which is for results.
    with contextlib.redirect_stdout(sys.stderr):
        return interruptible(lambda: issuer.identity_token(force_oob=not here))


def _has_browser() -> bool:
    if not any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")):
        return False  # on a bare terminal, Python would start a browser in it
    try:
        opener = _Opener(webbrowser.get())
    except webbrowser.Error:
        return False
    webbrowser.register(opener.name, None, opener, preferred=True)
    return True


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Have Sigstore's errors be ours; each of its parts has its own."""
    import requests

    # No public name: neither is a sigstore.errors.Error, and uncaught they end in a traceback. Pinned:
    # tests/unit/test_sigstore_names.py
    from sigstore._internal.fulcio.client import ExpiredCertificate, FulcioClientError
    from sigstore._internal.rekor import RekorClientError
    from sigstore.errors import Error, NetworkError
    from sigstore.oidc import ExpiredIdentity, IssuerError

    try:
        yield
    except (ExpiredCertificate, ExpiredIdentity) as error:
        raise UntrustedError(
            "the login has expired: a certificate lives ten minutes", hint="type the same command again, and log in"
        ) from error
    except (NetworkError, requests.ConnectionError, requests.Timeout) as error:
        raise UnavailableError(
            f"Sigstore does not answer: {_first_line(error)}",
            hint="make status  # where SIGSTORE_TRUST_CONFIG_FILE names the stack's own; else look at what it names",
        ) from error
    except (Error, IssuerError, FulcioClientError, RekorClientError, requests.RequestException) as error:
        raise UntrustedError(
            f"Sigstore refuses: {_first_line(error)}", hint="log in with the identity that trust.toml names, and again"
        ) from error


def _first_line(error: BaseException) -> str:
    """Return the cause in a line; some of the library's errors say nothing themselves."""
    while not str(error).strip() and error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
