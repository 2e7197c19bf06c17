"""HTTP with ranges: retries with back-off, proxies, a count of the bytes, and no silent surprises."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from random import uniform
from urllib.parse import urljoin, urlsplit

import requests

from core.addresses import Login, split_credentials, without_credentials
from core.closing import Closing
from core.data.remote.words import ChangedArchiveError, NotThereError, OfflineError, ServerError
from core.plural import counted

CHUNK = 1 << 16
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes after which the same request may well succeed a little later."""
Note = Callable[[str], None]


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server.

    Attributes
    ----------
    url : its address, without user and password
    size : its length in bytes; None where the server does not say and does not serve ranges
    etag : the server's mark of this version of the file, if it gives one
    ranges : whether the server sends parts of it
    login : user and password for the server
    """

    url: str
    size: int | None
    etag: str | None
    ranges: bool
    login: Login | None = field(default=None, repr=False, compare=False)


class Cancelled(Exception):
    """The transfer was stopped from outside."""


class _Later(Exception):
    """An attempt failed in a way that passes; ``after`` is how long the server wants us to wait [s]."""

    def __init__(self, reason: str, *, after: float | None = None, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.after = after
        self.unreachable = unreachable


class _Session(requests.Session):
    """A session that leaves redirects to its user; requests would read their bodies, however long."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None

    def leads_to(self, response: requests.Response) -> str | None:
        """Where a redirect leads; None for any other answer."""
        return super().get_redirect_target(response)


