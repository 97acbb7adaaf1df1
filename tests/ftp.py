"""A small FTP server for tests: one folder, read-only, passive mode (RFC 959, RFC 3659)."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serve_ftp(folder: Path) -> Iterator[str]:
    """The URI of a server of this folder."""

    class Session(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rest, self.passive = 0, None
            self.say("220 ready")
            for line in self.rfile:
                verb, _, argument = line.decode().strip().partition(" ")
                answer = getattr(self, f"on_{verb.lower()}", None)
                if answer is None:
                    self.say("502 not here")
                else:
                    answer(argument)

        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def at(self, argument: str) -> Path:
            return folder / argument.strip("/")

        def on_user(self, argument: str) -> None:
            self.say("331 password")

        def on_pass(self, argument: str) -> None:
            self.say("230 welcome")

        def on_type(self, argument: str) -> None:
            self.say("200 fine")

        def on_rest(self, argument: str) -> None:
            self.rest = int(argument)
            self.say("350 fine")

        def on_epsv(self, argument: str) -> None:
            self.passive = socket.create_server(("127.0.0.1", 0))
            self.say(f"229 entering (|||{self.passive.getsockname()[1]}|)")

        def on_pasv(self, argument: str) -> None:
            self.passive = socket.create_server(("127.0.0.1", 0))
            high, low = divmod(self.passive.getsockname()[1], 256)
            self.say(f"227 entering (127,0,0,1,{high},{low})")

        def send(self, data: bytes) -> None:
            assert self.passive is not None
            self.say("150 here it comes")
            connection, _ = self.passive.accept()
            with connection, self.passive:
                try:
                    connection.sendall(data)
                    done = "226 done"
                except OSError:
                    done = "426 closed"
            self.say(done)

        def on_mlsd(self, argument: str) -> None:
            path = self.at(argument)
            if not path.is_dir():
                self.say("550 no such folder")
                return
            lines = [
                f"type={'dir' if p.is_dir() else 'file'};size={p.stat().st_size};modify={p.stat().st_mtime_ns}; {p.name}"
                for p in sorted(path.iterdir())
            ]
            self.send("".join(f"{line}\r\n" for line in lines).encode())

        def on_retr(self, argument: str) -> None:
            path, start = self.at(argument), self.rest
            self.rest = 0
            if path.is_file():
                self.send(path.read_bytes()[start:])
            else:
                self.say("550 no such file")

        def on_quit(self, argument: str) -> None:
            self.say("221 bye")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Session) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"ftp://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
