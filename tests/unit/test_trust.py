"""The trust policy refuses to load what would later count wrongly."""

import os
from pathlib import Path

import pytest

from constitution.errors import InvalidRequestError
from constitution.trust.trust_policy import Thresholds, TrustPolicy, referenced_files
from signatures.openpgp import check_certificates
from signatures.tokens import ClientKey
from signatures.trust_files import load_trust
from tests.unit.keyring import keyring, toml_of

ROOT = '[sigstore]\ntrusted_root = "root.json"\nsha256 = "{digest}"\n'


def refused(toml: str, files: dict[str, bytes]) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        TrustPolicy.parse(toml, files)
    return caught.value.diagnostics()


def test_a_good_policy_is_read_with_its_files(tmp_path: Path) -> None:
    ring = keyring()
    (tmp_path / "certificates").mkdir()
    (tmp_path / "trust.toml").write_text(ring.toml)
    for name, data in ring.files.items():
        (tmp_path / name).write_bytes(data)
    assert load_trust(tmp_path / "trust.toml") == ring.trust
    assert ring.trust.with_role("board") == ("alva", "bruno", "chen")


@pytest.mark.parametrize(
    ("replace", "by", "said"),
    [
        ("\nversion = 1\n", "\nversion = 1\n[thresholds]\napproval = 0\n", "greater than or equal to 1"),
        (
            "\nversion = 1\n",
            "\nversion = 1\n[thresholds]\napproval = 4\n",
            "takes 4 people with role board, but 3 have it",
        ),
        ("\nversion = 1\n", "\nversion = 1\n[thresholds]\ndocument = 3\n", "takes 3 people with role maintainer"),
        ("\nversion = 1\n", "\nversion = 1\nsurprise = 1\n", "Extra inputs"),
        ('id = "alva"', 'id = "bruno"', "the id bruno stands twice"),
        ("roles = ['maintainer']", "roles = []", "at least 1 item"),
        ('id = "worker"', 'id = "Worker"', "String should match pattern"),
        ('"lease:write"', '"everything"', "Input should be"),
    ],
)
def test_what_cannot_be_met_is_refused(replace: str, by: str, said: str) -> None:
    ring = keyring()
    assert replace in ring.toml
    assert said in refused(ring.toml.replace(replace, by, 1), ring.files)


def test_a_short_fingerprint_is_refused() -> None:
    ring = keyring()
    fingerprint = ring.trust.people[0].openpgp[0].fingerprint
    assert "String should match pattern" in refused(ring.toml.replace(fingerprint, fingerprint[-16:]), ring.files)


def test_an_empty_identity_or_issuer_is_refused() -> None:
    ring = keyring()
    for entry in (
        '{ identity = "", issuer = "https://a" }',
        '{ identity = "a@b", issuer = "" }',
        '{ identity = "a@b" }',
    ):
        toml = ring.toml.replace('id = "alva"', f'id = "alva"\nsigstore = [{entry}]', 1)
        assert "sigstore" in refused(toml, ring.files)


def test_a_sigstore_identity_needs_a_pinned_root() -> None:
    ring = keyring()
    toml = ring.toml.replace('id = "alva"', 'id = "alva"\nsigstore = [{ identity = "a@b", issuer = "https://a" }]', 1)
    assert "a trusted root must be pinned" in refused(toml, ring.files)
    pinned = toml.replace("\nversion = 1\n", "\nversion = 1\n" + ROOT.format(digest="0" * 64), 1)
    assert "is not the digest of the trusted root" in refused(pinned, {**ring.files, "root.json": b"{}"})


def test_a_missing_file_is_named() -> None:
    ring = keyring()
    files = {name: data for name, data in ring.files.items() if "bruno" not in name}
    assert "certificates/bruno.asc: is named by trust.toml but was not found" in refused(ring.toml, files)


def test_one_key_under_two_people_is_refused() -> None:
    ring = keyring()
    alva, bruno = (ring.trust.person(p) for p in ("alva", "bruno"))
    assert alva is not None
    assert bruno is not None
    toml = ring.toml.replace(bruno.openpgp[0].fingerprint, alva.openpgp[0].fingerprint)
    assert "is the key of person alva too" in refused(toml, ring.files)