class Client(Closing):
    """Asks servers for files and parts of files; for use by several threads at once.

    Parameters
    ----------
    proxy : address of a proxy; by default what the environment says (HTTPS_PROXY, HTTP_PROXY, NO_PROXY)
    timeout : how long to wait for a connection and for the next bytes [s]
    attempts : how often a request is sent in a row without a single new byte before it is given up
    pause : the first wait between attempts [s]; it doubles from attempt to attempt
    longest_wait : what a server may ask for at most with Retry-After [s]; beyond it the transfer ends
    """

    def __init__(
        self,
        *,
        proxy: str | None = None,
        timeout: float = 30.0,
        attempts: int = 8,
        pause: float = 1.0,
        longest_wait: float = 600.0,
    ) -> None:
        self._proxies = None if proxy is None else {"http": proxy, "https": proxy}
        self._timeout = timeout
        self._attempts = attempts
        self._pause = pause
        self._longest_wait = longest_wait
        self._lock = threading.Lock()
        self._transferred = 0
        self._not_before = 0.0
        self._own = threading.local()
        self._sessions: list[_Session] = []

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for session in self._sessions:
                session.close()
            self._sessions.clear()
            self._own = threading.local()

    @property
    def transferred(self) -> int:
        """Bytes received so far in the bodies of all answers, those that had to be thrown away included."""
        return self._transferred

    def look(self, url: str, *, note: Note | None = None) -> RemoteFile:
        """Length, ETag and whether parts can be had, for at most four bytes.

        ``url`` may hold a user and a password, which no error repeats. Raises OfflineError, NotThereError or
        ServerError.
        """
        try:
            url, login = split_credentials(url)
        except ValueError as error:
            raise ServerError(f"{without_credentials(url)} is no address to fetch from.") from error

        def attempt() -> RemoteFile:
            with self._get(url, {"Range": "bytes=0-3"}, login) as response:
                etag = response.headers.get("ETag")
                if response.status_code == 206:
                    start, stop, size = _content_range(response, url)
                    if (start, stop) != (0, 4):
                        raise ServerError(f"{url}: asked for the first 4 bytes, the server sent others.")
                    # No more of it is read than was asked for, whatever is sent.
                    self._count(len(next(response.iter_content(4), b"")))
                    return RemoteFile(url, size, etag, ranges=True, login=login)
                length = _number(response.headers.get("Content-Length"))
                return RemoteFile(url, length, etag, ranges=False, login=login)

        return self._persist(attempt, url, note=note)

    def read(self, remote: RemoteFile, start: int, stop: int, *, note: Note | None = None) -> bytes:
        """The bytes from ``start`` up to ``stop``; for errors see :meth:`chunks`."""
        return b"".join(self.chunks(remote, start, stop, note=note))

    def chunks(
        self,
        remote: RemoteFile,
        start: int,
        stop: int,
        *,
        cancelled: threading.Event | None = None,
        note: Note | None = None,
    ) -> Iterator[bytes]:
        """The bytes from ``start`` up to ``stop``, in order; after a cut it goes on where it was.

        ``note`` is told why and how long it waits; ``cancelled`` ends it with Cancelled. Raises
        ChangedArchiveError where length or ETag are no longer those of ``remote``, ServerError where the
        answer is not what was asked for, OfflineError where the server can't be reached (any more).
        """
        failures = 0
        while start < stop:
            try:
                self._wait(cancelled)
                for chunk in self._range(remote, start, stop):
                    if cancelled is not None and cancelled.is_set():
                        raise Cancelled
                    start += len(chunk)
                    failures = 0
                    yield chunk
            except _Later as later:
                failures += 1
                self._put_off(later, failures, remote.url, note, cancelled)

    def whole(
        self,
        remote: RemoteFile,
        most: int,
        *,
        cancelled: threading.Event | None = None,
        note: Note | None = None,
    ) -> Iterator[bytes | None]:
        """All bytes of a file whose server sends no parts; None where it has to begin anew.

        Raises as :meth:`chunks`; ServerError where the length is not what was announced, or where more than
        ``most`` bytes come of a file whose length was not.
        """
        most = most if remote.size is None else remote.size
        failures = 0
        while True:
            try:
                self._wait(cancelled)
                received = 0
                with self._get(remote.url, {}, remote.login) as response:
                    if response.status_code != 200:
                        raise ServerError(_unexpected(response, remote.url))
                    for chunk in self._body(response):
                        if cancelled is not None and cancelled.is_set():
                            raise Cancelled
                        received += len(chunk)
                        if received > most:
                            raise ServerError(
                                f"{remote.url}: more bytes came than the {most} "
                                f"{'awaited at most' if remote.size is None else 'announced'}."
                            )
                        yield chunk
                if remote.size is not None and received != remote.size:
                    raise ServerError(
                        f"{remote.url}: {received} bytes came instead of the {remote.size} announced."
                    )
                return
            except _Later as later:
                failures += 1
                self._put_off(later, failures, remote.url, note, cancelled)
                yield None

    def _range(self, remote: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        if remote.etag and not remote.etag.startswith("W/"):
            headers["If-Range"] = remote.etag
        with self._get(remote.url, headers, remote.login) as response:
            if response.status_code == 416:
                raise ChangedArchiveError(_changed(remote, "it is shorter than before"))
            etag = response.headers.get("ETag")
            if remote.etag and etag and etag != remote.etag:
                raise ChangedArchiveError(_changed(remote, f"its ETag was {remote.etag} and is {etag}"))
            if response.status_code != 206:
                length = _number(response.headers.get("Content-Length"))
                if response.status_code == 200 and length not in (None, remote.size):
                    raise ChangedArchiveError(
                        _changed(remote, f"it had {remote.size} bytes and has {length}")
                    )
                raise ServerError(_unexpected(response, remote.url))
            first, end, size = _content_range(response, remote.url)
            if size != remote.size:
                raise ChangedArchiveError(_changed(remote, f"it had {remote.size} bytes and has {size}"))
            expected = stop - start
            said = response.headers.get("Content-Length", str(expected))
            if (first, end) != (start, stop) or said != str(expected):
                raise ServerError(
                    f"{remote.url}: asked for bytes {start} to {stop - 1}, the server answered with "
                    f"{response.headers['Content-Range']!r} and a length of {said}."
                )
            received = 0
            for chunk in self._body(response):
                received += len(chunk)
                if received > expected:
                    raise ServerError(f"{remote.url}: more bytes came than the {expected} asked for.")
                yield chunk
            if received < expected:
                raise _Later("the connection was cut")

    def _body(self, response: requests.Response) -> Iterator[bytes]:
        try:
            for chunk in response.iter_content(CHUNK):
                self._count(len(chunk))
                yield chunk
        except requests.RequestException as error:
            raise _Later("the connection was cut") from error

    @contextmanager
    def _get(self, url: str, headers: dict[str, str], login: Login | None) -> Iterator[requests.Response]:
        """An answer, its body not yet read; faults that pass are _Later."""
        try:
            response = self._follow(url, headers, login)
        except requests.exceptions.SSLError as error:
            raise ServerError(
                f"{_host(url)} could not prove who it is ({_cause(error)}). Behind a proxy that inspects "
                "traffic, set REQUESTS_CA_BUNDLE to the file with its certificates."
            ) from error
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            reason = without_credentials(str(error))
            raise ServerError(f"{url} is no address to fetch from: {reason}.") from error
        except requests.exceptions.TooManyRedirects as error:
            raise ServerError(f"{url} leads from one address to the next without end.") from error
        except requests.exceptions.ProxyError as error:
            raise _Later(f"the proxy does not answer ({_cause(error)})", unreachable=True) from error
        except requests.exceptions.Timeout as error:
            raise _Later(f"{_host(url)} did not answer in time", unreachable=True) from error
        except requests.RequestException as error:
            raise _Later(f"{_host(url)} can't be reached ({_cause(error)})", unreachable=True) from error
        with response:
            self._check(response, url)
            yield response

    def _follow(self, url: str, headers: dict[str, str], login: Login | None) -> requests.Response:
        """The answer at the end of all redirects; the bodies of these are not read, as requests would.

        User and password are sent to no other server than the one they are for.
        """
        session, address, same = self._session(), url, True
        for _ in range(session.max_redirects):
            response = session.get(
                address,
                # Compressed on the way, the bytes would be others than those of the archive.
                headers={"Accept-Encoding": "identity", **headers},
                stream=True,
                timeout=self._timeout,
                proxies=self._proxies,
                auth=None if login is None or not same else requests.auth.HTTPBasicAuth(*login),
            )
            target = session.leads_to(response)
            if target is None:
                return response
            response.close()
            try:
                address = urljoin(address, target)
                same = not session.should_strip_auth(url, address)
            except ValueError as error:
                raise ServerError(
                    f"{url} leads to {without_credentials(target)}, which is no address to fetch from."
                ) from error
            if urlsplit(url).scheme == "https" and urlsplit(address).scheme != "https":
                raise ServerError(
                    f"{url} leads to {without_credentials(address)}, which is not encrypted; it is not "
                    "followed."
                )
        raise requests.exceptions.TooManyRedirects

    def _check(self, response: requests.Response, url: str) -> None:
        status = response.status_code
        if status in PASSING:
            raise _Later(
                f"{_host(url)} answered {status} {response.reason}", after=_retry_after(response.headers)
            )
        if status in (404, 410):
            raise NotThereError(f"The server has no {url} ({status}).")
        if status not in (200, 206, 416):
            raise ServerError(_unexpected(response, url))
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise ServerError(f"{url} came compressed as {encoding}, though it was asked for as it is.")

    def _persist(self, attempt: Callable[[], RemoteFile], url: str, *, note: Note | None) -> RemoteFile:
        failures = 0
        while True:
            try:
                self._wait(None)
                return attempt()
            except _Later as later:
                failures += 1
                self._put_off(later, failures, url, note, None)
            except requests.RequestException as error:
                failures += 1
                self._put_off(_Later(f"the connection was cut ({_cause(error)})"), failures, url, note, None)

    def _put_off(
        self,
        later: _Later,
        failures: int,
        url: str,
        note: Note | None,
        cancelled: threading.Event | None,
    ) -> None:
        """Wait before the next attempt, or give up."""
        # Nobody there at the first call: more attempts would only delay the advice.
        most = min(3, self._attempts) if later.unreachable and not self._transferred else self._attempts
        if failures >= most:
            sentence = f"{later} ({counted(failures, 'attempt')})."
            if later.unreachable:
                raise OfflineError(sentence[0].upper() + sentence[1:]) from later
            raise ServerError(
                f"{url}: {sentence} What was fetched is kept; the same command goes on later."
            ) from later
        if later.after is not None and later.after > self._longest_wait:
            raise ServerError(
                f"{later}, and wants to be asked again in {later.after / 60:.0f} minutes. What was fetched "
                "is kept; the same command goes on then."
            ) from later
        seconds = min(60.0, self._pause * 2 ** (failures - 1)) * uniform(0.75, 1.25)
        if later.after is not None:
            seconds = max(seconds, later.after)
            # It is meant for all of us, not for the one thread that was told.
            with self._lock:
                self._not_before = max(self._not_before, time.monotonic() + seconds)
        if note is not None:
            note(f"{later}; the next attempt is in {seconds:.0f} s.")
        self._sleep(seconds, cancelled)

    def _wait(self, cancelled: threading.Event | None) -> None:
        seconds = self._not_before - time.monotonic()
        if seconds > 0:
            self._sleep(seconds, cancelled)
        if cancelled is not None and cancelled.is_set():
            raise Cancelled

    def _sleep(self, seconds: float, cancelled: threading.Event | None) -> None:
        if cancelled is None:
            time.sleep(seconds)
        elif cancelled.wait(seconds):
            raise Cancelled

    def _count(self, received: int) -> None:
        with self._lock:
            self._transferred += received

    def _session(self) -> _Session:
        session: _Session | None = getattr(self._own, "session", None)
        if session is None:
            session = _Session()
            session.headers["User-Agent"] = _user_agent()
            self._own.session = session
            with self._lock:
                self._sessions.append(session)
        return session


def _user_agent() -> str:
    """Servers of research data ask programs to say who they are."""
    try:
        return f"tramontana/{version('tramontana')} (fetches members of published zip archives)"
    except PackageNotFoundError:
        return "tramontana (fetches members of published zip archives)"


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _cause(error: BaseException) -> str:
    """The innermost reason of an error of requests, which wraps several others."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return without_credentials(str(error)).strip() or type(error).__name__


def _changed(remote: RemoteFile, how: str) -> str:
    return (
        f"The archive at {remote.url} changed while it was fetched: {how}. Run the command again with "
        "--restart."
    )


def _unexpected(response: requests.Response, url: str) -> str:
    asked = " to a request for a part of it" if response.status_code in (200, 304) else ""
    return f"{url}: the server answered {response.status_code} {response.reason}{asked}."


def _content_range(response: requests.Response, url: str) -> tuple[int, int, int]:
    """Start, stop (not included) and full length that an answer says it has."""
    text = response.headers.get("Content-Range", "")
    unit, _, rest = text.partition(" ")
    span, _, size = rest.partition("/")
    first, _, last = span.partition("-")
    start, end, length = _number(first), _number(last), _number(size)
    if unit != "bytes" or start is None or end is None or length is None:
        raise ServerError(f"{url}: the server sent a part without saying which ({text!r}).")
    return start, end + 1, length


def _number(text: str | None) -> int | None:
    """A whole number of a header; None for anything else, however many or strange its digits are."""
    return int(text) if text is not None and re.fullmatch("[0-9]{1,18}", text) else None


def _retry_after(headers: requests.structures.CaseInsensitiveDict[str]) -> float | None:
    """Seconds that a server asks to wait, given as a number, as a date, or as the end of its count."""
    text = headers.get("Retry-After", "").strip()
    if (seconds := _number(text)) is not None:
        return float(seconds)
    reset = _number(headers.get("X-RateLimit-Reset", "").strip())
    if not text and reset is not None:
        return max(0.0, reset - time.time())
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
