"""A judge behind an OpenAI-compatible endpoint: OpenAI, vLLM, llama.cpp, Ollama and many more."""

import contextlib
import os
import random
import threading
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from unimm.judges.answers import UnreadableAnswer
from unimm.judges.cache import ReplyCache
from unimm.judges.judge import Failure, JudgeConfig, Reply
from unimm.judges.query import Query
from unimm.judges.transport import CallError, post_json


@dataclass(frozen=True, kw_only=True)
class HttpJudgeConfig(JudgeConfig):
    """A judge that is asked over HTTP.

    Attributes:
        base_url: address before ``/chat/completions``.
        model: name of the model there.
        api_key_env: environment variable that holds the key; empty sends none. The key itself is
            never written anywhere.
        cache: file of the replies; what stands there is not asked again.
        temperature: of the judge's sampling; None leaves it to the server (some models refuse it).
        max_tokens: of a reply; one that is cut off is a failure, not a verdict.
        token_limit_name: what the server calls that limit.
        concurrency: queries asked at once.
        timeout: seconds of one call.
        num_retries: calls repeated after a passing failure.
        first_wait: seconds before the first repetition, then twice as long each time.
        max_wait: longest wait in seconds; a server that asks for more is not waited for.
        num_reminders: how often a judge that broke the form is reminded of it.
    """

    name: ClassVar[str] = "http"

    base_url: str = "http://127.0.0.1:8000/v1"
    model: str = ""
    api_key_env: str = "OPENAI_API_KEY"
    cache: str = "runs/judge_replies.jsonl"
    temperature: float | None = 0.0
    max_tokens: int = 300
    token_limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    concurrency: int = 8
    timeout: float = 60.0
    num_retries: int = 5
    first_wait: float = 1.0
    max_wait: float = 60.0
    num_reminders: int = 2

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.netloc:
            raise ValueError(f"base_url {self.base_url!r} must start with http:// or https://")
        if url.username or url.password or url.query:
            # It stands in summaries: what is secret must not.
            raise ValueError(
                f"base_url of {url.hostname} holds a user, a password or a query; "
                "put the key into the environment variable that 'api_key_env' names"
            )
        if url.path.rstrip("/").endswith("/completions"):
            raise ValueError(f"base_url {self.base_url!r} must end before /chat/completions")
        limits = {"concurrency": 1, "timeout": 1e-3, "num_retries": 0, "num_reminders": 0}
        for name, least in (limits | {"max_tokens": 1, "first_wait": 0, "max_wait": 0}).items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; give {least:g} or more")

    def build(self) -> "HttpJudge":
        """Make the judge; the key is read from the environment here."""
        return HttpJudge(self)


class HttpJudge:
    """Asks an OpenAI-compatible endpoint; safe among threads.

    Args:
        config: where and how.

    Raises:
        ValueError: no model is named, or the key is not in the environment.
    """

    def __init__(self, config: HttpJudgeConfig) -> None:
        if not config.model:
            raise ValueError("the http judge needs a 'model': the name its server knows it by")
        self.config = config
        self.cache = ReplyCache(config.cache)
        self._key = _read_key(config.api_key_env)
        self._url = config.base_url.rstrip("/") + "/chat/completions"
        self._pause = _Pause()
        self._random = random.Random()

    @property
    def name(self) -> str:
        """All that changes its answers; replies of another name are not reused."""
        c = self.config
        return f"{c.model} at {c.base_url}, temperature {c.temperature}, {c.max_tokens} tokens"

    @property
    def concurrency(self) -> int:
        """Queries asked at once."""
        return self.config.concurrency

    def ask(self, query: Query) -> Reply:
        """Answer from the cache, else from the server, reminding it of the form if need be.

        Raises:
            JudgeError: wrong key, wrong address.
            PictureError: a picture cannot be read.
        """
        key = query.key()
        recorded = self.cache.get(self.name, key)
        if recorded is not None:
            with contextlib.suppress(UnreadableAnswer):  # read by an older, laxer release
                return Reply(answer=query.form.read(recorded), text=recorded, is_cached=True)
        messages = query.messages()
        failure, text = Failure("unreadable", ""), None
        for _ in range(self.config.num_reminders + 1):
            try:
                text = self._complete(messages)
                answer = query.form.read(text)
            except CallError as error:
                return Reply(failure=Failure(error.kind, str(error)), text=text)
            except UnreadableAnswer as error:
                failure = Failure("unreadable", str(error))
                messages = [
                    *messages,
                    {"role": "assistant", "content": text},
                    {"role": "user", "content": query.form.rule},
                ]
                continue
            self.cache.put(self.name, query, key, text)
            return Reply(answer=answer, text=text)
        return Reply(failure=failure, text=text)

    def _complete(self, messages: list[dict[str, Any]]) -> str:
        """The words of one reply, after as many calls as it takes."""
        config = self.config
        body: dict[str, Any] = {
            "model": config.model,
            "messages": messages,
            config.token_limit_name: config.max_tokens,
        }
        if config.temperature is not None:
            body["temperature"] = config.temperature
        for attempt in range(config.num_retries + 1):
            self._pause.wait()
            try:
                reply = post_json(self._url, body, key=self._key, timeout=config.timeout)
                return read_completion(reply)
            except CallError as error:
                wait = self._wait(error, attempt)
                if not error.is_passing or attempt == config.num_retries or wait is None:
                    raise
                if error.retry_after is None:
                    time.sleep(wait)
                else:  # the server is busy for all of us
                    self._pause.hold(wait)
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, error: CallError, attempt: int) -> float | None:
        """Seconds until the next attempt; None if the server wants more than we have."""
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= self.config.max_wait else None
        spread = self._random.uniform(0.5, 1.0)  # so that threads do not all come back at once
        return min(self.config.first_wait * 2**attempt, self.config.max_wait) * spread


def read_completion(reply: Any) -> str:
    """The text of a chat completion.

    Raises:
        CallError: it is none, the judge refused, or its words were cut off.
    """
    try:
        choice = reply["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        content, refusal = message.get("content"), message.get("refusal")
        if isinstance(content, list):  # some servers send parts
            content = "".join(part["text"] for part in content if part["type"] == "text")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        detail = f"no chat completion ({type(error).__name__} {error}): {str(reply)[:200]!r}"
        raise CallError("malformed", detail, is_passing=True) from None
    if refusal or finish == "content_filter":
        raise CallError("refused", f"the judge refused: {refusal or finish}", is_passing=False)
    if finish == "length":
        detail = f"the reply was cut off at max_tokens: ...{str(content)[-60:]!r}"
        raise CallError("cut off", detail, is_passing=False)
    if not isinstance(content, str) or not content.strip():
        raise CallError("malformed", f"the reply's content is {content!r}", is_passing=True)
    return content


class _Pause:
    """When the server next wants to hear from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0

    def hold(self, seconds: float) -> None:
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def wait(self) -> None:
        while (left := self._until - time.monotonic()) > 0:
            time.sleep(left)


def _read_key(variable: str) -> str:
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(
            f"the environment variable {variable} is not set; put the key there, name another one "
            "with 'api_key_env', or make 'api_key_env' empty for a server that wants none"
        )
    if not key.isascii() or not key.isprintable():
        raise ValueError(f"the key in {variable} holds characters that no key has; copy it again")
    return key
