"""Requests to one hub, with its redirects: where they may lead, and who is shown the token.

Responsible for: following redirects by hand, to the hub itself and to the hosts that the volume
names, the token to the hub alone; Penstock's errors for what goes wrong.
Not responsible for: what is asked for (`hub`), attempts. Blocking, for threads.
"""

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import SplitResult, urljoin, urlsplit

from penstock.errors import (
    NotPermitted,
    ObjectNotFound,
    OriginUnavailable,
    PenstockError,
    Uncacheable,
)
from penstock.volumes import Volume
from penstock_node.origin.hub_answers import REDIRECTS, BadAnswer, FileFacts, file_facts
from penstock_node.origin.hub_http import (
    BODY_BYTES_MAX,
    Answer,
    HubHttp,
    LongBody,
    ShortBody,
    Timeouts,
)
from penstock_node.origin.interface import Kind, OriginLimits, describe, kind_of_status
from penstock_node.origin.outages import Unanswered
from penstock_node.origin.stores import matches, origin_host

HOPS_MAX = 5
USUAL_REDIRECT_HOSTS = ".huggingface.co,.hf.co"
"""Where the usual hub keeps its large files."""

_RETRIED = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_FAILURES = (OSError, http.client.HTTPException, ShortBody)


@dataclass(frozen=True, slots=True)
class Followed:
    """The last answer of a chain of redirects."""

    answer: Answer
    url: str
    """That gave it, of the hub or of another host."""
    facts: FileFacts
    """What the hub's own answers told."""
    is_elsewhere: bool
    """Whether another host gave it."""


class HubRequests:
    """Asks one volume's hub."""

    def __init__(self, volume: Volume, *, endpoint: str, token: str, limits: OriginLimits) -> None:
        self._volume = volume
        self._endpoint = endpoint
        self._token = token
        self._host = origin_host(volume)
        options = volume.origin_options
        usual = "" if volume.endpoint else USUAL_REDIRECT_HOSTS
        named = options.store.get("redirect_hosts", usual).lower().split(",")
        self._redirect_hosts = [host for each in named if (host := each.strip())]
        self._allows_http = options.client.get("allow_http") == "true"
        self._http = HubHttp(_timeouts(volume, limits))

    def ask(
        self, method: str, url: str, path: str, *, headers: Mapping[str, str] | None = None
    ) -> Followed:
        """Return the answer that a request to the hub leads to.

        A ``HEAD`` ends where a redirect leaves the hub: all that is asked for is told by then.

        Raises:
            NotPermitted: The hub refuses us, or leads to a host that is not named.
            ObjectNotFound: The hub has not what is asked for.
            Uncacheable: More came than was asked for.
            Unanswered: Another attempt may help.
        """
        facts, wanted = FileFacts(), dict(headers or {})
        for hop in range(HOPS_MAX):
            is_elsewhere = not self.is_hub(url)
            answer = self._attempt(method, url, path, wanted, is_elsewhere=is_elsewhere)
            if not is_elsewhere:
                facts = facts.or_else(file_facts(answer.status, answer.headers))
            if hop and _has_moved(answer):
                moved = "the revision has just moved"
                raise self._unanswered(path, moved, of_object=True, kind="other")
            if answer.status not in REDIRECTS:
                self._check(answer, path, is_elsewhere=is_elsewhere)
                return Followed(answer, url, facts, is_elsewhere)
            url = self._next(url, answer, path)
            if method == "HEAD" and not self.is_hub(url):
                return Followed(answer, url, facts, is_elsewhere)
        raise OriginUnavailable(f"{self._what(path)}: {self._host} redirects in circles")

    def ask_elsewhere(self, url: str, path: str, headers: Mapping[str, str]) -> Answer | None:
        """Return the bytes of where the hub led to before; None if that is over by now."""
        answer = self._attempt("GET", url, path, headers, is_elsewhere=True)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in _RETRIED:
            self._check(answer, path, is_elsewhere=True)
        is_good = HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES
        return answer if is_good else None

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def is_hub(self, url: str) -> bool:
        """Tell whether a url is the hub's own: the token is for these alone."""
        hub = urlsplit(self._endpoint)
        try:
            asked = urlsplit(url)
        except ValueError:
            return False
        return (hub.scheme, hub.netloc) == (asked.scheme, asked.netloc.lower())

    def _attempt(
        self,
        method: str,
        url: str,
        path: str,
        headers: Mapping[str, str],
        *,
        is_elsewhere: bool,
    ) -> Answer:
        sent = {"User-Agent": "penstock", "Accept-Encoding": "identity", **headers}
        if self._token and not is_elsewhere:
            sent["Authorization"] = f"Bearer {self._token}"
        try:
            return self._http.ask(method, url, sent, body_bytes_max=_body_bytes_max(headers))
        except LongBody as error:
            raise Uncacheable(
                f"{self._what(path)}: {error}: no ranges are answered there; cached reads need them"
            ) from None
        except _FAILURES as error:
            # Not chained: urls of other hosts are signed.
            raise self._unanswered(
                path,
                _reason_of(error),
                of_object=isinstance(error, ShortBody),
                kind=_kind_of(error),
            ) from None

    def _next(self, url: str, answer: Answer, path: str) -> str:
        """Return where a redirect leads to, if that may be asked."""
        found, parts = _joined(url, answer.headers.get("location", ""))
        host = parts.netloc.lower()
        if parts.scheme not in ("https", "http") or not parts.hostname or "@" in host:
            raise OriginUnavailable(f"{self._what(path)}: {self._host} redirects to nowhere")
        if self.is_hub(found):
            return found
        if not any(matches(host, allowed) for allowed in self._redirect_hosts):
            raise NotPermitted(
                f"{self._what(path)}: {self._host} sends us to {host}, which the volume does not "
                f"name; if it should be read there, add it to the volume's option redirect_hosts"
            )
        if parts.scheme == "http" and not self._allows_http:
            raise NotPermitted(
                f"{self._what(path)}: {self._host} sends us to {host} by plain http; set the "
                "volume's option allow_http = true if that is right"
            )
        return found

    def _check(self, answer: Answer, path: str, *, is_elsewhere: bool) -> None:
        status = answer.status
        if status < HTTPStatus.BAD_REQUEST or status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _RETRIED:
            kind = kind_of_status(status)
            raise self._unanswered(path, f"it answers {status}", of_object=True, kind=kind)
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise self._refused(path, status)
        if status == HTTPStatus.NOT_FOUND:
            raise ObjectNotFound(f"{self._what(path)}: {_missing(answer)}")
        raise OriginUnavailable(f"{self._what(path)}: {self._host} answers {status}")

    def _refused(self, path: str, status: int) -> NotPermitted:
        """Hubs answer 401 for what is not there too, to who may not know."""
        check = (
            f"look whether the token in [secrets.{self._volume.secret}] of this node may read it, "
            "and whether its owner has accepted the model's terms"
            if self._volume.secret
            else "the volume names no secret: if the model is private or gated, put a token that "
            "may read it into [secrets.NAME] of each node as `token`, and name that as the "
            "volume's secret"
        )
        return NotPermitted(
            f"{self._what(path)}: {self._host} refuses volume {self._volume.name!r} ({status}): "
            f"the model is private, gated, or not there; {check}"
        )

    def _unanswered(self, path: str, reason: str, *, of_object: bool, kind: Kind) -> Unanswered:
        error = OriginUnavailable(
            f"{self._what(path)}: volume {self._volume.name!r}: {self._host}: {reason}"
        )
        return Unanswered(error, reason, of_object=of_object, kind=kind)

    def bad_answer(self, path: str, error: BadAnswer) -> PenstockError:
        """Return what is told of an answer that no hub gives."""
        return OriginUnavailable(
            f"{self._what(path)}: {self._host} does not answer as a hub: {error}; check the "
            "volume's endpoint"
        )

    def _what(self, path: str) -> str:
        return describe(self._volume, path)


