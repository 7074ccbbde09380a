"""The map of the tests names what is there."""

import re

from support.paths import TESTS

README = (TESTS / "README.md").read_text()


def named(heading, suffix):
    part = README.partition(f"{heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^\| `([\w.]+{suffix})` \|", part, re.MULTILINE)


def test_every_support_module_has_one_line_in_order():
    modules = sorted(path.name for path in (TESTS / "support").iterdir() if path.is_file())
    assert named("## Support modules", "") == modules


def test_every_folder_has_one_line():
    folders = {f"{path.name}/" for path in TESTS.iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert set(named("# Tests", "/")) == folders
