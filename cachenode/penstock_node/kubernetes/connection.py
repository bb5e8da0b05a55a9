"""Calls to Kubernetes' API server.

Responsible for: where it is, what this process shows it, deadlines, one error for whatever keeps
it from answering.
Not responsible for: what is asked (`reviews`, `machine`), asking again.

Each call has a client of its own, so that the token and the certificates in it are those that
stand in the pod's files now: the kubelet renews both. Calls are rare.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx2
import msgspec
from lightkube import ApiError, AsyncClient, KubeConfig
from lightkube.config.client_adapter import verify_cluster
from lightkube.config.kubeconfig import SERVICE_ACCOUNT, SingleConfig
from lightkube.core.exceptions import ConfigError

from penstock.errors import InvalidConfiguration, KubernetesUnavailable

CALL_TIMEOUT_S = 5.0
"""For one call; the API server answers in milliseconds, or is being replaced."""
CALLS_AT_ONCE = 16
"""What is more waits, within its deadline."""

_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""A watch may say nothing for minutes: a machine behind it that is gone is noticed in 25 s."""
_REFUSED = (401, 403)


class Connection:
    """Where the API server is, and how it is called. On one event loop."""

    def __init__(
        self, *, kubeconfig: Path | None = None, service_account: Path = Path(SERVICE_ACCOUNT)
    ) -> None:
        """Call nothing yet.

        Args:
            kubeconfig: A file as `kubectl` has one, for processes outside pods; None: this
                process runs in a pod.
            service_account: Where the pod's token and the cluster's certificate are mounted.

        Raises:
            InvalidConfiguration: The file is not there or none, or this is no pod.
        """
        self._kubeconfig, self._service_account = kubeconfig, service_account
        self._calls = asyncio.Semaphore(CALLS_AT_ONCE)
        self._config()

    def _config(self) -> SingleConfig:
        """Return where the API server is and what it is shown, as both are now."""
        if self._kubeconfig is None:
            where, fix = "this is no pod of Kubernetes", "set kubernetes.kubeconfig"
        else:
            where, fix = f"kubernetes.kubeconfig={self._kubeconfig}", "want one as kubectl has it"
        try:
            config = self._read()
        # Which of its errors tells of a wrong file is not documented; all are about that file.
        except Exception as error:
            raise InvalidConfiguration(f"{where} ({_shown(error)}): {fix}") from error
        return config

    def _read(self) -> SingleConfig:
        if self._kubeconfig is None:
            found = KubeConfig.from_service_account(self._service_account).get()
        else:
            found = KubeConfig.from_file(self._kubeconfig).get()
        if found is None or found.user is None:
            raise ConfigError("it names no context with a user")
        return found

    @contextlib.asynccontextmanager
    async def call(self, what: str) -> AsyncIterator[AsyncClient]:
        """Give a client for one call, or a few, within `CALL_TIMEOUT_S`.

        Raises:
            KubernetesUnavailable: There was no answer in time, or none that can be used.
        """
        with translated(what):
            async with asyncio.timeout(CALL_TIMEOUT_S), self._calls, self._opened() as client:
                yield client

    @contextlib.asynccontextmanager
    async def watch(
        self, what: str, *, longest_s: float, on_answer: Callable[[], None]
    ) -> AsyncIterator[AsyncClient]:
        """Give a client for one watch, which ends with the answer: it is not asked for again.

        Args:
            what: Is to be done, for messages.
            longest_s: It ends after so long, at the latest.
            on_answer: Called when the API server begins to answer, and refuses nothing: the
                first change may come long after.

        Raises:
            KubernetesUnavailable: As `call`; or it went on for longer than ``longest_s``.
        """
        with translated(what):
            async with asyncio.timeout(longest_s), self._opened(on_answer) as client:
                yield client

    @contextlib.asynccontextmanager
    async def _opened(
        self, on_watch: Callable[[], None] | None = None
    ) -> AsyncIterator[AsyncClient]:
        try:
            # In a thread: a file system may hang.
            config, transport = await asyncio.to_thread(self._reached, on_watch)
        except InvalidConfiguration as error:  # It was good when the node started.
            raise KubernetesUnavailable(str(error)) from error
        client = AsyncClient(
            config, timeout=httpx2.Timeout(CALL_TIMEOUT_S), trust_env=False, transport=transport
        )
        async with transport:
            yield client

    def _reached(
        self, on_watch: Callable[[], None] | None
    ) -> tuple[SingleConfig, httpx2.AsyncBaseTransport]:
        config = self._config()
        assert config.user is not None, "see _read"
        verify = verify_cluster(config.cluster, config.user, config.abs_file, trust_env=False)
        plain = httpx2.AsyncHTTPTransport(verify=verify, trust_env=False, socket_options=_KEEPALIVE)
        return config, _OneWatch(plain, on_watch) if on_watch else plain


class WatchEnded(httpx2.HTTPError):
    """The answer to a watch has ended, as it does after its time."""


class _OneWatch(httpx2.AsyncBaseTransport):
    """Sends one watch, with bookmarks, which lightkube cannot ask for.

    lightkube watches again at once when an answer ends: then this says so instead, and whoever
    watches decides when to go on.
    """

    def __init__(self, below: httpx2.AsyncHTTPTransport, on_answer: Callable[[], None]) -> None:
        self._below, self._on_answer, self._was_answered = below, on_answer, False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._was_answered:
            raise WatchEnded("the watch has ended")
        request.url = request.url.copy_merge_params({"allowWatchBookmarks": "true"})
        response = await self._below.handle_async_request(request)
        # Else it is the token that is read anew: see lightkube's BearerTokenFileAuth.
        self._was_answered = response.status_code != httpx2.codes.UNAUTHORIZED
        if response.is_success:
            self._on_answer()
        return response

    async def aclose(self) -> None:
        await self._below.aclose()


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Have whatever keeps the API server from answering be `KubernetesUnavailable`.

    Args:
        what: Was to be done, for the message.
    """
    try:
        yield
    except ApiError as error:
        code = error.status.code or 0
        raise _unavailable(what, f"{error.status.message}", code) from error
    except httpx2.HTTPStatusError as error:
        code = error.response.status_code
        raise _unavailable(what, f"it answers {code}", code) from error
    except TimeoutError as error:
        raise _unavailable(what, "no answer in time") from error
    # An error that tells no content type is a KeyError in lightkube; the rest is no JSON.
    except (httpx2.HTTPError, OSError, ConfigError, msgspec.MsgspecError, ValueError) as error:
        raise _unavailable(what, _shown(error)) from error
    except KeyError as error:
        raise _unavailable(what, "it answers with an error that says nothing") from error


def _unavailable(what: str, why: str, code: int = 0) -> KubernetesUnavailable:
    unavailable = KubernetesUnavailable(f"Kubernetes' API server: cannot {what}: {why}")
    unavailable.status = code
    unavailable.is_refused = code in _REFUSED
    return unavailable


def _shown(error: BaseException) -> str:
    return str(error) or type(error).__name__
