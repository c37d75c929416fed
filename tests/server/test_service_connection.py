import json
import os
import stat

import pytest

from xmem_client import Connection, fetch_connection
from xmem_protocol import InputError
from xmem_server.connection import Endpoints, keep_keys, remove_connection, save_connection

ENDPOINTS = Endpoints("tcp://127.0.0.1:5001", "tcp://127.0.0.1:5002")


def _mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def _open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def test_when_keys_are_made_then_only_the_owner_may_read_them_and_they_are_kept(tmp_path):
    keys = keep_keys(tmp_path / "keys.json")
    assert _mode(tmp_path / "keys.json") == 0o600
    assert keep_keys(tmp_path / "keys.json") == keys
    assert len({keys.server_public, keys.server_secret, keys.client_public, keys.client_secret}) == 4


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_when_others_may_read_secrets_then_both_sides_refuse_them(tmp_path, mode):
    keys = keep_keys(tmp_path / "keys.json")
    save_connection(tmp_path / "connection.json", keys, ENDPOINTS)
    for name in ("keys.json", "connection.json"):
        (tmp_path / name).chmod(mode)
    with pytest.raises(InputError, match="chmod 600"):
        keep_keys(tmp_path / "keys.json")
    with pytest.raises(InputError, match="chmod 600"):
        fetch_connection(tmp_path / "connection.json")


def test_when_a_connection_is_saved_then_a_client_reads_it_and_no_server_secret_is_in_it(tmp_path):
    path = tmp_path / "connection.json"
    keys = keep_keys(tmp_path / "keys.json")
    save_connection(path, keys, ENDPOINTS, os.getpid())
    assert _mode(path) == 0o600
    assert fetch_connection(path) == Connection(
        ENDPOINTS.control, ENDPOINTS.bulk, keys.server_public, keys.client_public, keys.client_secret
    )
    assert keys.server_secret not in path.read_text()
    assert json.loads(path.read_text())["pid"] == os.getpid()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["connection.json", "keys.json"]


def test_when_a_link_stands_where_the_connection_goes_then_its_target_is_not_written(tmp_path):
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "connection.json").symlink_to(target)
    save_connection(tmp_path / "connection.json", keep_keys(tmp_path / "keys.json"), ENDPOINTS)
    assert target.read_text() == "precious"


def test_when_the_connection_is_removed_then_anothers_stays(tmp_path):
    path = tmp_path / "connection.json"
    save_connection(path, keep_keys(tmp_path / "keys.json"), ENDPOINTS, os.getpid())
    own = path.read_text()
    path.write_text(own.replace(str(os.getpid()), "1"))
    remove_connection(path)
    assert path.exists()
    path.write_text(own)
    remove_connection(path)
    assert not path.exists()
    remove_connection(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", "{}", '{"control": 7}', "\xff", "[" * 15_000, "x" * 20_000])
def test_when_a_file_is_something_else_then_one_line_says_so(tmp_path, content):
    for name in ("keys.json", "connection.json"):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    with pytest.raises(InputError, match=r"keys\.json is not a key file"):
        keep_keys(tmp_path / "keys.json")
    with pytest.raises(InputError, match=r"connection\.json is not a connection file"):
        fetch_connection(tmp_path / "connection.json")


@pytest.mark.parametrize("changes", [{"control": 5}, {"server_key": "short"}, {"secret_key": None}])
def test_when_a_field_is_wrong_then_the_connection_is_refused(tmp_path, changes):
    path = tmp_path / "connection.json"
    save_connection(path, keep_keys(tmp_path / "keys.json"), ENDPOINTS, os.getpid())
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(InputError, match="Start the server again"):
        fetch_connection(path)


def test_when_there_is_no_connection_file_then_the_error_asks_whether_the_server_runs(tmp_path):
    with pytest.raises(InputError, match="Is it running"):
        fetch_connection(tmp_path / "connection.json")


def test_when_the_folder_cannot_be_written_then_one_line_says_so(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        save_connection(tmp_path / "missing" / "connection.json", keep_keys(tmp_path / "keys.json"), ENDPOINTS)
