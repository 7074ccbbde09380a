"""Where a prompt comes from."""

import io

import pytest

from tether.errors import InvalidRequest
from tether.requests.fields import MAX_PROMPT_BYTES
from tether_cli.options.prompts import read_prompt


def read(argument=None, file=None, data=None):
    """Where ``data`` is None, somebody types."""

    def standard_input():
        assert data is not None, "nothing waits for a terminal"
        return io.BytesIO(data)

    return read_prompt(argument, file, standard_input=standard_input, is_terminal=data is None)


def test_an_argument_is_the_prompt():
    assert read("hello\n", data=b"not this") == "hello\n"


@pytest.mark.parametrize(("argument", "file"), [(None, None), ("-", None), (None, "-")])
def test_standard_input_is_the_prompt_to_the_byte(argument, file):
    assert read(argument, file, data="süß\r\n".encode()) == "süß\r\n"


def test_a_file_is_the_prompt_to_the_byte(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_bytes(b"a\r\nb\n")
    assert read(file=str(path), data=b"not this") == "a\r\nb\n"


def refusal(*arguments, **options):
    with pytest.raises(InvalidRequest) as caught:
        read(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_two_prompts_are_refused():
    assert "two prompts" in refusal("a", "b")


def test_no_prompt_at_a_terminal_is_refused_at_once():
    assert "there is no prompt: give it" in refusal()


@pytest.mark.parametrize(("argument", "data"), [("", None), (None, b""), ("-", b"")])
def test_an_empty_prompt_is_refused(argument, data):
    assert "is empty" in refusal(argument, data=data)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty").touch()
    assert f"the file {tmp_path / 'empty'} is empty" in refusal(file=str(tmp_path / "empty"))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert "cannot be read: No such file" in refusal(file=str(tmp_path / "none"))


def test_a_folder_is_refused(tmp_path):
    assert "cannot be read: Is a directory" in refusal(file=str(tmp_path))


def test_a_name_with_nul_is_refused():
    assert "cannot be read" in refusal(file="a\0b")


def test_what_is_not_utf_8_is_refused_with_its_line(tmp_path):
    path = tmp_path / "latin"
    path.write_bytes(b"one\ntwo\xff")
    assert "is not UTF-8 text (line 2)" in refusal(file=str(path))
    assert "standard input is not UTF-8 text (line 1)" in refusal(data=b"\xc3")


def test_an_argument_that_is_not_utf_8_is_refused():
    assert "not UTF-8" in refusal("\udcff")


def test_what_is_too_large_is_refused_and_not_read_to_its_end():
    class Endless(io.RawIOBase):
        def read(self, size=-1):
            assert size > 0
            return b"a" * size

    with pytest.raises(InvalidRequest, match=f"exceeds the maximum of {MAX_PROMPT_BYTES} bytes"):
        read_prompt(None, None, standard_input=Endless, is_terminal=False)


def test_the_largest_prompt_is_taken():
    assert len(read(data=b"a" * MAX_PROMPT_BYTES)) == MAX_PROMPT_BYTES
