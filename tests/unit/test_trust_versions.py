"""A version of the trust policy follows the one before by the signatures of both, and by nothing else."""

import hashlib
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from constitution.errors import InvalidRequestError, UntrustedError
from constitution.release import Envelope
from constitution.trust.trust_policy import TrustPolicy
from constitution.trust.trust_version import TrustVersion
from deploy.embedded.authenticator import ORIGIN, RELYING_PARTY, Authenticator
from signatures import dsse, passkeys
from signatures.statements import IN_TOTO
from signatures.trust_files import load_trust, version_file
from signatures.trust_versions import checked_policy, follow, write_version
from tests.keyless import ISSUER, KeylessAuthority
from tests.unit.keyring import NOW, keyring
from tests.unit.trust_chain import first, next_of, person, signed, statement_of, version, write_folder

ROOT_OF_ONE = "[thresholds]\nroot = 1\n"
RENAMED = ('name = "Olga"', 'name = "Olga Berg"')


def refused(old: TrustPolicy, step: TrustVersion) -> str:
    with pytest.raises(UntrustedError) as caught:
        follow(old, step, NOW)
    return caught.value.diagnostics()


def without(policy: TrustPolicy, name: str) -> tuple[str, str]:
    """Return the edit that takes a person's entry away."""
    start = policy.toml_text.index(f'[[people]]\nid = "{name}"')
    end = policy.toml_text.index("\n[[", start + 2) + 1
    return policy.toml_text[start:end], ""


def test_a_version_follows_by_a_quorum_of_the_board_of_both() -> None:
    old = first()
    new = next_of(old, RENAMED)
    assert follow(old, version(old, new, "alva", "bruno"), NOW) == new
    assert new.checksum != old.checksum


class TestPasskey:
    """A board member without a key file signs a version, too: as every decision, bound to these bytes."""

    def pinned(self, device: Authenticator) -> TrustPolicy:
        party = f'\nrelying_party = {{ id = "{RELYING_PARTY}", origins = ["{ORIGIN}"] }}'
        toml = keyring().toml.replace("\nversion = 1", f"\nversion = 1{party}")
        return checked_policy(toml.replace('id = "alva"', f'id = "alva"\n{device.entry}'), keyring().files)

    def by(
        self, device: Authenticator, old: TrustPolicy, new: TrustPolicy, over: TrustPolicy | None = None
    ) -> Envelope:
        """An assertion over a step, in the envelope of what may be another one."""
        payload, signed_step = statement_of(old, new), statement_of(old, over or new)
        assertion = passkeys.canonical(device.sign(dsse.pae(IN_TOTO, signed_step)))[1]
        return dsse.with_signature(payload, IN_TOTO, device.passkey.fingerprint, assertion)

    def test_counts_as_that_person_for_both_sides(self) -> None:
        device = Authenticator()
        old = self.pinned(device)
        new = next_of(old, RENAMED)
        assert follow(old, version(old, new, "bruno", envelopes=(self.by(device, old, new),)), NOW) == new

    def test_beside_the_same_persons_key_is_one_person(self) -> None:
        device = Authenticator()
        old = self.pinned(device)
        new = next_of(old, RENAMED)
        assert "signed: alva" in refused(old, version(old, new, "alva", envelopes=(self.by(device, old, new),)))

    def test_of_another_step_or_device_or_one_that_the_version_removes_is_not_enough(self) -> None:
        device = Authenticator()
        old = self.pinned(device)
        new, other = next_of(old, RENAMED), next_of(old, RENAMED, version=3)
        without_it = next_of(old, (f"{device.entry}\n", ""))
        for target, envelope in (
            (new, self.by(device, old, new, over=other)),
            (new, self.by(Authenticator(), old, new)),
            (without_it, self.by(device, old, without_it)),
        ):
            assert "signed: bruno" in refused(old, version(old, target, "bruno", envelopes=(envelope,)))


@pytest.mark.parametrize(
    ("people", "said"),
    [
        ((), "of these signed: none"),
        (("alva",), "of these signed: alva"),
        (("alva", "alva"), "of these signed: alva"),
        (("mara", "marc", "olga"), "of these signed: none"),
    ],
)
def test_fewer_than_the_threshold_or_others_than_the_board_are_not_enough(people: tuple[str, ...], said: str) -> None:
    old = first()
    shown = refused(old, version(old, next_of(old, RENAMED), *people))
    assert said in shown
    assert "[not-signed-by-old]" in shown


def test_one_person_under_two_keys_is_one_person() -> None:
    secret, entry, files = person("alva2", "board")
    second = entry[entry.index("{") : entry.index("}") + 1]
    hers = 'certificate = "certificates/alva.asc" }'
    old = next_of(first(), (hers, f"{hers}, {second}"), version=1, files=files)
    new = next_of(old, RENAMED)
    shown = refused(old, version(old, new, "alva", envelopes=[signed(old, new, secret)]))
    assert "of these signed: alva [not-signed-by-old]" in shown
    assert follow(old, version(old, new, "bruno", envelopes=[signed(old, new, secret)]), NOW) == new


