"""A TCP proxy in front of Redis, which can be slow."""

import contextlib
import socket
import threading
import time
from typing import Final

from stream_app.embedded import LOOPBACK

CHUNK: Final = 65_536


class SlowProxy:
    """Hands on what clients send to ``target`` after ``delay`` seconds, and the answers at once."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.delay = 0.0
        self._target = target
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True, name="slow-proxy")
        self._thread.start()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for source, sink, delayed in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, sink, delayed), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, delayed: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK):
                if delayed and self.delay:
                    time.sleep(self.delay)
                sink.sendall(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        # Each direction is pumped by a thread of its own: the one that reads a socket closes it.
        source.close()
