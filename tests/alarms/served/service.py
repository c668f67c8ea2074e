"""A threaded CPython service that forks workers, re-reads its configuration by SIGHUP and reopens its log by itself."""

import http.server
import logging.handlers
import os
import signal
import sys
import time
from pathlib import Path

conf = Path("conf").read_text()
log = logging.handlers.WatchedFileHandler("log/service.log")


def reload(*_: object) -> None:
    global conf
    conf = Path("conf").read_text()


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = conf.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/fork" and os.fork() == 0:
            time.sleep(0.05)
            os._exit(0)

    def log_message(self, *told: object) -> None:
        log.emit(logging.makeLogRecord({"msg": str(told)}))


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A caller went away."""


signal.signal(signal.SIGHUP, reload)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
Server(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
