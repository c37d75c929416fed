"""Keys by name: who gets in over the network, what each of them sees, and how soon a revoked one sees nothing."""

import contextlib
import socket as tcp
import sqlite3
import stat

import pytest

from tests.server.house import SHOT, scripted
from tests.server.served import FAST, answer, client_of, make_ready, put_key, raw_socket, serving, settings_of, whole
from xmem_client import Client, Timeouts, fetch_connection
from xmem_protocol import (
    ConnectionLostError,
    Envelope,
    GetStatus,
    Hello,
    InputError,
    JobDone,
    MatteReady,
    Ping,
    RemoveKey,
    ServerError,
    pack,
)
from xmem_server.__main__ import main
from xmem_server.client_keys import LIST_NAME, ClientList, allow_client, fetch_clients, revoke_client
from xmem_server.connection import make_key_pair
from xmem_server.database import Database
from xmem_server.pipes import pack_message
from xmem_server.service import start_server
from xmem_server.store import Store

QUICK = Timeouts(ping=0.2, silence=0.5, backoff_first=0.1, backoff_last=0.2, resend=0.5, total=1.5)


def free_ports():
    """Give two neighbouring ports that nobody listens on."""
    while True:
        with tcp.socket() as first, tcp.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            with contextlib.suppress(OSError):
                second.bind(("127.0.0.1", port + 1))
                return port, port + 1


def make_key(folder, name, ports, *options):
    """Give the client's file that ``xmem keys new`` writes."""
    file = folder / f"{name}.json"
    arguments = ["keys", "new", name, str(file), "--host", "127.0.0.1", "--port", str(ports[0])]
    assert main([*arguments, "--state", str(folder / "state"), *options]) == 0
    return file


@contextlib.contextmanager
def network(folder, *names, script=None):
    """Serve on every address with a key for each name; give a function from a name to its client's file."""
    ports = free_ports()
    files = {name: make_key(folder, name, ports, *(["--supervisor"] if name == "boss" else [])) for name in names}
    with serving(folder, script, bind="tcp://0.0.0.0", control_port=ports[0], bulk_port=ports[1]) as settings:
        yield settings, files


def connected(file, timeouts=FAST):
    return Client(lambda: fetch_connection(file), "nuke-1", timeouts)


# -------------------------------------------------------------------------------------------------------- getting in


def test_when_a_key_is_made_then_its_file_is_private_and_its_client_is_served_over_the_network(tmp_path):
    with network(tmp_path, "alice") as (settings, files), connected(files["alice"]) as client:
        assert stat.S_IMODE(files["alice"].stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "state" / LIST_NAME).stat().st_mode) == 0o600
        make_ready(client, tmp_path)
        assert isinstance(list(client.follow(client.start_propagation("roto", whole())))[-1], JobDone)
        assert fetch_connection(settings.connection_file).control.startswith("tcp://127.0.0.1:")
        with client_of(settings) as local:
            assert local.status().sessions == 1  # whoever can read the state folder sees everybody's


def test_when_a_file_of_a_key_can_be_read_by_others_then_the_client_refuses_it(tmp_path):
    file = make_key(tmp_path, "alice", (5570, 5571))
    file.chmod(0o640)
    with pytest.raises(InputError, match="chmod 600"):
        fetch_connection(file)


def stranger(connection):
    public, secret = make_key_pair()
    return connection.__class__(**{**vars(connection), "public_key": public, "secret_key": secret})


def wrong_server(connection):
    return connection.__class__(**{**vars(connection), "server_key": make_key_pair()[0]})


@pytest.mark.parametrize(
    "change", [lambda connection: None, stranger, wrong_server], ids=["no key", "unknown", "server"]
)
def test_when_a_guest_on_the_network_has_no_right_key_then_it_gets_nothing_not_even_the_version(tmp_path, change):
    with network(tmp_path, "alice") as (_, files), connected(files["alice"]) as client:
        connection = fetch_connection(files["alice"])
        for endpoint in (connection.control, connection.bulk):
            with raw_socket(endpoint, change(connection)) as socket:
                for message in (Hello(1, 0, "9"), Hello(99, 0, "9"), Ping()):
                    socket.send_multipart(pack(Envelope(message, "p", "raw")))
                socket.send_multipart([b"GET / HTTP/1.1"])
                assert not socket.poll(700)
        assert client.hello().wire_major == 1


