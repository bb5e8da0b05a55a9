"""A receiver of OTLP over HTTP: the protocol's own messages, kept for a test to look at."""

import gzip
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class OtlpReceiver:
    """Takes traces until the ``with`` ends."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._spans: list[tuple[str, Span]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver._take(self.path, ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def endpoint(self) -> str:
        """Where it takes traces."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def _take(self, path: str, request: ExportTraceServiceRequest) -> None:
        assert path == "/v1/traces", path
        with self._changed:
            for resource in request.resource_spans:
                attributes = {
                    each.key: each.value.string_value for each in resource.resource.attributes
                }
                for scope in resource.scope_spans:
                    self._spans += [(attributes["service.name"], span) for span in scope.spans]
            self._changed.notify_all()

    def wait_for(
        self,
        trace_id: str,
        names: set[str],
        *,
        deadline_s: float,
        is_whole: Callable[[list[Span]], bool] = lambda _: True,
    ) -> list[tuple[str, Span]]:
        """Return service and span of a trace once spans of all ``names`` have come.

        And what ``is_whole`` wants: a process sends its spans when it likes.
        """

        def found() -> list[tuple[str, Span]]:
            return [each for each in self._spans if each[1].trace_id.hex() == trace_id]

        with self._changed:
            come = self._changed.wait_for(
                lambda: (
                    names <= {span.name for _, span in found()}
                    and is_whole([span for _, span in found()])
                ),
                timeout=deadline_s,
            )
            assert come, f"of {sorted(names)} came {sorted(span.name for _, span in found())}"
            return found()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
