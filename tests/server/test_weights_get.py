"""Fetching a checkpoint, against a web server of our own that can stop, lie and change its mind."""

import contextlib
import hashlib
import http.server
import re
import threading
import zipfile

import numpy as np
import pytest

from xmem_protocol import InputError
from xmem_server import weights_store
from xmem_server.__main__ import main
from xmem_server.weights_store import download, fetch_model_choice, fetch_record

CONTENT = b"PK\x03\x04" + np.random.default_rng(3).bytes(300_000)


class Shelf(http.server.BaseHTTPRequestHandler):
    """Serves one file with ranges, as release pages do; ``server.cut`` bytes at most are sent of what was announced."""

    def do_GET(self):
        self.server.asked.append(self.headers.get("Range"))
        content, etag = self.server.content, self.server.etag
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(found[1]) if found and self.headers.get("If-Range") == etag else 0
        if start >= len(content):
            self.send_response(416)
            self.end_headers()
            return
        self.send_response(206 if start else self.server.status)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content[start:][: self.server.cut])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def shelf():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shelf) as server:
        server.content, server.etag, server.cut, server.status, server.asked = CONTENT, '"one"', None, 200, []
        server.url = f"http://127.0.0.1:{server.server_port}/XMem.pth"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fits(path):
    return f"{path.name} fits"


def get(shelf, path, check=fits):
    seen = []
    record = download(shelf.url, path, lambda done, total: seen.append((done, total)), check)
    return record, seen


def leftovers(path):
    return sorted(file.name for file in path.parent.iterdir() if file.name not in (path.name, path.name + ".json"))


def test_when_a_checkpoint_is_fetched_then_it_is_whole_and_its_hash_is_recorded(shelf, tmp_path):
    path = tmp_path / "new" / "XMem.pth"
    record, seen = get(shelf, path)
    assert path.read_bytes() == CONTENT
    assert record.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert fetch_record(path) == record
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert leftovers(path) == []


def test_when_a_download_is_cut_then_the_next_one_goes_on_from_there(shelf, tmp_path):
    path = tmp_path / "XMem.pth"
    shelf.cut = 100_000
    with pytest.raises(InputError, match="again to go on"):
        get(shelf, path)
    assert not path.exists()
    shelf.cut = None
    get(shelf, path)
    assert path.read_bytes() == CONTENT
    assert shelf.asked == [None, "bytes=100000-"]


def test_when_the_file_changed_since_the_cut_then_it_is_fetched_from_the_start(shelf, tmp_path):
    path = tmp_path / "XMem.pth"
    shelf.cut = 100_000
    with pytest.raises(InputError):
        get(shelf, path)
    shelf.cut, shelf.etag, shelf.content = None, '"two"', CONTENT[:200_000]
    get(shelf, path)
    assert path.read_bytes() == CONTENT[:200_000]


def test_when_the_server_cannot_resume_then_it_is_fetched_from_the_start(shelf, tmp_path):
    path = tmp_path / "XMem.pth"
    shelf.etag, shelf.cut = "", 100_000
    with pytest.raises(InputError):
        get(shelf, path)
    shelf.cut = None
    get(shelf, path)
    assert path.read_bytes() == CONTENT
    assert shelf.asked == [None, None]


def test_when_every_byte_came_before_the_cut_then_nothing_is_fetched_twice(shelf, tmp_path):
    path = tmp_path / "XMem.pth"
    (tmp_path / "XMem.part.pth").write_bytes(CONTENT)
    (tmp_path / "XMem.part.etag").write_text('"one"')
    get(shelf, path)
    assert path.read_bytes() == CONTENT


def test_when_a_web_page_comes_instead_then_it_is_named_and_nothing_is_left(shelf, tmp_path):
    shelf.content = b"\n<!DOCTYPE html><title>Please log in</title>"
    with pytest.raises(InputError, match="a web page"):
        get(shelf, tmp_path / "XMem.pth")
    assert list(tmp_path.iterdir()) == []


