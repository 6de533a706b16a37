"""Service tokens: only a pinned client, for this environment, in its time, within its scopes."""

import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk, jwt

from constitution.errors import ForbiddenError, InvalidRequestError
from signatures import tokens
from signatures.tokens import ClientKey
from tests.unit.keyring import NOW, keyring


def claims(**changes: Any) -> dict[str, Any]:
    issued = int(NOW.timestamp())
    usual: dict[str, Any] = {
        "iss": "worker",
        "sub": "worker",
        "aud": "constitution/development",
        "iat": issued,
        "exp": issued + 300,
        "jti": "x",
        "scope": "load:write",
    }
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}


def token(header: dict[str, Any] | None = None, key: jwk.OKPKey | None = None, **changes: Any) -> str:
    return jwt.encode(
        {"alg": "Ed25519", "kid": "worker", **(header or {})},
        claims(**changes),
        key or keyring().worker.key,
        algorithms=["Ed25519"],
    )


def check(text: str, scope: str = "load:write", environment: str = "development", later: float = 0) -> str:
    now = NOW + timedelta(seconds=later)
    return tokens.verify(text, keyring().trust, environment=environment, scope=scope, now=now)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_a_minted_token_is_accepted_until_it_expires() -> None:
    text = tokens.mint(keyring().worker, environment="development", scopes=["load:write", "lease:write"], now=NOW)
    assert check(text) == check(text, "lease:write") == check(text, later=298) == "worker"
    with pytest.raises(ForbiddenError, match="expired"):
        check(text, later=301)


def test_no_token_lives_longer_than_five_minutes() -> None:
    text = tokens.mint(
        keyring().worker, environment="development", scopes=["load:write"], now=NOW, ttl=timedelta(hours=1)
    )
    with pytest.raises(ForbiddenError, match="expired"):
        check(text, later=301)
    with pytest.raises(ForbiddenError, match="more than five minutes"):
        check(token(exp=int(NOW.timestamp()) + 301))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"aud": "constitution/production"}, "audience"),
        ({"aud": ["constitution/development"]}, "audience"),
        ({"aud": None}, "audience"),
        ({"iss": "operator"}, "issuer"),
        ({"sub": "operator"}, "issuer"),
        ({"iat": None}, "time of issue"),
        ({"exp": None}, "time of issue"),
        ({"exp": True}, "time of issue"),
        ({"iat": int(NOW.timestamp()) + 60, "exp": int(NOW.timestamp()) + 120}, "future"),
        ({"jti": None}, "no id"),
        ({"jti": ""}, "no id"),
        ({"scope": None}, "lacks the scope"),
        ({"scope": ""}, "lacks the scope"),
        ({"scope": "load:writer"}, "lacks the scope"),
        ({"scope": ["load:write"]}, "lacks the scope"),
    ],
)
def test_a_claim_that_is_wrong_or_missing_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ForbiddenError, match=said):
        check(token(**changes))


def test_another_environment_is_refused() -> None:
    with pytest.raises(ForbiddenError, match="audience"):
        check(token(), environment="production")


def test_a_scope_the_policy_does_not_grant_is_refused() -> None:
    with pytest.raises(ForbiddenError, match="does not grant"):
        check(token(scope="load:write probe"), "probe")


def test_unsigned_tokens_are_refused() -> None:
    for header in ({"alg": "none", "kid": "worker"}, {"alg": "Ed25519", "kid": "worker"}):
        with pytest.raises(ForbiddenError, match="does not verify"):
            check(f"{part(header)}.{part(claims())}.")


def test_a_shared_secret_made_of_the_public_key_is_refused() -> None:
    secret = jwk.OctKey.import_key(keyring().worker.public_text() * 2)
    text = jwt.encode({"alg": "HS256", "kid": "worker"}, claims(), secret)
    with pytest.raises(ForbiddenError, match="does not verify"):
        check(text)


def test_a_key_inside_the_token_is_not_believed() -> None:
    stranger = jwk.OKPKey.generate_key("Ed25519")
    with pytest.raises(ForbiddenError, match="does not verify"):
        check(token({"jwk": stranger.as_dict(private=False)}, stranger))


@pytest.mark.parametrize("kid", ["operator", "constitution-service", "", None, 7])
def test_an_unknown_client_is_refused(kid: Any) -> None:
    header = {name: value for name, value in {"alg": "Ed25519", "kid": kid}.items() if value is not None}
    signing = f"{part(header)}.{part(claims())}"
    signature = base64.urlsafe_b64encode(keyring().worker.private_key.sign(signing.encode())).rstrip(b"=").decode()
    with pytest.raises(ForbiddenError):
        check(f"{signing}.{signature}")


@given(st.text(max_size=300))
def test_arbitrary_text_is_refused(text: str) -> None:
    with pytest.raises(ForbiddenError):
        check(text)


def test_a_very_long_token_is_refused() -> None:
    with pytest.raises(ForbiddenError, match="longer than"):
        check("a" * 5000)


@given(st.data())
def test_any_changed_character_is_refused(data: st.DataObject) -> None:
    text = token()
    position = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."))
    changed = text[:position] + other + text[position + 1 :]
    if changed == text or position == len(text) - 1:  # the last character holds bits that decode to nothing
        return
    with pytest.raises(ForbiddenError):
        check(changed)


class TestClientKey:
    def test_round_trip_and_repr_hide_the_secret(self, tmp_path: Path) -> None:
        key = ClientKey.generate("gate")
        (tmp_path / "gate.jwk").write_text(key.to_json())
        again = ClientKey.load(tmp_path / "gate.jwk")
        assert (again.id, again.public_text()) == ("gate", key.public_text())
        assert again.private_key.private_bytes_raw() == key.private_key.private_bytes_raw()
        assert json.loads(key.to_json())["d"] not in repr(again)

    @pytest.mark.parametrize(
        "change",
        [
            {"kid": None},
            {"kid": "Not An Id"},
            {"kty": "oct"},
            {"crv": "X25519"},
            {"d": None},
            {"d": "AAAA"},
            {"x": "A" * 43},
        ],
    )
    def test_what_is_no_private_key_with_an_owner_is_refused(self, change: dict[str, Any]) -> None:
        content = {**json.loads(ClientKey.generate("gate").to_json()), **change}
        secret = str(content.get("d"))
        with pytest.raises(InvalidRequestError) as caught:
            ClientKey.parse(json.dumps({name: value for name, value in content.items() if value is not None}))
        assert len(secret) < 10 or secret not in caught.value.diagnostics()

    @pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000])
    def test_what_is_no_json_object_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidRequestError):
            ClientKey.parse(text)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidRequestError, match=r"nowhere\.jwk cannot be read"):
            ClientKey.load(tmp_path / "nowhere.jwk")
