"""What the server keeps: undo and redo, lists, deletion with its files, one-file export, and the commands for them."""

import json
import os
import time
import zipfile

import pytest

from tests.server.house import SHOT, House, alpha, mattes, picture, sha256_of, upload
from tests.server.served import client_of, make_ready, put_key, serving, whole
from xmem_client import fetch_connection
from xmem_protocol import (
    DeleteSession,
    FindMissing,
    InputError,
    Key,
    ListSessions,
    PutKey,
    RedoKeys,
    RemoveKey,
    ServerError,
    SessionDeleted,
    StartPropagation,
    UndoKeys,
)
from xmem_server.__main__ import main
from xmem_server.clients import ClientKey
from xmem_server.session_bundle import fetch_bundle


def keyed(state):
    return [(key.frame, key.object_id) for key in state.keys]


# ------------------------------------------------------------------------------------------------------ undo and redo


def test_when_changes_are_undone_and_redone_then_keys_go_back_and_forth_one_change_at_a_time(house):
    house.put_key(1004, 2)
    house.put_key(1004, 2, value=90)
    house.ask(RemoveKey("roto", 1004, 0))
    states = [house.open()]
    for expected in ([(1001, 1), (1004, 2)], [(1001, 1), (1004, 2)], [(1001, 1)], []):
        states.append(house.ask(UndoKeys("roto")))
        assert keyed(states[-1]) == expected
    assert states[1].keys != states[2].keys  # the second matte, then the first
    with pytest.raises(InputError, match="No change of keys is left"):
        house.ask(UndoKeys("roto"))
    for back in (3, 2, 1, 0):
        assert house.ask(RedoKeys("roto")).keys == states[back].keys
    with pytest.raises(InputError, match="done again"):
        house.ask(RedoKeys("roto"))


def test_when_a_key_is_put_after_an_undo_then_what_was_undone_cannot_come_back(house):
    house.put_key(1004, 2)
    house.ask(UndoKeys("roto"))
    house.put_key(1006, 1)
    with pytest.raises(InputError):
        house.ask(RedoKeys("roto"))
    assert keyed(house.ask(UndoKeys("roto"))) == [(1001, 1)]


def test_when_an_undo_is_sent_twice_then_it_undoes_once_and_its_revision_grows(house):
    house.put_key(1004, 2)
    before = house.open().revision
    assert house.ask(UndoKeys("roto"), "undo-1").revision == before + 1
    assert house.ask(UndoKeys("roto"), "undo-1").revision == before + 1
    assert keyed(house.open()) == [(1001, 1)]


def test_when_keys_are_undone_then_the_run_is_that_of_the_keys_before(house):
    job = house.start()
    house.finish(job)
    house.put_key(1004, 1)
    assert house.start() != job
    house.ask(UndoKeys("roto"))
    assert house.start() == job


# ---------------------------------------------------------------------------------------------------------- deletion


def stored(house):
    return {path.name for path in (house.store.folder / "objects").glob("*/*")}


def test_when_a_session_is_deleted_then_its_own_files_go_and_shared_ones_stay(house):
    house.ready("other")
    house.put_key(1004, 2, value=77)
    house.finish(house.start())
    house.finish(house.start("other"))
    own = sha256_of(alpha(77))
    before = stored(house)
    assert own in before
    reply = house.ask(DeleteSession("roto"))
    assert isinstance(reply, SessionDeleted)
    assert stored(house) < before
    assert own not in stored(house)
    assert sha256_of(picture(1001)) in stored(house)
    assert not house.store.session_folder(1).exists()
    assert [each.session for each in house.ask(ListSessions()).sessions] == ["other"]
    with pytest.raises(ServerError, match="no session 'roto'"):
        house.ask(UndoKeys("roto"))
    assert mattes(house.finish(house.start("other"))) == list(range(1001, 1009))
    assert house.open().keys == ()


def test_when_a_session_is_deleted_while_its_job_runs_then_it_is_refused_and_the_job_goes_on(house):
    house.script(wait_at=1004)
    job = house.start()
    with pytest.raises(InputError, match="Cancel it first"):
        house.ask(DeleteSession("roto"))
    house.go()
    assert mattes(house.finish(job)) == list(range(1001, 1009))


def test_when_the_journal_does_not_take_a_deletion_then_the_session_has_all_its_files(house, monkeypatch):
    before = stored(house)

    def full(*_):
        raise ServerError("storage_full", "The disk is full.")

    with monkeypatch.context() as fault:
        fault.setattr(house.store.sessions, "save_reply", full)
        with pytest.raises(ServerError, match="full"):
            house.ask(DeleteSession("roto"))
    house.put_key(1005, 1)  # whatever is done next must not remove them either
    assert before <= stored(house)
    assert mattes(house.finish(house.start())) == list(range(1001, 1009))


