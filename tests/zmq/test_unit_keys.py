"""The secret of a job: where it may lie, and what becomes of it."""

from __future__ import annotations

import os

import pytest

from collfs.errors import OptionError
from collfs_zmq.keys import FILE_VARIABLE, LEAST, VARIABLE, Keys, find_secret, new_secret

SECRET = "5" * 64


def from_file(path):
    return find_secret({FILE_VARIABLE: str(path)})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


def test_a_private_file_is_read(file):
    assert from_file(file) == SECRET
    file.chmod(0o400)
    assert from_file(file) == SECRET


def test_a_link_to_a_private_file_is_one(file):
    link = file.with_name("link")
    link.symlink_to(file)
    assert from_file(link) == SECRET


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o610, 0o602])
def test_a_file_that_others_can_use_is_refused(file, mode):
    file.chmod(mode)
    with pytest.raises(OptionError, match="chmod 600") as caught:
        from_file(file)
    assert SECRET not in str(caught.value)
    link = file.with_name("link")
    link.symlink_to(file)
    with pytest.raises(OptionError, match="chmod 600"):
        from_file(link)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_a_file_of_another_user_is_refused(file):
    os.chown(file, 65534, 65534)
    with pytest.raises(OptionError, match="a file of yours"):
        from_file(file)


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(OptionError, match="has to be a file"):
        from_file(tmp_path / "fifo")


def test_a_directory_is_refused(tmp_path):
    tmp_path.chmod(0o700)
    with pytest.raises(OptionError, match="has to be a file"):
        from_file(tmp_path)


def test_a_file_that_is_missing_is_an_error_and_not_no_secret(tmp_path):
    with pytest.raises(OptionError, match="collfs secret > FILE"):
        from_file(tmp_path / "none")


@pytest.mark.parametrize("text", ["", "\n", "short", "5" * (LEAST - 1) + "\n"])
def test_a_file_with_a_short_secret_is_refused(file, text):
    file.write_text(text)
    with pytest.raises(OptionError, match="too few"):
        from_file(file)


def test_a_short_variable_is_refused_and_not_shown():
    with pytest.raises(OptionError, match="too few") as caught:
        find_secret({VARIABLE: "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_the_file_wins_over_the_variable_and_nothing_is_nothing(file):
    assert find_secret({VARIABLE: "6" * 64, FILE_VARIABLE: str(file)}) == SECRET
    assert find_secret({VARIABLE: f" {SECRET}\n"}) == SECRET
    assert find_secret({}) == ""


def test_the_same_secret_gives_the_same_keys_and_another_one_others():
    one, same, other = Keys(SECRET), Keys(SECRET), Keys(SECRET[:-1] + "6")
    of = [(keys.server, keys.server_secret, keys.client, keys.client_secret) for keys in (one, same, other)]
    assert of[0] == of[1]
    assert not set(of[0]) & set(of[2])
    assert len(set(of[0])) == 4, "the four of a job differ, too"
    assert all(len(key) == 40 for key in of[0])


def test_new_secrets_are_long_enough_and_differ():
    one, two = new_secret(), new_secret()
    assert one != two
    assert find_secret({VARIABLE: one}) == one
    assert len(one) >= LEAST


def test_without_curve_it_is_said_what_is_missing(monkeypatch):
    monkeypatch.setattr("collfs_zmq.libzmq.has", lambda capability: capability != "curve")
    with pytest.raises(OptionError, match="CURVE"):
        Keys(new_secret())