def test_when_a_key_is_revoked_then_its_open_connections_get_nothing_more_and_events_stop(tmp_path):
    with (
        network(tmp_path, "alice", "bob", script={"wait_at": 1004}) as (_, files),
        connected(files["alice"]) as alice,
        connected(files["bob"]) as bob,
    ):
        make_ready(alice, tmp_path)
        job = alice.start_propagation("roto", whole())
        connection = fetch_connection(files["alice"])
        with raw_socket(connection.control, connection) as control, raw_socket(connection.bulk, connection) as bulk:
            for socket in (control, bulk):
                socket.send_multipart(pack(Envelope(Ping(), "p", "raw")))
                answer(socket)
            events = alice.follow(job)
            next(event for event in events if isinstance(event, MatteReady) and event.frame == 1003)
            assert main(["keys", "revoke", "alice", "--state", str(tmp_path / "state")]) == 0
            (tmp_path / "engine" / "go").touch()
            for socket in (control, bulk):
                socket.send_multipart(pack(Envelope(Ping(), "q", "raw")))
                socket.send_multipart(pack(Envelope(GetStatus(), "r", "raw")))
                assert not socket.poll(700)
        assert bob.status().sessions == 0
        revoked = connected(files["alice"], QUICK)
        with revoked, pytest.raises(ConnectionLostError):
            revoked.hello()
        events.close()


def test_when_a_revoked_key_is_allowed_again_then_its_sessions_are_there(tmp_path):
    with network(tmp_path, "alice") as (_, files):
        with connected(files["alice"]) as alice:
            make_ready(alice, tmp_path)
        key = fetch_connection(files["alice"]).public_key
        revoke_client(tmp_path / "state" / LIST_NAME, "alice")
        assert main(["keys", "allow", "alice", key, "--state", str(tmp_path / "state")]) == 0
        with connected(files["alice"]) as alice:
            assert len(alice.open_session("roto", SHOT).keys) == 1


def test_when_a_client_is_allowed_while_the_server_runs_then_it_gets_in_without_a_restart(tmp_path):
    with network(tmp_path, "alice") as (settings, _):
        port = settings.control_port
        file = make_key(tmp_path, "carol", (port, port + 1))
        with connected(file) as carol:
            assert carol.hello().wire_major == 1


def test_when_the_list_is_spoiled_while_the_server_runs_then_only_the_local_client_gets_in(tmp_path):
    with network(tmp_path, "alice") as (settings, files):
        with connected(files["alice"]) as alice:
            alice.hello()
            (tmp_path / "state" / LIST_NAME).write_text("{}")
            with client_of(settings) as local:
                assert local.hello().wire_major == 1
        with connected(files["alice"], QUICK) as alice, pytest.raises(ConnectionLostError):
            alice.hello()


def test_when_the_list_is_spoiled_before_the_start_then_the_server_says_so(tmp_path):
    make_key(tmp_path, "alice", (5570, 5571))
    (tmp_path / "state" / LIST_NAME).write_text("nonsense")
    with (
        pytest.raises(InputError, match="not a list of client keys"),
        start_server(settings_of(tmp_path), scripted(tmp_path / "engine")),
    ):
        pass


def test_when_the_last_key_is_revoked_then_the_server_does_not_start_on_the_network(tmp_path):
    ports = free_ports()
    make_key(tmp_path, "alice", ports)
    revoke_client(tmp_path / "state" / LIST_NAME, "alice")
    settings = settings_of(tmp_path, bind="tcp://0.0.0.0", control_port=ports[0], bulk_port=ports[1])
    with pytest.raises(InputError, match="xmem keys new"), start_server(settings, scripted(tmp_path / "engine")):
        pass


# ------------------------------------------------------------------------------------------------ whose is whose


def test_when_two_clients_use_one_name_then_each_has_its_own_session(tmp_path):
    with (
        network(tmp_path, "alice", "bob") as (_, files),
        connected(files["alice"]) as alice,
        connected(files["bob"]) as bob,
    ):
        make_ready(alice, tmp_path)
        assert bob.open_session("roto", SHOT.__class__(**{**vars(SHOT), "last": 1002})).keys == ()
        assert (alice.status().sessions, bob.status().sessions) == (1, 1)
        assert len(alice.open_session("roto", SHOT).keys) == 1


def test_when_a_client_reaches_for_anothers_session_or_job_then_it_is_forbidden_and_nothing_changes(tmp_path):
    with (
        network(tmp_path, "alice", "bob", script={"wait_at": 1004}) as (_, files),
        connected(files["alice"]) as alice,
        connected(files["bob"]) as bob,
    ):
        make_ready(alice, tmp_path)
        job = alice.start_propagation("roto", whole())
        attempts = [
            lambda: bob.open_session("@alice/roto", SHOT),
            lambda: bob.remove_key("@alice/roto", 1001, 0),
            lambda: bob.start_propagation("@alice/roto", whole()),
            lambda: bob.cancel(job),
            lambda: list(bob.follow(job)),
        ]
        for attempt in attempts:
            with pytest.raises(ServerError) as caught:
                attempt()
            assert caught.value.code == "forbidden"
        with pytest.raises(ServerError) as caught:
            bob.remove_key("roto", 1001, 0)
        assert caught.value.code == "not_found"
        (tmp_path / "engine" / "go").touch()
        assert isinstance(list(alice.follow(job))[-1], JobDone)
        assert len(alice.open_session("@alice/roto", SHOT).keys) == 1