def test_when_a_server_was_killed_after_a_deletion_then_what_is_left_of_it_goes_at_the_next_start(
    tmp_path, decoder, monkeypatch
):
    with House(tmp_path, decoder) as house:
        house.ready()
        monkeypatch.setattr(house.store, "drop_removed", lambda: None)  # killed before the files went
        house.ask(DeleteSession("roto"))
        house.store.session_folder(1).mkdir(parents=True, exist_ok=True)
        left = stored(house)
    with House(tmp_path, decoder) as house:
        assert not house.store.session_folder(1).exists()
        assert stored(house) == left
        for path in (house.store.folder / "objects").glob("*/*"):
            os.utime(path, (1, 1))
        house.store.sweep(3600.0)
        assert stored(house) == set()


def test_when_a_delete_is_sent_twice_then_the_second_gets_the_same_answer(house):
    assert house.ask(DeleteSession("roto"), "delete-1") == house.ask(DeleteSession("roto"), "delete-1")


def test_when_files_are_swept_then_only_those_nobody_uses_or_asked_for_lately_go(house):
    forgotten, fresh = upload(house.store, b"forgotten"), upload(house.store, b"fresh")
    undone = house.key(1006, 1, 99)
    house.put_key(1006, 1, value=99)
    house.ask(UndoKeys("roto"))
    long_ago = time.time() - 3 * 24 * 3600
    for path in (house.store.folder / "objects").glob("*/*"):
        if path.name != fresh:
            os.utime(path, (long_ago, long_ago))
    house.store.sweep(3600.0)
    assert forgotten not in stored(house)
    assert {fresh, undone.sha256, sha256_of(picture(1001))} <= stored(house)


def test_when_a_file_is_asked_for_before_it_is_used_then_the_sweep_leaves_it(house):
    found = upload(house.store, b"asked for")
    os.utime(house.store.file_path(found), (1, 1))
    assert house.store.renew_file(found)
    house.store.sweep(3600.0)
    assert house.store.has_file(found)


def test_when_a_file_was_promised_to_another_client_then_deleting_its_session_leaves_it(house):
    content = alpha(88)
    house.put_key(1006, 1, value=88)
    assert house.ask(FindMissing((sha256_of(content),)), client="nuke-2").sha256s == ()
    house.ask(DeleteSession("roto"))
    house.open("other")
    key = Key(1006, 1, "present", sha256_of(content), ".png", "channel:auto")
    assert keyed(house.ask(PutKey("other", key))) == [(1006, 1)]


def test_when_an_upload_lies_untouched_then_the_sweep_drops_it(house):
    house.store.begin_upload("a" * 64, 1000)
    house.store.sweep(3600.0)
    assert len(list((house.store.folder / "uploads").iterdir())) == 2
    for path in (house.store.folder / "uploads").iterdir():
        os.utime(path, (1, 1))
    house.store.sweep(3600.0)
    assert not list((house.store.folder / "uploads").iterdir())


def test_when_sessions_are_listed_then_a_client_sees_its_own_and_a_supervisor_names_the_owner(house):
    alice, boss = ClientKey("alice", "a" * 40), ClientKey("boss", "b" * 40, is_supervisor=True)
    assert house.ask(ListSessions(), key=alice).sessions == ()
    (seen,) = house.ask(ListSessions(), key=boss).sessions
    assert (seen.session, seen.owner, seen.plates, seen.keys) == ("@local/roto", "local", 8, 1)
    assert house.ask(ListSessions(1), key=boss).sessions == ()


# --------------------------------------------------------------------------------------------------- the commands


@pytest.fixture
def served(tmp_path):
    with serving(tmp_path) as settings, client_of(settings) as client:
        make_ready(client, tmp_path)
        put_key(client, tmp_path, 1004, 2)
        yield settings, client


def run(settings, *arguments):
    return main([*arguments, "--connection", str(settings.connection_file)])


def test_when_a_session_is_exported_then_it_opens_on_another_server_with_the_same_keys_and_plates(
    served, tmp_path, capsys
):
    settings, client = served
    file = tmp_path / "roto.xmem"
    assert run(settings, "sessions", "export", "roto", str(file)) == 0
    (tmp_path / "second").mkdir()
    with serving(tmp_path / "second") as second, client_of(second) as other:
        assert run(second, "sessions", "import", str(file)) == 0
        there, here = other.open_session("roto", SHOT), client.open_session("roto", SHOT)
        assert (there.keys, there.plate_count) == (here.keys, here.plate_count)
        assert other.fetch_plates("roto") == client.fetch_plates("roto")
        assert len([e for e in other.follow(other.start_propagation("roto", whole())) if e.seq]) == 9
        assert run(second, "sessions", "import", str(file)) == 2
        assert "another name" in capsys.readouterr().err
        assert run(second, "sessions", "import", str(file), "--name", "again") == 0
        assert len(other.fetch_sessions()) == 2


