"""The report's server: who is answered, and what it survives."""

import http.client
import os
import socket
import threading

import pytest

from tests.support.jobs import wait_for
from trainer.compare import serve

PAGE = b"<!doctype html><title>Page</title>"


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "report.html"
    path.write_bytes(PAGE)
    return path


@pytest.fixture
def server(page):
    server = serve.make_server(str(page), 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(server, method="GET", path="/", host=None):
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=240)
    headers = {} if host is None else {"Host": host.format(port=port)}
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


@pytest.mark.parametrize("host", [None, "localhost:{port}", "LOCALHOST:{port}"])
def test_its_own_names_are_answered(server, host):
    response, content = ask(server, host=host)
    assert (response.status, content) == (200, PAGE)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:{port}",
        "evil.example",
        "127.0.0.1",
        "127.0.0.1:1",
        "",
        "localhost",
    ],
)
def test_other_names_are_not(server, host):
    for method in ("GET", "HEAD"):
        response, content = ask(server, method, host=host)
        assert response.status == 421
        assert PAGE not in content


def test_head_sends_the_headers_alone(server):
    response, content = ask(server, "HEAD")
    assert (response.status, content) == (200, b"")
    assert response.getheader("Content-Length") == str(len(PAGE))
    for other in ("/other", "/report.json", "/../report.json", "/models"):
        assert ask(server, "HEAD", other)[0].status == 404
    assert ask(server, "POST")[0].status == 501


def test_a_page_that_is_removed_comes_back(server, page, capfd):
    page.unlink()
    response, content = ask(server)
    assert response.status == 404
    assert b"The report is gone" in content
    os.mkfifo(page)
    assert ask(server)[0].status == 404
    page.unlink()
    page.write_bytes(PAGE + b"2")
    assert ask(server)[1] == PAGE + b"2"
    assert capfd.readouterr().err == ""


def test_idle_connections_are_closed(server, monkeypatch):
    monkeypatch.setattr(serve._Handler, "timeout", 0.1)
    with socket.create_connection(server.server_address, timeout=240) as idle:
        assert idle.recv(1) == b""


def test_many_idle_connections_keep_nobody_out(server, capfd, monkeypatch):
    monkeypatch.setattr(serve._Handler, "timeout", 240)
    idle = [
        socket.create_connection(server.server_address, timeout=240)
        for _ in range(serve.MAX_CONNECTIONS + 3)
    ]
    assert ask(server)[1] == PAGE
    # The longest waiting ones made room.
    assert idle[0].recv(1) == b""
    idle[-1].settimeout(0.05)
    with pytest.raises(TimeoutError):
        idle[-1].recv(1)
    for one in idle:
        one.close()
    assert capfd.readouterr().err == ""


def test_a_browser_that_goes_away_is_no_traceback(server, page, capfd):
    page.write_bytes(b"x" * 30_000_000)
    port = server.server_address[1]
    with socket.create_connection(server.server_address) as gone:
        gone.sendall(f"GET / HTTP/1.0\r\nHost: localhost:{port}\r\n\r\n".encode())
        gone.recv(10)
    assert ask(server, "HEAD")[0].status == 200
    wait_for(lambda: all(c.fileno() < 0 for c in server._connections))
    assert capfd.readouterr().err == ""


def test_ports_that_cannot_be_used_are_refused(server, page, capsys):
    assert server.server_address[0] == "127.0.0.1"
    own = server.server_address[1]
    for port, message in (
        (65536, "Received: 65536"),
        (-1, "Received: -1"),
        (own, f"Port {own} cannot be used"),
    ):
        assert serve.main([str(page.parent), "--serve", f"--port={port}"]) == 2
        assert message in capsys.readouterr().err


def test_no_report_is_one_line_whatever_its_name(tmp_path, capsys):
    assert serve.main([str(tmp_path / "a\nb\x1b[31m"), "--serve"]) == 2
    err = capsys.readouterr().err
    assert "There is no report.html" in err
    assert err.count("\n") == 1
    assert "\x1b" not in err