def test_when_other_bytes_come_then_they_are_refused_and_nothing_is_left(shelf, tmp_path):
    shelf.content = b"hello"
    with pytest.raises(InputError, match="5 bytes that are no checkpoint"):
        get(shelf, tmp_path / "XMem.pth")
    assert list(tmp_path.iterdir()) == []


def test_when_the_file_does_not_fit_the_network_then_it_is_not_kept(shelf, tmp_path):
    def does_not_fit(path):
        raise InputError("The checkpoint lacks key_encoder.conv1.weight.")

    with pytest.raises(InputError, match="lacks key_encoder"):
        get(shelf, tmp_path / "XMem.pth", does_not_fit)
    assert list(tmp_path.iterdir()) == []


def test_when_the_address_is_wrong_or_nobody_answers_then_one_line_says_so(shelf, tmp_path):
    shelf.status = 404
    with pytest.raises(InputError, match="answers 404"):
        get(shelf, tmp_path / "XMem.pth")
    with pytest.raises(InputError, match="cannot be reached"):
        download("http://127.0.0.1:1/XMem.pth", tmp_path / "XMem.pth", lambda done, total: None, fits)


def test_when_the_folder_cannot_be_made_then_one_line_says_so(shelf, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be written"):
        get(shelf, tmp_path / "file" / "XMem.pth")


def test_when_a_checkpoint_changed_since_its_first_use_then_it_is_refused(shelf, tmp_path, monkeypatch):
    monkeypatch.setenv("XMEM_WEIGHTS", str(tmp_path))
    path = tmp_path / "XMem.pth"
    with pytest.raises(InputError, match="xmem weights get XMem"):
        fetch_model_choice("XMem")
    get(shelf, path)
    assert fetch_model_choice("XMem") == str(path.resolve())
    assert fetch_model_choice("compact") == "compact"
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(InputError, match="not the file recorded"):
        fetch_model_choice(str(path))


def test_when_a_model_is_not_there_then_the_choices_are_named():
    with pytest.raises(InputError, match="compact, XMem, XMem-s012"):
        fetch_model_choice("/nowhere/XMen.pth")


def test_when_weights_are_got_and_are_a_wrong_file_then_the_command_says_so_and_returns_2(
    shelf, tmp_path, monkeypatch, capsys
):
    wrong = tmp_path / "wrong.zip"
    with zipfile.ZipFile(wrong, "w") as archive:
        archive.writestr("holiday.txt", "no tensors here")
    shelf.content = wrong.read_bytes()
    monkeypatch.setenv("XMEM_WEIGHTS", str(tmp_path / "weights"))
    assert main(["weights", "get", "XMem", "--url", shelf.url]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("xmem: ")
    assert list((tmp_path / "weights").iterdir()) == []


def test_when_weights_are_listed_then_each_says_whether_it_is_here(shelf, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XMEM_WEIGHTS", str(tmp_path))
    get(shelf, tmp_path / "XMem.pth")
    assert main(["weights", "list"]) == 0
    said = capsys.readouterr().out
    assert f"here: {tmp_path / 'XMem.pth'}" in said
    assert "xmem weights get XMem-s012" in said


def test_when_the_checkpoint_is_here_already_then_get_fetches_nothing(shelf, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XMEM_WEIGHTS", str(tmp_path))
    get(shelf, tmp_path / "XMem.pth")
    shelf.asked.clear()
    assert main(["weights", "get", "XMem", "--url", shelf.url]) == 0
    assert shelf.asked == []
    assert set(weights_store.OFFICIAL) == {"XMem", "XMem-s012"}


def test_when_a_file_is_checked_then_the_one_line_names_what_is_wrong(tmp_path, capsys):
    path = tmp_path / "notes.pth"
    path.write_bytes(b"not a checkpoint")
    assert main(["weights", "check", str(path)]) == 2
    assert capsys.readouterr().err.startswith("xmem: ")
    assert main(["weights", "check", str(tmp_path / "none.pth")]) == 2