def _body_bytes_max(headers: Mapping[str, str]) -> int:
    first, _, last = headers.get("Range", "").removeprefix("bytes=").partition("-")
    # What an error says is longer than some ranges.
    return max(64 * 1024, int(last) + 1 - int(first)) if last else BODY_BYTES_MAX


def _has_moved(answer: Answer) -> bool:
    """Tell whether there is no such commit, of an answer to where a branch led a moment ago."""
    is_missing = answer.status == HTTPStatus.NOT_FOUND
    return is_missing and answer.headers.get("x-error-code") == "RevisionNotFound"


def _missing(answer: Answer) -> str:
    match answer.headers.get("x-error-code"):
        case "RepoNotFound":
            return "the hub has no such model, or not for this token"
        case "RevisionNotFound":
            return "the model has no such revision"
    return "the model has no such file at this revision"


def _kind_of(error: Exception) -> Kind:
    if isinstance(error, ShortBody):
        return "short"
    return "timeout" if isinstance(error, TimeoutError) else "connection"


def _reason_of(error: Exception) -> str:
    """Return why a request had no answer, in a few words that name no object."""
    if isinstance(error, ShortBody):
        return str(error)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {error.verify_message}"
    if isinstance(error, OSError):
        return f"no connection: {error.strerror or type(error).__name__}"
    return f"no HTTP answer: {type(error).__name__}"


def _timeouts(volume: Volume, limits: OriginLimits) -> Timeouts:
    given = volume.origin_options.client

    def seconds(name: str, usual_s: float) -> float:
        return float(given[name].removesuffix("ms")) / 1000 if name in given else usual_s

    return Timeouts(
        connect_s=seconds("connect_timeout", limits.connect_timeout_s),
        silence_s=seconds("read_timeout", limits.silence_timeout_s),
        request_s=seconds("timeout", limits.request_timeout_s),
    )


def _joined(url: str, location: str) -> tuple[str, SplitResult]:
    """Return where a redirect leads to, and its parts: empty ones where that is no url."""
    try:
        found = urljoin(url, location)
        parts = urlsplit(found)
        if parts.port is None or parts.port > 0:
            return found, parts
    except ValueError:
        pass
    return "", urlsplit("")
