"""What folders are called reaches configurations as they are called."""

import ctypes
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitution.environment import Environment
from deploy.embedded import development
from deploy.embedded.valkey import no_pattern

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=12)


@given(name=NAMES)
def test_a_name_in_toml_is_read_as_it_was(name: str) -> None:
    assert tomllib.loads(f"gate = {development.toml_string(name)}") == {"gate": name}


@pytest.mark.parametrize("name", ["Zoë", "a, b", "O'Brien", "${HOME}", "50%41 #", 'a "name"', "b\\s", "\x7f", "{x}"])
def test_the_environment_names_the_gate_of_a_checkout_in_any_folder(tmp_path: Path, name: str) -> None:
    gate = Path("/srv") / name / "tests"
    targets = {"t": ("orchestrator", "http://127.0.0.1:1")}
    development.write_environment(tmp_path / "environment.toml", targets, gate=gate)
    assert Environment.parse((tmp_path / "environment.toml").read_text(encoding="utf-8")).gate == str(gate)


@given(name=st.text(st.sampled_from("*?[]a\\!-"), min_size=1, max_size=6))
def test_a_path_for_valkey_means_the_one_file_of_that_name(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("names")
    for made in {name, "a", "aa", "\\"}:
        (folder / made).touch()
    path = str(folder / name)
    given = no_pattern(path)
    assert (found_by_glob(given) if set(given) & set("*?[") else [given]) == [path]


def found_by_glob(pattern: str) -> list[str]:
    """What glob(3) finds, the function that Valkey asks about names with one of ``*?[``."""

    class Found(ctypes.Structure):
        _fields_ = (("count", ctypes.c_size_t), ("paths", ctypes.POINTER(ctypes.c_char_p)), ("_", ctypes.c_byte * 56))

    found, library = Found(), ctypes.CDLL(None)
    library.glob(os.fsencode(pattern), 0, None, ctypes.byref(found))
    paths = [os.fsdecode(found.paths[number] or b"") for number in range(found.count)]
    library.globfree(ctypes.byref(found))
    return paths