def test_signatures_of_the_old_or_of_the_new_board_alone_are_refused() -> None:
    ada, ada_entry, ada_file = person("ada", "board")
    ben, ben_entry, ben_file = person("ben", "board")
    old = first()
    gone = [without(old, name) for name in ("alva", "bruno", "chen")]
    new = next_of(old, *gone, ("[[services]]", f"{ada_entry}{ben_entry}\n[[services]]"), files={**ada_file, **ben_file})
    newcomers = [signed(old, new, ada), signed(old, new, ben)]
    assert "[not-signed-by-new]" in refused(old, version(old, new, "alva", "bruno", "chen"))
    assert "[not-signed-by-old]" in refused(old, version(old, new, envelopes=newcomers))
    assert follow(old, version(old, new, "alva", "chen", envelopes=newcomers), NOW) == new


def test_a_removed_person_counts_for_the_old_version_and_no_later_one() -> None:
    old = first()
    new = next_of(old, without(old, "alva"))
    shown = refused(old, version(old, new, "alva", "bruno"))
    assert "[not-signed-by-new]" in shown
    assert "[not-signed-by-old]" not in shown
    assert follow(old, version(old, new, "bruno", "chen"), NOW) == new
    assert "[not-signed-by-old]" in refused(new, version(new, next_of(new, RENAMED), "alva", "bruno"))


def test_an_older_the_same_and_a_skipped_version_are_refused() -> None:
    old = next_of(first(), version=5)
    for number, code in ((4, "old-version"), (5, "old-version"), (7, "skipped-version")):
        other = next_of(old, RENAMED, version=number)
        assert f"[{code}]" in refused(old, version(old, other, "alva", "bruno"))


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": "production"},
        {"version": 3},
        {"checksum": "sha256:" + "0" * 64},
        {"previous": "sha256:" + "0" * 64},
    ],
    ids=str,
)
def test_a_statement_about_another_step_counts_for_nobody(changes: dict[str, object]) -> None:
    old = first()
    new = next_of(old, RENAMED)
    envelopes = [signed(old, new, keyring().tsk[name], **changes) for name in ("alva", "bruno")]
    shown = refused(old, version(old, new, envelopes=envelopes))
    assert "about another step" in shown
    assert "of these signed: none" in shown


def test_a_policy_of_another_environment_is_refused() -> None:
    old = first()
    new = next_of(old, ('environment = "development"', 'environment = "production"'))
    assert "[other-environment]" in refused(old, version(old, new, "alva", "bruno"))


def test_other_bytes_than_the_signed_ones_are_refused_a_certificates_too() -> None:
    old = first()
    new = next_of(old, RENAMED)
    good = version(old, new, "alva", "bruno")
    other = good.model_copy(update={"trust_toml": good.trust_toml + "\n# a comment\n"})
    assert "about another step: checksum" in refused(old, other)
    swapped = next_of(old, RENAMED, files={"certificates/olga.asc": old.files["certificates/olga.asc"] + b"\n"})
    other = good.model_copy(update={"files": version(old, swapped).files})
    assert "about another step: checksum" in refused(old, other)


def test_no_threshold_is_below_one_and_it_is_the_boards_unless_named() -> None:
    assert first().thresholds.for_trust() == first().thresholds.approval
    for number in ("0", "-1", "true"):
        with pytest.raises(InvalidRequestError, match="not valid"):
            first(f"\n[thresholds]\ntrust = {number}\n")
    with pytest.raises(InvalidRequestError) as caught:
        first("\n[thresholds]\ntrust = 4\n")
    assert "takes 4 people with role board" in caught.value.diagnostics()
    old = first("\n[thresholds]\ntrust = 3\n")
    new = next_of(old, RENAMED)
    assert "takes 3 of its board" in refused(old, version(old, new, "alva", "bruno"))


def rooted(entry: str, files: dict[str, bytes]) -> TrustPolicy:
    return next_of(first(), ("[[people]]", f"{ROOT_OF_ONE}{entry}\n[[people]]"), version=1, files=files)


class TestRoot:
    """The offline root: people with the role ``root``, who replace a lost board alone."""

    def test_replaces_the_board_alone(self) -> None:
        vera, entry, files = person("vera", "root")
        old = rooted(entry, files)
        new = next_of(old, without(old, "alva"))
        assert follow(old, version(old, new, envelopes=[signed(old, new, vera)]), NOW) == new

    def test_changes_by_its_own_signatures_alone(self) -> None:
        vera, entry, files = person("vera", "root")
        old = rooted(entry, files)
        new = next_of(old, without(old, "vera"), (ROOT_OF_ONE, ""))
        assert "[root-not-signed]" in refused(old, version(old, new, "alva", "bruno", "chen"))
        both = [signed(old, new, vera)]
        assert follow(old, version(old, new, "alva", "bruno", envelopes=both), NOW) == new

    def test_that_is_not_pinned_signs_nothing(self) -> None:
        mallory, entry, files = person("mallory", "root")
        old = first()
        new = next_of(old, ("[[people]]", f"{ROOT_OF_ONE}{entry}\n[[people]]"), files=files)
        assert "[not-signed-by-old]" in refused(old, version(old, new, envelopes=[signed(old, new, mallory)]))
        assert "[root-not-signed]" in refused(old, version(old, new, "alva", "bruno"))

    def test_has_no_other_role_and_a_threshold(self) -> None:
        _, entry, files = person("vera", "root")
        with pytest.raises(InvalidRequestError) as caught:
            first(entry, files)
        assert "must say how many" in caught.value.diagnostics()
        with pytest.raises(InvalidRequestError) as caught:
            first(entry.replace('["root"]', '["root", "board"]') + "\n[thresholds]\nroot = 1\n", files)
        assert "kept offline" in caught.value.diagnostics()


