"""Requests to a server: JSON over HTTP with a time-out, retries and a bounded number of requests at once.

    connection = Connection("http://localhost:8000/v1", Limits())
    replies = connection.post_all("completions", bodies, Reply)      # in the order of `bodies`

A request is made again after a status of a busy or failing server (`BUSY`, such as 429 and 503), after a refused, cut
or slow connection, and after a reply that is no JSON or says that a failure ended it: each time after twice the wait,
or after what the header Retry-After says. Other statuses than 200 are errors of the request.
The server's API key is read from the environment variable REPRO_ENGINE_KEY and is neither stored nor printed.
Redirects are not followed, so that the key goes to no other host.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from repro.core.reading import convert, parse_json

if TYPE_CHECKING:
    import requests

Reply = TypeVar("Reply")
KEY = "REPRO_ENGINE_KEY"
"""Environment variable that holds the API key. It has a name of this suite's own, so that the key of another service is
never sent to the server that a user names."""
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which a request is made again."""
FIRST_TRIES = 3
"""Tries of the request that asks whether a server is there."""
LONGEST_TIMEOUT = 1_000_000
"""Largest time-out in seconds, eleven days; sockets refuse numbers beyond their clock."""
MOST_AT_ONCE = 10_000
"""Largest number of requests at once; each has a thread and a connection."""
MOST_BYTES = 64 << 20
"""Largest reply in bytes: about a million log-probabilities."""
ENDED = frozenset({"abort", "error"})
"""Values of `finish_reason` of a text that a failure ended: vLLM and SGLang write "abort" when they are shut down
(_FINISHED_REASON_MAP of vllm-project/vllm@000a0d5 vllm/v1/request.py), OpenRouter "error" when the server behind it
failed."""
REMEDY = "check that the URL is an OpenAI-compatible server's, ending in /v1"


@dataclass(frozen=True)
class Limits:
    """How requests are made; no answer depends on it. `timeout`: a request is given up after so many seconds without a
    byte, or if its reply takes longer from first byte to last; `tries`: attempts before an error; `wait`: seconds
    before the second attempt, doubled before each further one up to `longest_wait`; `concurrency`: largest number of
    requests at once."""

    timeout: float = 120.0
    tries: int = 6
    wait: float = 0.5
    longest_wait: float = 60.0
    concurrency: int = 8

    def __post_init__(self) -> None:
        for name in ("timeout", "tries", "concurrency"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} is too small; give more than 0")
        for name, most in (("timeout", LONGEST_TIMEOUT), ("concurrency", MOST_AT_ONCE)):
            if getattr(self, name) > most:
                raise ValueError(f"{name}={getattr(self, name):g} is too large; give at most {most:,}")


class Refused(ValueError):
    """The server refused the request with a `status` after which it is not made again, such as 404; `said`: the reason
    that the server gave, on one line."""

    def __init__(self, url: str, status: int, said: str) -> None:
        super().__init__(f"{url} refused a request with status {status}: {said}")
        self.status, self.said = status, said


class _Again(Exception):
    """A request failed for a reason that may be temporary. `wait`: seconds that the server asks to wait (None: it does
    not say); `remedy`: what the user can do if the reason stays."""

    def __init__(
        self, reason: str, wait: float | None = None, remedy: str = "start the server, or raise --timeout"
    ) -> None:
        super().__init__(reason)
        self.wait, self.remedy = wait, remedy


