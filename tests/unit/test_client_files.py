"""What a person names on the command line may be anything; secrets must be secret; nothing is overwritten."""

import os
from pathlib import Path

import pytest

from constitution.errors import InvalidRequestError, UntrustedError
from constitution_client.files import MAX_FILE, FileRefusedError, read_bytes, write_new


class TestReadBytes:
    def test_returns_the_exact_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b"\x00\r\n\xff")
        assert read_bytes(tmp_path / "f", what="document") == b"\x00\r\n\xff"

    def test_takes_a_file_of_exactly_the_limit_and_refuses_one_byte_more(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b"x" * MAX_FILE)
        assert len(read_bytes(tmp_path / "f", what="document")) == MAX_FILE
        (tmp_path / "f").write_bytes(b"x" * (MAX_FILE + 1))
        with pytest.raises(FileRefusedError, match="larger than"):
            read_bytes(tmp_path / "f", what="document")

    def test_refuses_a_fifo_without_waiting_for_a_writer(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(FileRefusedError, match="no regular file"):
            read_bytes(tmp_path / "fifo", what="signature")

    @pytest.mark.parametrize("name", ["missing", ".", "/dev/zero", "a\0b", "x" * 300])
    def test_refuses_what_is_no_readable_file(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(FileRefusedError, match="document"):
            read_bytes(tmp_path / name, what="document")

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
    def test_refuses_a_secret_that_others_may_read(self, tmp_path: Path, mode: int) -> None:
        (tmp_path / "key").write_bytes(b"secret")
        (tmp_path / "key").chmod(mode)
        with pytest.raises(UntrustedError, match="can be read by others") as refused:
            read_bytes(tmp_path / "key", what="secret key", secret=True)
        assert "chmod 600" in refused.value.hint

    def test_reads_a_secret_of_mode_0600(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_bytes(b"secret")
        (tmp_path / "key").chmod(0o600)
        assert read_bytes(tmp_path / "key", what="secret key", secret=True) == b"secret"


class TestWriteNew:
    def test_writes_bytes_with_the_mode_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        write_new(tmp_path / "f", b"abc", mode=0o600)
        assert (tmp_path / "f").read_bytes() == b"abc"
        assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600
        assert [entry.name for entry in tmp_path.iterdir()] == ["f"]

    def test_never_overwrites(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b"old")
        with pytest.raises(InvalidRequestError, match="exists and is not overwritten"):
            write_new(tmp_path / "f", b"new")
        assert (tmp_path / "f").read_bytes() == b"old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["f"]

    def test_does_not_follow_a_dangling_link_out_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "f").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(InvalidRequestError):
            write_new(tmp_path / "f", b"new")
        assert not (tmp_path / "elsewhere").exists()

    def test_says_when_the_folder_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileRefusedError, match="No such file"):
            write_new(tmp_path / "no" / "f", b"new")
