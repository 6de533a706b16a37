"""The two pages of the private Sigstore's login."""

from collections.abc import Mapping, Sequence
from html import escape

from fastapi.responses import HTMLResponse

# Nothing but the page's own form: no script, no picture, no frame around it.
_POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Log in to sign</title>
<style>body{{font:16px/1.5 system-ui;max-width:32rem;margin:4rem auto;padding:0 1rem}}label{{display:block}}
button,input{{font:inherit;margin:.5rem 0}}code{{word-break:break-all}}</style></head>
<body><main><h1>{title}</h1>{body}</main></body></html>
"""


def login_page(people: Sequence[tuple[str, str, str]], asked: Mapping[str, str]) -> HTMLResponse:
    """Return the page that asks who somebody is.

    Args:
        people: id, name and e-mail address of each.
        asked: the authorization request, which the form sends back.
    """
    hidden = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in asked.items()
    )
    names = "".join(
        f'<label><input type="radio" name="person" value="{escape(one)}" required> {escape(name)} '
        f"&lt;{escape(email)}&gt;</label>"
        for one, name, email in people
    )
    body = (
        f'<form method="post" action="/auth">{hidden}<fieldset><legend>Who are you?</legend>{names}</fieldset>'
        "<label>Password of this stack (SIGSTORE_LOGIN_PASSWORD in stack.env)<br>"
        '<input type="password" name="password" autocomplete="off" required></label>'
        "<button>Log in</button></form>"
    )
    return _page("Log in to sign", body)


def code_page(code: str) -> HTMLResponse:
    """Return the page with a code to carry to another machine."""
    return _page("Your verification code", f"<p><code>{escape(code)}</code></p><p>It is good once, for a minute.</p>")


def _page(title: str, body: str) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(title=title, body=body), headers=_POLICY)