class TestFolder:
    """What a folder leads to."""

    def test_is_obeyed_up_to_the_last_version_that_is_signed(self, tmp_path: Path) -> None:
        one = first()
        two = next_of(one, RENAMED)
        three = next_of(two, without(two, "chen"))
        path = write_folder(tmp_path, one)
        (tmp_path / "versions").mkdir()
        assert load_trust(path) == one
        put(path, one, two, "alva", "bruno")
        assert load_trust(path) == two
        put(path, two, three, "alva", "bruno")
        assert load_trust(path) == three
        write_folder(tmp_path, three)
        assert load_trust(path) == three
        write_folder(tmp_path, two)
        shutil.rmtree(tmp_path / "certificates")
        write_folder(tmp_path, two)
        assert load_trust(path) == three

    def test_that_holds_an_unsigned_version_is_refused(self, tmp_path: Path) -> None:
        one = first()
        path = write_folder(tmp_path, one)
        (tmp_path / "versions").mkdir()
        put(path, one, next_of(one, RENAMED), "alva")
        with pytest.raises(UntrustedError, match="does not follow version 1"):
            load_trust(path)

    def test_whose_trust_toml_is_not_the_signed_version_of_its_number_is_refused(self, tmp_path: Path) -> None:
        one = first()
        two = next_of(one, RENAMED)
        path = write_folder(tmp_path, next_of(one, ('name = "Olga"', 'name = "Mallory"')))
        (tmp_path / "versions").mkdir()
        put(path, one, two, "alva", "bruno")
        with pytest.raises(UntrustedError, match="is not version 2"):
            load_trust(path)


def put(path: Path, old: TrustPolicy, new: TrustPolicy, *people: str) -> None:
    """Write a version beside trust.toml."""
    version_file(path, new.version).write_bytes(write_version(new, version(old, new, *people).signatures))


def test_a_key_that_has_expired_since_keeps_the_chain_good_and_signs_no_later_version() -> None:
    ada, entry, files = person("ada", "board", seconds=3600)
    old = next_of(first(), ("[[services]]", f"{entry}\n[[services]]"), version=1, files=files)
    new = next_of(old, RENAMED)
    late = datetime.now(UTC) + timedelta(hours=2)
    assert follow(old, version(old, new, "alva", envelopes=[signed(old, new, ada)]), late) == new
    after = [signed(old, new, ada, issued_at=late.replace(microsecond=0))]
    with pytest.raises(UntrustedError, match="expired"):
        follow(old, version(old, new, "alva", envelopes=after), late)


def test_a_sigstore_root_is_replaced_and_what_the_old_one_vouched_for_counts_no_more() -> None:
    one, other = KeylessAuthority(), KeylessAuthority()

    def pinned(root: bytes) -> str:
        return f'[sigstore]\ntrusted_root = "root.json"\nsha256 = "{hashlib.sha256(root).hexdigest()}"\n\n'

    roots = [authority.trusted_root() for authority in (one, other)]
    identity = f'sigstore = [{{ identity = "alva@example.org", issuer = "{ISSUER}" }}]\n'
    old = next_of(
        first(),
        ("[[people]]", f"{pinned(roots[0])}[[people]]"),
        ('id = "alva"\n', f'id = "alva"\n{identity}'),
        version=1,
        files={"root.json": roots[0]},
    )
    new = next_of(old, (pinned(roots[0]), pinned(roots[1])), files={"root.json": roots[1]})

    def keylessly(authority: KeylessAuthority, before: TrustPolicy, after: TrustPolicy) -> Envelope:
        said = statement_of(before, after)
        bundle = authority.sign(dsse.pae(IN_TOTO, said), "alva@example.org", ISSUER)
        return dsse.with_signature(said, IN_TOTO, "alva@example.org", bundle)

    assert "[not-signed-by-new]" in refused(old, version(old, new, "bruno", envelopes=[keylessly(one, old, new)]))
    assert follow(old, version(old, new, "bruno", "chen"), NOW) == new
    third = next_of(new, RENAMED)
    assert follow(new, version(new, third, "bruno", envelopes=[keylessly(other, new, third)]), NOW) == third
    shown = refused(new, version(new, third, "bruno", envelopes=[keylessly(one, new, third)]))
    assert "1 of its signatures count for nothing" in shown