def test_when_a_supervisor_names_the_owner_then_it_sees_and_changes_the_owners_session(tmp_path):
    with (
        network(tmp_path, "alice", "boss") as (_, files),
        connected(files["alice"]) as alice,
        connected(files["boss"]) as boss,
    ):
        make_ready(alice, tmp_path)
        assert len(boss.open_session("@alice/roto", SHOT).keys) == 1
        assert boss.remove_key("@alice/roto", 1001, 0).keys == ()
        assert alice.open_session("roto", SHOT).keys == ()
        assert boss.status().sessions == 1


def test_when_two_keys_send_the_same_client_name_and_request_id_then_both_have_their_effect(tmp_path):
    with (
        network(tmp_path, "alice", "bob") as (_, files),
        connected(files["alice"]) as alice,
        connected(files["bob"]) as bob,
    ):
        for client in (alice, bob):
            client.open_session("roto", SHOT)
            put_key(client, tmp_path)
            connection = fetch_connection(files["alice" if client is alice else "bob"])

            with raw_socket(connection.control, connection) as socket:
                socket.send_multipart(pack(Envelope(RemoveKey("roto", 1001, 1), "the-same", "raw")))
                assert answer(socket).message.keys == ()


# --------------------------------------------------------------------------------------------------- list and command


def test_when_a_client_is_revoked_then_the_list_says_so_at_once(tmp_path):
    path = tmp_path / LIST_NAME
    public, _ = make_key_pair()
    clients = ClientList(path, "l" * 40)
    assert clients.fetch(public) is None
    allow_client(path, "alice", public, is_supervisor=False)
    assert clients.fetch(public).name == "alice"
    revoke_client(path, "alice")
    assert clients.fetch(public) is None
    assert clients.fetch("l" * 40).is_supervisor


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["new", "Alice", "a.json", "--host", "h"], "a-z"),
        (["new", "local", "a.json", "--host", "h"], "not 'local'"),
        (["new", "alice", "b.json", "--host", "h"], "named 'alice' already"),
        (["new", "bob", "a.json", "--host", "h", "--port", "70000"], "A port is"),
        (["new", "bob", "taken.json", "--host", "h"], "exists already"),
        (["new", "bob", "a.json", "--host", "h", "--server-key", "short"], "40 letters"),
        (["allow", "bob", "short"], "40 letters"),
        (["revoke", "bob"], "no key named 'bob'. Known are: alice"),
        (["sing"], "invalid choice"),
    ],
)
def test_when_a_keys_command_cannot_be_done_then_it_says_why_and_changes_nothing(
    tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.chdir(tmp_path)
    make_key(tmp_path, "alice", (5570, 5571))
    (tmp_path / "taken.json").write_text("mine")
    before = fetch_clients(tmp_path / "state" / LIST_NAME)
    capsys.readouterr()
    state = [] if arguments == ["sing"] else ["--state", str(tmp_path / "state")]
    assert main(["keys", *arguments, *state]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), words in lines[0]) == (1, True), lines
    assert fetch_clients(tmp_path / "state" / LIST_NAME) == before
    assert not (tmp_path / "a.json").exists()
    assert (tmp_path / "taken.json").read_text() == "mine"


def test_when_a_key_is_made_on_the_clients_machine_then_the_server_lets_it_in_by_its_public_half(tmp_path, capsys):
    ports = free_ports()
    state = ["--state", str(tmp_path / "state")]
    main(["keys", "list", *state])
    server_key = capsys.readouterr().out.split()[2]
    arguments = ["keys", "new", "dora", str(tmp_path / "dora.json"), "--host", "127.0.0.1", "--port", str(ports[0])]
    assert main([*arguments, "--server-key", server_key]) == 0
    public = capsys.readouterr().out.split("'")[1]
    assert fetch_clients(tmp_path / "state" / LIST_NAME) == ()
    assert main(["keys", "allow", "dora", public, *state]) == 0
    with (
        serving(tmp_path, bind="tcp://0.0.0.0", control_port=ports[0], bulk_port=ports[1]),
        connected(tmp_path / "dora.json") as dora,
    ):
        assert dora.hello().wire_major == 1
    main(["keys", "list", *state])
    assert "dora                artist" in capsys.readouterr().out


