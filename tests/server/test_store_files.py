import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.server.house import NO_RESERVE, sha256_of, small_disk, upload
from xmem_protocol import CHUNK_BYTES, STORAGE_FULL, InputError, ServerError
from xmem_server.store import StorageLimits, Store


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "state", NO_RESERVE)
    yield store
    store.close()


def long_content(chunks=3):
    return os.urandom(CHUNK_BYTES) * (chunks - 1) + b"the end"


def pieces(content):
    return [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]


def files_below(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_when_all_chunks_come_then_the_file_is_stored(store):
    content = long_content()
    sha256 = sha256_of(content)
    assert store.begin_upload(sha256, len(content)) == (0, 1, 2)
    assert store.write_chunk(sha256, 2, pieces(content)[2]) == (0, 1)
    assert not store.has_file(sha256)
    assert store.write_chunk(sha256, 0, pieces(content)[0]) == (1,)
    assert store.write_chunk(sha256, 0, pieces(content)[0]) == (1,)
    assert store.write_chunk(sha256, 1, pieces(content)[1]) == ()
    assert store.file_path(sha256).read_bytes() == content
    assert store.file_size(sha256) == len(content)
    assert store.read_chunk(sha256, 2) == (b"the end", len(content))
    assert files_below(store.folder / "uploads") == []


def test_when_a_stored_file_is_sent_again_then_nothing_is_wanted(store):
    sha256 = upload(store, b"once")
    assert store.begin_upload(sha256, 4) == ()
    assert store.write_chunk(sha256, 0, b"once") == ()


def test_when_the_server_restarts_within_an_upload_then_it_goes_on(tmp_path):
    content = long_content()
    sha256 = sha256_of(content)
    first = Store(tmp_path / "state", NO_RESERVE)
    first.begin_upload(sha256, len(content))
    first.write_chunk(sha256, 1, pieces(content)[1])
    first.close()
    second = Store(tmp_path / "state", NO_RESERVE)
    assert second.begin_upload(sha256, len(content)) == (0, 2)
    second.write_chunk(sha256, 0, pieces(content)[0])
    assert second.write_chunk(sha256, 2, pieces(content)[2]) == ()
    assert second.file_path(sha256).read_bytes() == content
    second.close()


def test_when_the_server_stops_before_the_check_then_the_next_begin_stores_the_file(store, monkeypatch):
    sha256 = sha256_of(b"content")
    store.begin_upload(sha256, 7)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_finish_upload", lambda _: None)
        store.write_chunk(sha256, 0, b"content")
    assert not store.has_file(sha256)
    assert store.begin_upload(sha256, 7) == ()
    assert store.file_path(sha256).read_bytes() == b"content"


def test_when_the_bytes_are_another_file_then_the_upload_is_dropped(store):
    sha256 = sha256_of(b"wanted")
    store.begin_upload(sha256, 6)
    with pytest.raises(InputError, match="another file"):
        store.write_chunk(sha256, 0, b"gotten")
    assert not store.has_file(sha256)
    assert files_below(store.folder / "uploads") == []
    assert upload(store, b"wanted") == sha256


def test_when_another_size_is_announced_then_the_upload_begins_again(store):
    sha256 = sha256_of(b"wanted")
    assert len(store.begin_upload(sha256, 2 * CHUNK_BYTES)) == 2
    assert upload(store, b"wanted") == sha256


@pytest.mark.parametrize("chunk", [-1, 1])
def test_when_a_chunk_is_outside_the_file_then_it_is_refused(store, chunk):
    store.begin_upload("a" * 64, 10)
    with pytest.raises(InputError, match="outside the file"):
        store.write_chunk("a" * 64, chunk, b"0123456789")


def test_when_a_chunk_has_the_wrong_size_then_it_is_refused(store):
    store.begin_upload("a" * 64, 10)
    with pytest.raises(InputError, match="10 bytes; 3 came"):
        store.write_chunk("a" * 64, 0, b"012")


def test_when_no_upload_was_begun_then_a_chunk_is_refused(store):
    with pytest.raises(ServerError, match="Begin it"):
        store.write_chunk("a" * 64, 0, b"0")


@pytest.mark.parametrize("sha256", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_when_a_name_is_no_sha256_then_it_is_refused(store, sha256):
    for ask in (store.has_file, store.file_path, lambda name: store.begin_upload(name, 1)):
        with pytest.raises(InputError, match="SHA-256"):
            ask(sha256)


@pytest.mark.parametrize("nbytes", [0, -1, 5 * 1024**3])
def test_when_a_size_cannot_be_then_it_is_refused(store, nbytes):
    with pytest.raises(InputError, match="cannot be stored"):
        store.begin_upload("a" * 64, nbytes)


def test_when_a_file_is_unknown_then_its_chunks_are_not_found(store):
    with pytest.raises(ServerError, match="Upload it first"):
        store.read_chunk("a" * 64, 0)
    with pytest.raises(ServerError, match="Upload it first"):
        store.file_size("a" * 64)


def test_when_a_quota_is_set_then_it_holds_and_nothing_is_allocated(tmp_path):
    store = Store(tmp_path / "state", StorageLimits(quota_bytes=100, reserve_bytes=0))
    upload(store, bytes(60))
    with pytest.raises(ServerError, match="may hold 100 bytes and holds 60") as caught:
        store.begin_upload("a" * 64, 41)
    assert caught.value.code == STORAGE_FULL
    assert files_below(store.folder / "uploads") == []
    store.begin_upload("a" * 64, 40)
    with pytest.raises(ServerError, match="holds 100"):
        store.begin_upload("b" * 64, 1)
    store.close()


def test_when_the_disk_has_less_than_the_reserve_then_uploads_are_refused(tmp_path):
    store = Store(tmp_path / "state", StorageLimits(reserve_bytes=10**18))
    said = rf"^Only \d+ MiB are free on the disk of {store.folder} and {10**18 // 2**20} MiB are kept free; free some space"
    with pytest.raises(ServerError, match=said) as caught:
        store.begin_upload("a" * 64, 1)
    assert caught.value.code == STORAGE_FULL
    assert "is full" not in str(caught.value)
    store.close()


def test_when_writing_finds_no_space_then_nothing_half_written_is_seen(store, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ServerError) as caught:
        store.begin_upload("a" * 64, 10)
    assert caught.value.code == STORAGE_FULL
    assert files_below(store.folder / "uploads") == []
    monkeypatch.undo()
    source = store.folder.parent / "plate.exr"
    source.write_bytes(b"plate")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ServerError) as caught:
        store.adopt_file(source, sha256_of(b"plate"), 5, (store.folder.parent,))
    assert caught.value.code == STORAGE_FULL
    assert not store.has_file(sha256_of(b"plate"))
    assert files_below(store.folder / "uploads") == []


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as folder:
        yield folder


def test_when_a_real_disk_is_full_then_uploads_and_adoptions_say_so_and_leave_nothing(disk, tmp_path):
    store = Store(disk / "state", NO_RESERVE)
    kept = upload(store, b"kept")
    with pytest.raises(ServerError) as caught:
        store.begin_upload("a" * 64, 40 * 1024**2)
    assert caught.value.code == STORAGE_FULL
    store.begin_upload("b" * 64, 8 * 1024**2)
    (disk / "other program").write_bytes(bytes(8 * 1024**2))
    source = tmp_path / "plate.exr"
    source.write_bytes(bytes(7 * 1024**2))
    with pytest.raises(ServerError) as caught:
        store.adopt_file(source, sha256_of(source.read_bytes()), 7 * 1024**2, (tmp_path,))
    assert caught.value.code == STORAGE_FULL
    assert store.write_chunk("b" * 64, 0, bytes(CHUNK_BYTES)) == (1,)  # its space was taken when it began
    assert store.file_path(kept).read_bytes() == b"kept"
    assert [name for name in files_below(store.folder / "uploads") if name.endswith(".tmp")] == []
    store.close()


def test_when_the_store_opens_then_half_copied_files_are_swept(tmp_path):
    uploads = tmp_path / "state" / "uploads"
    uploads.mkdir(parents=True)
    for name in ("x.1.tmp", "y.part", "z.chunks"):
        (uploads / name).write_bytes(b"half")
    Store(tmp_path / "state", NO_RESERVE).close()
    assert files_below(uploads) == []


def test_when_a_file_below_a_root_is_adopted_then_a_copy_is_kept(store, tmp_path):
    plate = tmp_path / "cache" / "plate.1001.exr"
    plate.parent.mkdir()
    plate.write_bytes(b"pixels")
    store.adopt_file(plate, sha256_of(b"pixels"), 6, (tmp_path / "cache",))
    plate.write_bytes(b"others")
    assert store.file_path(sha256_of(b"pixels")).read_bytes() == b"pixels"


def test_when_an_adopted_file_is_not_the_announced_one_then_it_is_refused(store, tmp_path):
    plate = tmp_path / "plate.exr"
    plate.write_bytes(b"pixels")
    with pytest.raises(InputError, match="6 bytes, 7 were announced"):
        store.adopt_file(plate, sha256_of(b"pixels"), 7, (tmp_path,))
    with pytest.raises(InputError, match="not the file that was announced"):
        store.adopt_file(plate, sha256_of(b"others"), 6, (tmp_path,))
    assert files_below(store.folder / "uploads") == []


def test_when_a_path_leads_outside_the_roots_then_it_is_refused(store, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    root = tmp_path / "cache"
    root.mkdir()
    (root / "link.exr").symlink_to(secret)
    (root / "folder").symlink_to(tmp_path)
    os.mkfifo(root / "pipe.exr")
    refused = {
        root / "link.exr": "not below",
        root / ".." / "secret": "not below",
        root / "folder" / "secret": "not below",
        secret: "not below",
        root: "cannot be read|not an ordinary",
        root / "pipe.exr": "not an ordinary file",
        root / "none.exr": "cannot be read",
    }
    for path, reason in refused.items():
        with pytest.raises(InputError, match=reason):
            store.adopt_file(path, sha256_of(b"secret"), 6, (root,))
    with pytest.raises(InputError, match="absolute"):
        store.adopt_file(type(root)("relative.exr"), sha256_of(b"secret"), 6, (root,))
    with pytest.raises(InputError, match="not below"):
        store.adopt_file(secret, sha256_of(b"secret"), 6, ())


def test_when_many_threads_upload_the_same_file_then_it_is_stored_once_and_whole(store):
    content = long_content(4)
    with ThreadPoolExecutor(6) as pool:
        names = list(pool.map(lambda _: upload(store, content), range(6)))
    assert names == [sha256_of(content)] * 6
    assert store.file_path(sha256_of(content)).read_bytes() == content
