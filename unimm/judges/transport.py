"""One POST of JSON to a judge's server, and what can go wrong with it, told apart.

The standard library only. A key travels in a header and is taken out of every message: servers like
to repeat it in their error pages.
"""

import email.utils
import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from unimm.judges.judge import JudgeError

MAX_BYTES = 8 << 20  # a verdict is a few hundred; more is a server gone mad
STOPPING = {
    401: "the key is missing or wrong; set the environment variable that 'api_key_env' names",
    402: "the account has no credit",
    403: "this key may not use this model",
    404: "no such address or model; 'base_url' ends before /chat/completions, often with /v1",
    405: "this address takes no queries; 'base_url' ends before /chat/completions",
}
PASSING = (408, 409, 425, 429)


class CallError(Exception):
    """A call that brought no reply.

    Attributes:
        kind: what is counted.
        is_passing: whether asking again may help.
        retry_after: seconds that the server asked to wait.
    """

    def __init__(
        self, kind: str, detail: str, *, is_passing: bool, retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.is_passing = is_passing
        self.retry_after = retry_after


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: it would carry the key to another server."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def post_json(url: str, body: Mapping[str, Any], *, key: str = "", timeout: float) -> Any:
    """Send JSON and return the JSON that comes back.

    Args:
        url: address.
        body: what is sent.
        key: bearer token; empty sends none.
        timeout: seconds for all of it, however slowly the reply drips.

    Raises:
        CallError: no reply, or none that is JSON.
        JudgeError: no call of this kind can succeed.
    """
    # Some gateways refuse Python's own name.
    headers = {"Content-Type": "application/json", "User-Agent": "unimm"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    deadline = time.monotonic() + timeout
    try:
        with _OPENER.open(request, timeout=timeout) as response:
            raw = _read(response, deadline, key)
            content_type = response.headers.get("Content-Type", "application/json")
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(error, deadline, key) from None
    except (OSError, http.client.HTTPException) as error:
        raise _broken(error, url, timeout) from None
    try:
        if "json" not in content_type:
            raise ValueError(f"content type {content_type}")
        return json.loads(raw)
    except ValueError as error:
        detail = f"not JSON ({error}): {_excerpt(raw)}"
        raise CallError("malformed", detail, is_passing=True) from None


def _read(response: http.client.HTTPResponse, deadline: float, key: str) -> bytes:
    """The body, without the key if the server repeats it."""
    chunks: list[bytes] = []
    size = 0
    while chunk := response.read1(1 << 16):
        chunks.append(chunk)
        size += len(chunk)
        if time.monotonic() > deadline:
            raise TimeoutError("the reply drips too slowly")
        if size > MAX_BYTES:
            raise CallError(
                "malformed", f"the reply is longer than {MAX_BYTES} bytes", is_passing=False
            )
    if response.length:  # bytes that were promised and never came
        raise http.client.IncompleteRead(b"", response.length)
    body = b"".join(chunks)
    return body.replace(key.encode(), b"[key]") if key else body


def _refused(error: urllib.error.HTTPError, deadline: float, key: str) -> CallError | JudgeError:
    """Say what an HTTP status means for this query, and for the run."""
    try:
        # HTTPError wraps the response that the body is still to be read from.
        raw = _read(error.fp, deadline, key)  # pyright: ignore[reportArgumentType]
    except (OSError, http.client.HTTPException):
        raw = b""
    said = f"HTTP {error.code} {error.reason}: {_excerpt(raw)}"
    if 300 <= error.code < 400:
        target = error.headers.get("Location", "nowhere")
        return JudgeError(f"{said}; it points to {target}: put the final address in 'base_url'")
    if error.code in STOPPING:
        return JudgeError(f"{said}; {STOPPING[error.code]}")
    if error.code == 429 and b"insufficient_quota" in raw:
        return JudgeError(f"{said}; {STOPPING[402]}")
    if error.code in PASSING or error.code >= 500:
        kind = "rate limit" if error.code == 429 else "server error"
        wait = _seconds(error.headers.get("Retry-After"))
        return CallError(kind, said, is_passing=True, retry_after=wait)
    return CallError("rejected", said, is_passing=False)


def _broken(error: Exception, url: str, timeout: float) -> CallError | JudgeError:
    """Say what a connection that failed means."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return JudgeError(f"{url}: {cause}; its certificate is not trusted")
    if isinstance(cause, TimeoutError):
        detail = f"no whole reply within {timeout:g} s"
        return CallError("timeout", detail, is_passing=True)
    if isinstance(cause, http.client.IncompleteRead):
        return CallError("malformed", "the body ends before its length", is_passing=True)
    detail = f"{url}: {type(cause).__name__} {cause}"
    return CallError("connection", detail, is_passing=True)


def _seconds(header: str | None) -> float | None:
    """``Retry-After``: seconds, or a date (RFC 9110, 10.2.3)."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, date.timestamp() - time.time())


def _excerpt(raw: bytes, length: int = 200) -> str:
    """The start of a body for messages."""
    return repr(" ".join(raw.decode("utf-8", errors="replace").split())[:length])