def damage_content(path):
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if name.startswith("files/"))
    parts[name] = b"another" + parts[name]
    with zipfile.ZipFile(path, "w") as archive:
        for each, content in parts.items():
            archive.writestr(each, content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "not a session file"),
        (lambda path: path.write_bytes(b"nonsense"), "not a session file"),
        (lambda path: path.unlink(), "cannot be read"),
        (damage_content, "not what its name says"),
    ],
)
def test_when_a_session_file_is_broken_then_the_import_says_so(served, tmp_path, capsys, damage, words):
    settings, _ = served
    file = tmp_path / "roto.xmem"
    run(settings, "sessions", "export", "roto", str(file))
    damage(file)
    (tmp_path / "second").mkdir()
    with serving(tmp_path / "second") as second:
        assert run(second, "sessions", "import", str(file), "--name", "new") == 2
    lines = capsys.readouterr().err.splitlines()
    assert words in lines[-1]


def test_when_a_file_names_a_path_instead_of_a_hash_then_nothing_is_written_outside(served, tmp_path, capsys):
    settings, _ = served
    file = tmp_path / "roto.xmem"
    run(settings, "sessions", "export", "roto", str(file))
    with zipfile.ZipFile(file) as archive:
        fields = json.loads(archive.read("session.json"))
    fields["plates"][0]["sha256"] = "../../outside"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("session.json", json.dumps(fields))
        archive.writestr("files/../../outside", b"evil")
    assert run(settings, "sessions", "import", str(file), "--name", "new") == 2
    assert "SHA-256" in capsys.readouterr().err
    assert fetch_bundle(file).name == "roto"


def test_when_sessions_are_listed_shown_undone_pruned_and_deleted_by_command_then_each_says_what_it_did(served, capsys):
    settings, client = served
    assert run(settings, "sessions", "list") == 0
    assert "roto" in capsys.readouterr().out
    assert run(settings, "sessions", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["keys"] == 2
    assert run(settings, "sessions", "show", "roto") == 0
    assert "key 1004  object 2  present" in capsys.readouterr().out
    assert run(settings, "sessions", "undo", "roto") == 0
    assert "1 keys now (revision 3)" in capsys.readouterr().out
    assert run(settings, "sessions", "redo", "roto") == 0
    assert run(settings, "sessions", "prune", "--days", "1", "--yes") == 0
    assert len(client.fetch_sessions()) == 1
    assert run(settings, "sessions", "prune", "--days", "0") == 0
    assert "1 sessions would be deleted" in capsys.readouterr().out
    assert run(settings, "sessions", "prune", "--days", "0", "--yes") == 0
    assert client.fetch_sessions() == ()
    assert run(settings, "sessions", "delete", "roto") == 2
    assert "no session 'roto'" in capsys.readouterr().err


def test_when_status_is_asked_then_it_says_what_runs_who_waits_and_what_is_held(tmp_path, capsys):
    with serving(tmp_path, {"wait_at": 1004}) as settings, client_of(settings) as client:
        assert run(settings, "status") == 0
        assert "queue    empty" in capsys.readouterr().out
        make_ready(client, tmp_path)
        job = client.start_propagation("roto", whole())
        client.start_propagation("roto", whole(), batch=True)
        next(event for event in client.follow(job) if event.seq == 3)
        assert run(settings, "status") == 0
        out = capsys.readouterr().out
        assert "engine   local: scripted on cpu, busy, " in out
        assert "local/roto: propagating 3/8" in out
        assert run(settings, "status", "--json") == 0
        assert json.loads(capsys.readouterr().out)["jobs"][0]["owner"] == "local"
        (tmp_path / "engine" / "go").touch()
        list(client.follow(job))


def test_when_no_server_is_known_then_the_command_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XMEM_CONNECTION", str(tmp_path / "none.json"))
    assert main(["status"]) == 2
    assert "Is it running?" in capsys.readouterr().err


def test_when_requests_are_served_then_the_log_names_request_client_session_and_answer(tmp_path, caplog):
    with caplog.at_level("INFO"), serving(tmp_path) as settings, client_of(settings) as client:
        make_ready(client, tmp_path)
        with pytest.raises(ServerError):
            client.remove_key("nobody's", 1001, 0)
        secret = fetch_connection(settings.connection_file).secret_key
    assert "request=put_key client=local/nuke-1" in caplog.text
    assert "session='roto'" in caplog.text
    assert "answer=not_found" in caplog.text
    assert secret not in caplog.text
    assert StartPropagation("s", whole()).batch is False