# --------------------------------------------------------------------------------------- journals from before the keys


def test_when_a_journal_of_layout_1_is_opened_then_its_sessions_are_the_local_clients(tmp_path):
    (tmp_path / "state").mkdir()
    old = sqlite3.connect(tmp_path / "state" / "journal.sqlite")
    old.executescript(
        """
        CREATE TABLE schema_version (version INTEGER NOT NULL);
        INSERT INTO schema_version VALUES (1);
        CREATE TABLE session (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, shot BLOB NOT NULL,
            revision INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL);
        CREATE TABLE plate (session INTEGER NOT NULL REFERENCES session, frame INTEGER NOT NULL, sha256 TEXT NOT NULL,
            picture INTEGER NOT NULL, suffix TEXT NOT NULL, PRIMARY KEY (session, frame)) WITHOUT ROWID;
        CREATE TABLE key (session INTEGER NOT NULL REFERENCES session, frame INTEGER NOT NULL, object_id INTEGER NOT NULL,
            presence TEXT NOT NULL, sha256 TEXT NOT NULL, suffix TEXT NOT NULL, selector TEXT NOT NULL,
            PRIMARY KEY (session, frame, object_id)) WITHOUT ROWID;
        CREATE TABLE revision (session INTEGER NOT NULL REFERENCES session, revision INTEGER NOT NULL, frame INTEGER NOT NULL,
            object_id INTEGER NOT NULL, before BLOB, after BLOB, changed REAL NOT NULL,
            PRIMARY KEY (session, revision, frame, object_id)) WITHOUT ROWID;
        CREATE TABLE job (number INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL UNIQUE,
            session INTEGER NOT NULL REFERENCES session, kind TEXT NOT NULL, params_hash TEXT NOT NULL, state TEXT NOT NULL,
            place INTEGER NOT NULL, last_seq INTEGER NOT NULL DEFAULT 0, plan BLOB NOT NULL, UNIQUE (session, params_hash));
        CREATE INDEX job_by_state ON job (state, place);
        CREATE TABLE event (job TEXT NOT NULL REFERENCES job (job), seq INTEGER NOT NULL, type TEXT NOT NULL, frame INTEGER,
            body BLOB NOT NULL, PRIMARY KEY (job, seq)) WITHOUT ROWID;
        CREATE TABLE result (job TEXT NOT NULL REFERENCES job (job), frame INTEGER NOT NULL, object_id INTEGER NOT NULL,
            sha256 TEXT NOT NULL, nbytes INTEGER NOT NULL, suffix TEXT NOT NULL, PRIMARY KEY (job, frame, object_id)) WITHOUT ROWID;
        CREATE TABLE snapshot (job TEXT NOT NULL REFERENCES job (job), frame INTEGER NOT NULL, path TEXT NOT NULL,
            PRIMARY KEY (job, frame)) WITHOUT ROWID;
        CREATE TABLE request (number INTEGER PRIMARY KEY AUTOINCREMENT, client TEXT NOT NULL, id TEXT NOT NULL,
            fingerprint TEXT NOT NULL, session TEXT NOT NULL, reply BLOB, UNIQUE (client, id));
        """
    )

    old.execute("INSERT INTO session (name, shot, created) VALUES ('roto', ?, 1.0)", (pack_message(SHOT),))
    old.execute("INSERT INTO key VALUES (1, 1001, 1, 'present', ?, '.png', 'channel:auto')", ("0" * 64,))
    old.execute("INSERT INTO request (client, id, fingerprint, session) VALUES ('nuke-1', 'r', 'f', 'roto')")
    old.commit()
    old.close()
    store = Store(tmp_path / "state")
    record = store.sessions.fetch("local", "roto")
    assert (record.shot, record.number) == (SHOT, 1)
    assert [key.frame for key in store.sessions.fetch_keys(1)] == [1001]
    assert store.database.fetch_one("SELECT client FROM request") == ("local/nuke-1",)
    store.sessions.add("bob", "roto", SHOT)
    assert store.sessions.fetch("bob", "roto").number == 2
    store.database.write("DELETE FROM key WHERE session = 1")  # tables still refer to the one that was made again
    with pytest.raises(sqlite3.IntegrityError):
        store.database.write("INSERT INTO key VALUES (99, 1001, 1, 'present', ?, '.png', 'channel:auto')", "0" * 64)
    store.close()
    assert isinstance(Database(tmp_path / "state" / "journal.sqlite"), Database)