def test_a_client_key_cannot_be_a_service_key() -> None:
    ring = keyring()
    toml = ring.toml.replace(ring.worker.public_text(), ring.service.public_text())
    assert "is the key of service constitution-service too" in refused(toml, ring.files)


@pytest.mark.parametrize("text", ["", "AAAA", "not base64 at all!", "A" * 44])
def test_a_public_key_that_is_none_is_refused(text: str) -> None:
    ring = keyring()
    assert "public_key" in refused(ring.toml.replace(ring.worker.public_text(), text), ring.files)


@pytest.mark.parametrize("name", ["/etc/passwd", "../keys/mara.tsk", "a/../../b"])
def test_files_outside_the_folder_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="outside its own folder"):
        referenced_files(f'[sigstore]\ntrusted_root = "{name}"\n')


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    ring = keyring()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "trust").mkdir()
    for name, data in ring.files.items():
        (tmp_path / "elsewhere" / Path(name).name).write_bytes(data)
    (tmp_path / "trust" / "certificates").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "trust" / "trust.toml").write_text(ring.toml)
    with pytest.raises(InvalidRequestError, match="leads outside its folder"):
        load_trust(tmp_path / "trust" / "trust.toml")


def test_what_is_no_toml_is_refused() -> None:
    assert "is not TOML" in refused("[[", {})


def test_a_certificate_of_another_fingerprint_is_refused_at_load() -> None:
    ring = keyring()
    files = {**ring.files, "certificates/alva.asc": ring.files["certificates/bruno.asc"]}
    with pytest.raises(InvalidRequestError, match=r"certificates/alva\.asc: the certificate file holds"):
        check_certificates(TrustPolicy.parse(ring.toml, files))


def test_a_secret_key_in_place_of_a_certificate_is_refused_at_load() -> None:
    ring = keyring()
    files = {**ring.files, "certificates/alva.asc": ring.tsk["alva"]}
    with pytest.raises(InvalidRequestError, match="holds a secret key"):
        check_certificates(TrustPolicy.parse(ring.toml, files))


def test_two_people_with_one_subkey_are_refused_at_load() -> None:
    """Two entries whose certificates share a key: here the same certificate under two spellings of its file."""
    ring = keyring()
    alva = ring.trust.person("alva")
    assert alva is not None
    key = (alva.openpgp[0].fingerprint, "certificates/alva.asc")
    toml = toml_of(
        [("alva", ["board", "maintainer"], [key]), ("bruno", ["board"], [key])],
        ring.service,
        ClientKey.generate("worker"),
    )
    assert "is the key of person alva too" in refused(toml, ring.files)


@pytest.mark.timeout(10)
def test_a_pipe_in_place_of_a_file_is_refused_and_hangs_nobody(tmp_path: Path) -> None:
    for name in ("trust.toml", "key.jwk"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(InvalidRequestError, match="no regular file"):
        load_trust(tmp_path / "trust.toml")
    with pytest.raises(InvalidRequestError, match="no regular file"):
        ClientKey.load(tmp_path / "key.jwk")


@pytest.mark.parametrize(
    ("unwatched", "first", "watched", "needed"),
    [(None, False, False, 2), (3, False, False, 3), (1, False, False, 2), (3, False, True, 2), (3, True, False, 1)],
)
def test_an_update_that_nobody_watches_may_take_more_of_the_board(
    unwatched: int | None, first: bool, watched: bool, needed: int
) -> None:
    thresholds = Thresholds(approval=2, first_release=1, unwatched=unwatched)
    assert thresholds.for_update(first=first, watched=watched) == needed


@pytest.mark.parametrize(
    ("approval", "reissue", "needed"), [(2, None, 2), (3, None, 3), (2, 1, 2), (2, 3, 3), (1, None, 1)]
)
def test_a_reissue_takes_no_fewer_than_an_update(approval: int, reissue: int | None, needed: int) -> None:
    assert Thresholds(approval=approval, reissue=reissue).for_reissue() == needed
