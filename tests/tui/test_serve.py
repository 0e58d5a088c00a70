"""`epochal serve`: who is let in, and the pseudo-terminal behind a page."""

from __future__ import annotations

import asyncio
import io
import re
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine import Run
from engine.cli.output import Stream
from tui import serving
from tui.__main__ import main

pytest.importorskip("textual_serve", reason="textual-serve is not installed")

from aiohttp import ClientSession, WSServerHandshakeError
from aiohttp.test_utils import TestServer

from tui.pages import Pages

TOKEN = "a secret"
SHELL = "stty -echo; stty size; trap 'echo gone > gone; exit' HUP; while read line; do stty size; echo $line; done"


@asynccontextmanager
async def pages(token: str = TOKEN, *, local: bool = True, command: str = SHELL) -> AsyncIterator[tuple[str, ClientSession]]:
    """The server on a free port, and a client that keeps no cookies by itself."""
    serving = Pages(lambda: ["/bin/sh", "-c", command], token, 8000, local=local)
    async with TestServer(await serving._make_app()) as server, ClientSession() as client:
        yield f"http://127.0.0.1:{server.port}", client


def cookie(token: str = TOKEN) -> dict[str, str]:
    return {"Cookie": f'epochal-8000="{token}"'}


async def test_the_link_lets_in_and_its_token_goes_into_a_cookie() -> None:
    async with pages() as (url, client):
        async with client.get(url, params={"token": TOKEN}, allow_redirects=False) as answer:
            assert answer.status == 303 and answer.headers["Location"] == "/"
            kept = answer.cookies["epochal-8000"]
            assert kept.value == TOKEN and kept["httponly"] and kept["samesite"] == "Strict"
        async with client.get(url, headers=cookie()) as answer:
            assert answer.status == 200 and TOKEN not in await answer.text()
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        async with client.get(f"{url}/static/js/textual.js", headers=cookie()) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("path", ["/", "/?token=wrong", "/page.js", "/static/js/textual.js", "/ws", f"/page.js?token={TOKEN}"])
@pytest.mark.parametrize("sent", [{}, cookie("wrong"), cookie("")])
async def test_without_the_token_nothing_is_answered(path: str, sent: dict[str, str]) -> None:
    async with pages() as (url, client), client.get(url + path, headers={"Origin": url, **sent}) as answer:
        assert answer.status == 403 and TOKEN not in await answer.text()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9000", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8000", 200),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
    ],
)
@pytest.mark.parametrize("token", ["", TOKEN])
async def test_another_name_that_leads_here_is_refused(host: str, status: int, token: str) -> None:
    async with pages(token) as (url, client), client.get(url, headers={"Host": host, **cookie()}) as answer:
        assert answer.status == status
    async with pages(TOKEN, local=False) as (url, client), client.get(url, headers={"Host": host, **cookie()}) as answer:
        assert answer.status == 200  # the cookie is of that very name


@pytest.mark.parametrize("origin", [None, "http://evil.example", "http://127.0.0.1:1", "null", "http://localhost"])
@pytest.mark.parametrize("token", ["", TOKEN])
async def test_a_page_of_another_origin_gets_no_console(origin: str | None, token: str, tmp_path: Path) -> None:
    async with pages(token, command=f"touch {tmp_path}/ran") as (url, client):
        headers = cookie() | ({"Origin": origin} if origin else {})
        with pytest.raises(WSServerHandshakeError, match="403"):
            await client.ws_connect(f"{url}/ws", headers=headers)
        assert not (tmp_path / "ran").exists()


async def read_until(socket: object, text: str) -> str:
    seen = ""
    while text not in seen:
        seen += (await socket.receive_bytes(timeout=60)).decode()  # type: ignore[attr-defined]
    return seen


async def test_a_page_is_a_terminal_of_its_size_and_hangs_up_when_it_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with pages() as (url, client):
        page = await client.ws_connect(f"{url}/ws?width=100&height=30", headers={"Origin": url, **cookie()})
        await read_until(page, "30 100")
        await page.send_json(["resize", {"width": 80, "height": 24}])
        await page.send_json(["stdin", "grüße ⣿\n"])
        assert "24 80" in await read_until(page, "grüße ⣿")
        await page.send_json(["stdin", ("x" * 60 + "\n") * 200 + "end\n"])  # a paste that no terminal takes at once
        assert (await read_until(page, "end")).count("x" * 60) == 200
        await page.close()
        async with asyncio.timeout(60):
            while not Path("gone").exists():
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("command", ["echo over", "(trap '' HUP; sleep 30) & echo over"])
async def test_what_ends_closes_its_page(command: str) -> None:
    async with pages(command=command) as (url, client):
        page = await client.ws_connect(f"{url}/ws", headers={"Origin": url, **cookie()})
        await read_until(page, "over")
        assert (await page.receive(timeout=60)).type.name == "CLOSE"


def test_the_page_needs_no_other_host() -> None:
    page = Path(serving.__file__).with_name("page.html").read_text(encoding="utf-8")
    addresses = re.findall(r'(?:href|src)="([^"]*)"|url\("([^"]*)"\)', page)
    assert addresses and all((a or b).startswith(("/", "data:")) for a, b in addresses)


def test_a_mistake_is_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    assert (
        capsys.readouterr().err == f"epochal: port {port} is taken on 127.0.0.1: --port names another, 0 is any that is free\n"
    )
    assert main(["serve", "--port", "0", "--host", "192.0.2.7"]) == 2
    assert "--host is '192.0.2.7', which is no address of this machine" in capsys.readouterr().err
    assert main(["serve", "--port", "70000"]) == 2
    assert "'70000' and must be a whole number from 0 to 65535" in capsys.readouterr().err
    assert main(["serve", "--port", "0", "--host", "0.0.0.0", "--no-token"]) == 2
    assert "--no-token is for this machine alone" in capsys.readouterr().err
    monkeypatch.setenv("EPOCHAL_TOKEN", "short")
    assert main(["serve", "--port", "0"]) == 2
    assert "EPOCHAL_TOKEN has 5 characters and must have at least 16" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "textual_serve", None)
    assert main(["serve"]) == 2
    assert capsys.readouterr().err == 'epochal: epochal serve needs textual-serve: pip install "epochal[serve]"\n'


def test_a_link_goes_into_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHAL_CONFIG", str(tmp_path))
    served: list[Pages] = []
    monkeypatch.setattr(Pages, "serve_on", lambda pages, listening: (served.append(pages), listening.close()))
    printed = io.StringIO()
    serving.serve(serving.make_parser().parse_args(["--port", "0"]), Stream(printed))
    (link,) = tmp_path.glob("serve-*.link")
    assert stat.S_IMODE(link.stat().st_mode) == 0o600
    token = link.read_text().strip().partition("?token=")[2]
    assert len(token) >= 32 and token not in printed.getvalue() and str(link) in printed.getvalue()
    assert served[0]._knows(token) and not served[0]._knows(token[:-1])


def test_a_page_opens_on_the_run_at_work(tmp_path: Path) -> None:
    command: Callable[[], list[str]] = serving.console_command(str(tmp_path))
    assert command()[-3:] == ["console", "--runs", str(tmp_path)]
    run = Run.create(tmp_path, "at-work")
    run.status.write("running")
    assert command()[-4:] == ["attach", str(run.path), "--runs", str(tmp_path)]
    run.status.write("finished")
    assert command()[-3] == "console" and command()[0] == sys.executable
