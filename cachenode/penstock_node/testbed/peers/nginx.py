"""nginx: what a web server in C does with the same files and the same client.

Responsible for: its configuration (one worker, ``sendfile``, keep-alive, no logs, a header with
each file), the process, and which process the worker is.
Not responsible for: the files; whoever reads.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock_node.testbed.peers import program
from penstock_node.testbed.processes import Process, free_port
from penstock_node.testbed.usage import children

START_DEADLINE_S = 10.0
_PROBE_TIMEOUT_S = 1.0
_CONFIG = """\
daemon off;
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    open_file_cache max=100000 inactive=1h;
    open_file_cache_valid 1h;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    map_hash_max_size 65536;
    map $uri $by_path {{ {values} }}
    server {{
        listen 127.0.0.1:{port};
        root {files};
        add_header {header} $by_path;
    }}
}}
"""


class Nginx:
    """An nginx that serves the files below a directory. A context manager; it starts when used.

    Where nginx is not installed, using it raises `PeerAbsent`.
    """

    def __init__(
        self, directory: Path, *, files: Path, header: str, values: Mapping[str, str]
    ) -> None:
        """Describe it; nothing starts yet.

        Args:
            directory: Holds its configuration and log; made if it is not there.
            files: What it serves, by path.
            header: Goes with each answer.
            values: Of that header, by path.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._files = files
        self._header, self._values = header, values
        self._port = free_port()
        self._process: Process | None = None

    @property
    def address(self) -> str:
        """Where it serves, as ``host:port``.

        Raises:
            PeerAbsent: It is not installed.
        """
        self._started()
        return f"127.0.0.1:{self._port}"

    @property
    def worker_pid(self) -> int:
        """The process that serves.

        Raises:
            PeerAbsent: It is not installed.
        """
        (worker,) = children(self._started().pid)
        return worker

    def _started(self) -> Process:
        if self._process is None:
            binary = program("nginx", fix="apt install nginx-light")
            # What it would log before it has read where to is wanted on standard error too.
            place = ["-e", "stderr", "-p", str(self._directory), "-c", str(self._write_config())]
            self._process = Process([binary, *place], log=self._directory / "nginx.log").start()
            self._process.wait_until(
                self._answers, deadline_s=START_DEADLINE_S, what="nginx serves"
            )
        return self._process

    def _write_config(self) -> Path:
        path = self._directory / "nginx.conf"
        path.write_text(
            _CONFIG.format(
                user="user root;" if os.geteuid() == 0 else "",
                directory=self._directory,
                port=self._port,
                files=self._files,
                header=self._header,
                values=" ".join(f'"{path}" "{value}";' for path, value in self._values.items()),
            )
        )
        return path

    def _answers(self) -> bool:
        assert self._process is not None, "it is asked for while it starts"
        try:
            socket.create_connection(("127.0.0.1", self._port), _PROBE_TIMEOUT_S).close()
        except OSError:
            return False
        return len(children(self._process.pid)) == 1  # The worker comes after the socket.

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.stop()
