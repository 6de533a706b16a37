"""Options of the verbs by which a person signs: with a key file, keylessly, or elsewhere, with a token."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from constitution_client.keyless import KeylessOptions
    from constitution_client.signing import SigningOptions

OptionalKeyOption = Annotated[
    Path | None, typer.Option("--key", envvar="CONSTITUTION_KEY_FILE", help="Your OpenPGP secret key (mode 0600).")
]
PrintStatementOption = Annotated[
    Path | None,
    typer.Option(
        "--print-statement", help="Write the exact bytes to sign, for a key on a token: gpg --detach-sign FILE."
    ),
]
StatementSignatureOption = Annotated[
    Path | None,
    typer.Option("--signature", help="Send what was signed elsewhere: the detached signature's file, or the bundle's."),
]
StatementOption = Annotated[
    Path | None,
    typer.Option("--statement", help="The file that --signature signs; default: its name without .sig, .asc, .gpg."),
]
SigstoreOption = Annotated[
    bool,
    typer.Option("--sigstore", help="Sign keylessly: log in, and sign with a certificate of ten minutes. No key file."),
]
IdentityTokenOption = Annotated[
    Path | None,
    typer.Option(
        "--identity-token",
        envvar="SIGSTORE_ID_TOKEN_FILE",
        help="With --sigstore: a file (mode 0600) with an identity token, instead of a login in a browser.",
    ),
]
NoBrowserOption = Annotated[
    bool, typer.Option("--no-browser", help="With --sigstore: print the address, and type the code that it shows.")
]

_KEYLESS: Final = (
    ("sigstore", SigstoreOption, False),
    ("identity_token", IdentityTokenOption, None),
    ("no_browser", NoBrowserOption, False),
)


def signs_keylessly(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options of a keyless signature; its parameter ``keyless`` takes them as one.

    Typer reads a verb's options from its signature, and knows no groups of them.
    """

    @functools.wraps(verb)
    def given(
        *arguments: Any,
        sigstore: bool = False,
        identity_token: Path | None = None,
        no_browser: bool = False,
        **more: Any,
    ) -> None:
        keyless = keyless_options(sigstore=sigstore, token_file=identity_token, no_browser=no_browser)
        verb(*arguments, keyless=keyless, **more)

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(verb).parameters.values():
        if parameter.name != "keyless":
            parameters.append(parameter)
            continue
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option)
            for name, option, default in _KEYLESS
        ]
    given.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    given.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return given


def keyless_options(*, sigstore: bool, token_file: Path | None, no_browser: bool) -> "KeylessOptions | None":
    """Return the options of a keyless signature; None where none is asked for.

    Raises:
        UsageError: ``--no-browser`` without it. A file with a token may be named for all commands by its setting.
    """
    if not sigstore:
        if no_browser:
            from constitution_client.settings import UsageError

            raise UsageError("--no-browser goes with --sigstore")
        return None
    from constitution_client.keyless import KeylessOptions

    return KeylessOptions(token_file=token_file, browser=not no_browser)


def signing_options(
    key: Path | None,
    print_statement: Path | None = None,
    signature: Path | None = None,
    statement: Path | None = None,
    keyless: "KeylessOptions | None" = None,
) -> "SigningOptions":
    """Return the options as one.

    Raises:
        UsageError: they name no way of signing, or two.
    """
    from constitution_client.signing import SigningOptions

    options = SigningOptions(
        key=key, print_statement=print_statement, signature=signature, statement=statement, keyless=keyless
    )
    options.check()
    return options
