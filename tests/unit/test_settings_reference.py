"""docs/settings.md says of every setting what it is, and nothing of settings that nobody reads."""

import re

from deploy.embedded.stack_directory import CHECKOUT
from deploy.settings_reference import PROCESSES, reference

PAGE = CHECKOUT / "docs" / "settings.md"


def test_the_page_is_what_the_settings_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "python -m deploy.settings_reference >docs/settings.md"


def test_every_setting_is_told_in_words() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*) \|$", reference(), flags=re.MULTILINE)
    assert {name for name, _ in rows} == {name.upper() for kind in PROCESSES.values() for name in kind.model_fields}
    for name, said in rows:
        plain = re.sub(r"\*\*secret\*\*; |one of [^;]*; |`[^`]*`", "", said)
        assert len(re.findall(r"[a-z]+", plain)) >= 2, (name, said)