def checked_url(url: str) -> str:
    """`url` without a slash at its end; ValueError unless it is an http(s) address without user, query and fragment."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a server; give for example http://localhost:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            f"the address has a user or password, which records would store; leave it out, and put an API key into the"
            f" environment variable {KEY}"
        )
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r} has a query or a fragment (? or #); leave it out")
    return url.rstrip("/")


@dataclass(eq=False)
class Connection:
    """Connections to the server at `url`, shared by threads. `limits`: time-out, retries and requests at once; `sleep`:
    function that waits a number of seconds."""

    url: str
    limits: Limits
    sleep: Callable[[float], None] = time.sleep
    _session: requests.Session = field(init=False, repr=False)

    def __post_init__(self) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self.url = checked_url(self.url)
        _key()
        self._session = requests.Session()
        adapter = HTTPAdapter(pool_maxsize=self.limits.concurrency)
        self._session.mount("http://", adapter), self._session.mount("https://", adapter)
        self._session.auth = _authorise  # otherwise requests would send what ~/.netrc has for the host

    def get(self, path: str, kind: type[Reply]) -> Reply:
        """The JSON reply of the server at `path`, converted to the type `kind`. Raises the errors of `post`, but gives
        up after at most 3 tries (`FIRST_TRIES`), so that a server that is not there is reported after two seconds."""
        return self._until_answered("GET", path, None, kind, min(FIRST_TRIES, self.limits.tries))

    def post(self, path: str, body: dict[str, Any], kind: type[Reply]) -> Reply:
        """The JSON reply to `body`, converted to the type `kind`.

        Raises Refused (a ValueError) for a status after which the request is not made again, ValueError for JSON of
        another form or a reply that is too large, and ConnectionError if all tries have failed.
        """
        return self._until_answered("POST", path, body, kind, self.limits.tries)

    def post_all(self, path: str, bodies: Sequence[dict[str, Any]], kind: type[Reply]) -> list[Reply]:
        """The replies to several bodies, in their order; at most `limits.concurrency` requests run at once. The first
        error ends the requests that have not begun."""
        return self.map(lambda body: self.post(path, body, kind), bodies)

    def map(self, ask: Callable[[dict[str, Any]], Reply], bodies: Sequence[dict[str, Any]]) -> list[Reply]:
        """`ask(body)` for each of `bodies`, in their order; at most `limits.concurrency` calls run at once. The first
        error ends the calls that have not begun."""
        with ThreadPoolExecutor(self.limits.concurrency) as pool:
            running = [pool.submit(ask, body) for body in bodies]
            try:
                return [each.result() for each in running]
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _until_answered(self, method: str, path: str, body: Any, kind: type[Reply], tries: int) -> Reply:
        wait = self.limits.wait
        for left in reversed(range(tries)):
            try:
                return convert(self._once(method, path, body), kind, f"{self.url}/{path}", REMEDY)
            except _Again as error:
                if not left:
                    tried = f"{tries} times" if tries > 1 else "once"
                    raise ConnectionError(
                        f"{self.url}/{path} was asked {tried} without an answer ({error}); {error.remedy}"
                    ) from error
                self.sleep(min(self.limits.longest_wait, max(wait, error.wait or 0.0)))
                wait *= 2
        raise AssertionError("unreachable: the last try returns or raises")

    def _once(self, method: str, path: str, body: Any) -> Any:
        """The JSON that the server answers to one request; raises _Again for a failure that may be temporary, Refused
        for any other status than 200."""
        import requests
        import urllib3

        url = f"{self.url}/{path}"
        try:
            asked = self._session.request(
                method, url, json=body, timeout=self.limits.timeout, allow_redirects=False, stream=True
            )
            with asked as reply:
                content = self._content(reply)
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise _Again(f"no reply for {self.limits.timeout:g} s") from None
        except (requests.ConnectionError, urllib3.exceptions.HTTPError) as error:
            raise _Again(f"no connection, {_cause(error)}") from None
        except requests.RequestException as error:
            raise ValueError(f"{url}: {_short(str(error), 200)}; {REMEDY}") from None
        if reply.status_code in BUSY:
            raise _Again(
                f"it replied with status {reply.status_code}, {_short(_text(content), 120)}",
                _retry_after(reply),
            )
        if reply.is_redirect:
            to = _short(reply.headers["Location"], 120)
            raise Refused(
                url, reply.status_code, f"it redirects to {to}, which is not followed; give that address"
            )
        if reply.status_code != 200:
            said = _short(_text(content), 300) or "an empty reply"
            raise Refused(url, reply.status_code, f"{said}; {REMEDY}" if method == "GET" else said)
        try:
            found = parse_json(content, Any, url, REMEDY, lenient=True)
        except ValueError as error:
            said = repr(_short(_text(content), 60)) if content else "(empty)"
            why = str(error).removeprefix(f"{url}: ").removesuffix(f"; {REMEDY}")
            raise _Again(f"its reply {said} is {_short(why, 100)}", remedy=REMEDY) from None
        _check_ended(url, found)
        return found

    def _content(self, reply: requests.Response) -> bytes:
        """The bytes of a reply. ValueError for more than 64 MiB (`MOST_BYTES`), _Again for a reply that takes longer
        than the time-out from its first byte to its last."""
        began, content = time.monotonic(), bytearray()
        while block := reply.raw.read1(1 << 16, decode_content=True):  # what has arrived, at once
            content += block
            if len(content) > MOST_BYTES:
                raise ValueError(f"{reply.url} sent more than {MOST_BYTES >> 20} MiB in one reply; {REMEDY}")
            if time.monotonic() - began > self.limits.timeout:
                raise _Again(f"its reply had not ended {self.limits.timeout:g} s after it began")
        return bytes(content)


def _check_ended(url: str, found: Any) -> None:
    """Raise _Again or Refused if `found`, the JSON of a reply of status 200, says that the request failed:
    `{"error": ...}` in place of an answer, as OpenRouter writes it, or a text that a failure ended (`ENDED`)."""
    if not isinstance(found, dict):
        return
    if found.get("error") and not found.get("choices"):
        code = found["error"].get("code") if isinstance(found["error"], dict) else None
        if isinstance(code, int) and code not in BUSY:
            raise Refused(url, code, _short(str(found["error"]), 300))
        raise _Again(f"it replied with an error, {_short(str(found['error']), 120)}")
    choices = found.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict) and choice.get("finish_reason") in ENDED:
            raise _Again(f"a failure ended its text, finish reason {choice['finish_reason']!r}")


def _key() -> str:
    """The API key; ValueError for a key with characters that no HTTP header can hold (the message does not show it)."""
    key = os.environ.get(KEY, "").strip()
    if not key.isascii() or not key.isprintable():
        raise ValueError(
            f"the API key in the environment variable {KEY} has characters that no key has (not printable ASCII); set"
            " the variable to the key again"
        )
    return key


def _authorise(request: requests.PreparedRequest) -> requests.PreparedRequest:
    if key := _key():
        request.headers["Authorization"] = f"Bearer {key}"
    return request


def _cause(error: BaseException) -> str:
    """Why a connection failed: that a reply was cut, or the message of the first error of the operating system among
    `error` and its causes, else the message of `error`."""
    import urllib3

    found: BaseException | None = error
    while found is not None:
        if isinstance(found, urllib3.exceptions.IncompleteRead):
            return "cut in the middle of a reply"
        if isinstance(found, OSError) and found.strerror:
            return found.strerror.lower()
        found = found.__cause__ or found.__context__
    return _short(str(error), 120)


def _retry_after(reply: requests.Response) -> float | None:
    """Seconds of the header Retry-After, a number or a date (RFC 9110, section 10.2.3); None without a valid one."""
    text = reply.headers.get("Retry-After", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - datetime.now(
            UTC
        ).timestamp()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _text(content: bytes) -> str:
    return content[:4096].decode("utf-8", "replace")


def _short(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."
