"""The Lua scripts as texts: how they are found, and that what they read is called as it is stored."""

import re
from pathlib import Path

import pytest

import tether.broker
from tether.broker.scripts import BROKER_SCRIPTS, Scripts, rows

READ = re.compile(r"((?:\w+,\s*)*\w+) =\s*read\(name, ((?:'\w+',?\s*)+)\)")
READ_WITH_MORE = re.compile(
    r"local values = redis\.pcall\('HMGET', name,\s*((?:'\w+',\s*)+)unpack\(ARGV, [^)]*\)\)"
    r"\s*local ((?:\w+,\s*)*\w+) = unpack\(values\)"
)
POOL_FILES = sorted(Path(tether.broker.__file__).with_name("lua").joinpath("pool").rglob("*.lua"))


def test_every_file_is_a_script_but_what_scripts_share(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("b.lua", "a.lua", "prelude.lua", "more/c.lua", "more/prelude.lua", "more/notes.txt"):
        (tmp_path / name).write_text(f"-- {name}\n")
    scripts = Scripts(tmp_path)
    assert scripts.names() == ("a", "b", "more/c")
    assert scripts.source("a") == "-- prelude.lua\n-- a.lua\n"
    assert scripts.source("more/c") == "-- more/prelude.lua\n-- more/c.lua\n"


def test_what_scripts_share_may_be_a_folder_of_files_in_order(tmp_path):
    (tmp_path / "prelude").mkdir()
    (tmp_path / "prelude/2_b.lua").write_text("-- Twice.\nlocal function b() return 2 * a end\n")
    (tmp_path / "prelude/1_a.lua").write_text("local a = 1\n")
    (tmp_path / "c.lua").write_text("return b()\n")
    scripts = Scripts(tmp_path)
    assert scripts.names() == ("c",)
    assert scripts.source("c") == "local a = 1\n-- Twice.\nlocal function b() return 2 * a end\nreturn b()\n"


def test_a_long_script_goes_on_in_a_folder_with_its_name(tmp_path):
    (tmp_path / "prelude").mkdir()
    (tmp_path / "prelude/1_a.lua").write_text("local a = 1\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b.lua").write_text("local b = 2\n")
    (tmp_path / "b/2_last.lua").write_text("return c\n")
    (tmp_path / "b/1_more.lua").write_text("local c = a + b\n")
    scripts = Scripts(tmp_path)
    assert scripts.names() == ("b",)
    assert scripts.source("b") == "local a = 1\nlocal b = 2\nlocal c = a + b\nreturn c\n"


def test_a_folder_needs_no_shared_part(tmp_path):
    (tmp_path / "a.lua").write_text("return 1\n")
    assert Scripts(tmp_path).source("a") == "return 1\n"


def test_a_script_is_known_by_its_text(tmp_path):
    (tmp_path / "a.lua").write_text("return 1\n")
    by_hash = Scripts(tmp_path).by_hash("a", "key", ["x", 1])
    assert by_hash == ("EVALSHA", "48df9b519ca145c867b895f740b37bd891e887af", 1, "key", "x", 1)
    assert Scripts(tmp_path).by_text("a", "key", ["x", 1]) == ("EVAL", "return 1\n", 1, "key", "x", 1)


def test_the_broker_has_its_scripts():
    assert {"enqueue", "take", "ack", "pool/place", "pool/draw"} <= set(BROKER_SCRIPTS.names())


def reads(text):
    """Variables, and the fields of a job that they get, wherever a script reads several at once."""
    pairs = [(match[1], match[2]) for match in READ.finditer(text)]
    pairs += [(match[2], match[1]) for match in READ_WITH_MORE.finditer(text)]
    return [(re.findall(r"\w+", variables), re.findall(r"\w+", fields)) for variables, fields in pairs]


@pytest.mark.parametrize("file", POOL_FILES, ids=lambda file: file.stem)
def test_what_is_read_of_a_job_has_the_name_of_its_field(file):
    text = file.read_text()
    known = reads(text)
    by_caller = len(re.findall(r"'HMGET', name, (?:unpack\(ARGV|\.\.\.)", text))
    assert len(known) + by_caller == len(re.findall(r"'HMGET', name|\bread\(name, '", text))
    for variables, fields in known:
        assert [name.removeprefix("job_") for name in variables] == fields


def test_a_variable_with_another_name_than_its_field_is_seen():
    sound = next(file for file in POOL_FILES if file.stem == "2_entries").read_text()
    assert any(
        variables != fields
        for variables, fields in reads(sound.replace("run, offset, n,", "offset, run, n,"))
    )


def test_rows_are_whole():
    assert list(rows([1, 2, 3, 4], 2)) == [(1, 2), (3, 4)]
    with pytest.raises(ValueError, match="shorter"):
        list(rows([1, 2, 3], 2))


def test_a_script_has_only_the_shared_definitions_that_it_uses(tmp_path):
    (tmp_path / "prelude.lua").write_text(
        "-- shared\nlocal prefix = KEYS[1]\n\n"
        "local LIMIT = 3\n\n"
        "-- not used, but for the word in a comment: twice\n"
        "local function other()\n  return LIMIT\nend\n\n"
        "local BASE = 1\n"
        "-- adds\n"
        "local function once(number)\n  return number + BASE\nend\n\n"
        "local function twice(number)\n  return once(once(number))\nend\n"
    )
    (tmp_path / "a.lua").write_text("return twice(1) -- other\n")
    assert Scripts(tmp_path).source("a") == (
        "local BASE = 1\n"
        "-- adds\n"
        "local function once(number)\n  return number + BASE\nend\n\n"
        "local function twice(number)\n  return once(once(number))\nend\n"
        "return twice(1) -- other\n"
    )
