"""A headless Chromium that is started for one page and told what to do over a pipe.

``--remote-debugging-pipe`` speaks the Chrome DevTools Protocol (https://chromedevtools.github.io/devtools-protocol/)
on file descriptors 3 and 4, one JSON text per NUL byte: no port that others could reach, no WebSocket library, and the
browser ends when this process does, because the pipe closes. Unlike ``--dump-dom`` with ``--virtual-time-budget``,
the page's clocks tell the truth.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fl_mobile.errors import ConfigError

BROWSER_VARIABLE = "FL_MOBILE_CHROMIUM"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_START_SECONDS = 60
# Background services are switched off: they would call home, and no request may leave this computer.
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--password-store=basic",
    "--use-mock-keychain",
    "--remote-debugging-pipe",
)


class BrowserError(RuntimeError):
    """The browser ended, went silent, or its page threw: like any native runtime's error, callers translate it."""


def find_chromium() -> str | None:
    """Returns the program to start: ``$FL_MOBILE_CHROMIUM``, else the first known name on the path."""
    wanted = os.environ.get(BROWSER_VARIABLE)
    return shutil.which(wanted) if wanted else next(filter(None, map(shutil.which, _NAMES)), None)


def missing_chromium() -> str | None:
    """Returns why no browser can be started here and what to do, or None."""
    if find_chromium() is not None:
        return None
    wanted = os.environ.get(BROWSER_VARIABLE)
    if wanted:
        return f"{BROWSER_VARIABLE}={wanted} is not a program"
    return f"no Chromium on the path (Debian: apt-get install chromium), and {BROWSER_VARIABLE} names no other"


@dataclass
class Tab:
    """One page of a running browser. Not for two threads at once.

    Attributes:
        events: Protocol events in the order they came, e.g. ``Network.requestWillBeSent``.
    """

    process: subprocess.Popen[bytes]
    reads: int
    writes: int
    session: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    _buffer: bytes = b""
    _last_id: int = 0

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_seconds: float = 60
    ) -> dict[str, Any]:
        """Sends one command of the protocol and returns its result.

        Args:
            method: E.g. ``Page.navigate``.
            params: Its parameters.
            timeout_seconds: How long to wait for the answer.

        Raises:
            BrowserError: The browser refused it, ended, or did not answer in time.
        """
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": dict(params or {})}
        if self.session:
            message["sessionId"] = self.session
        try:
            _write_all(self.writes, json.dumps(message).encode() + b"\0")
        except OSError as error:
            raise BrowserError(f"the browser ended before {method} (code {self.process.poll()})") from error
        deadline = time.monotonic() + timeout_seconds
        while True:
            answer = self._next(deadline, method)
            if answer.get("id") == self._last_id:
                if "error" in answer:
                    raise BrowserError(f"the browser refuses {method}: {answer['error'].get('message')}")
                return dict(answer["result"])
            if "method" in answer:
                self.events.append(answer)
                if answer["method"] in ("Inspector.targetCrashed", "Target.targetCrashed"):
                    raise BrowserError(f"the page crashed during {method}")

    def evaluate(self, expression: str, timeout_seconds: float = 60) -> Any:
        """Returns the JSON value of a JavaScript expression in the page; promises are awaited.

        Raises:
            BrowserError: It threw, or as `call`.
        """
        # userGesture: scripts here stand for a person's clicks, and file dialogs and cameras open for those only.
        params = {"expression": expression, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = self.call("Runtime.evaluate", params, timeout_seconds=timeout_seconds)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details.get("text", "")
            raise BrowserError(f"the page threw: {str(text).splitlines()[0] if text else details}")
        return answer["result"].get("value")

    def wait_for(self, condition: str, timeout_seconds: float = 60) -> None:
        """Returns when the JavaScript expression ``condition`` has become true.

        Raises:
            BrowserError: It did not in time; the page's visible text is in the message.
        """
        waiting = f"""new Promise((done) => {{
          const end = performance.now() + {timeout_seconds * 1000};
          const look = () => ({condition}) ? done(true) : performance.now() > end ? done(false) : setTimeout(look, 20);
          look();
        }})"""
        if not self.evaluate(waiting, timeout_seconds + 10):
            shown = str(self.evaluate("document.body.innerText"))[:500]
            raise BrowserError(f"{condition} is still false after {timeout_seconds} s; the page shows: {shown}")

    def open(self, url: str) -> None:
        """Loads ``url`` and returns when the page and its scripts have been loaded.

        Raises:
            BrowserError: It could not be loaded.
        """
        seen = len(self.events)
        answer = self.call("Page.navigate", {"url": url})
        if answer.get("errorText"):
            raise BrowserError(f"{url}: {answer['errorText']}")
        deadline = time.monotonic() + _START_SECONDS
        while not any(event["method"] == "Page.loadEventFired" for event in self.events[seen:]):
            answer = self._next(deadline, url)
            if "method" in answer:
                self.events.append(answer)

    def _next(self, deadline: float, waiting_for: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self.reads], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise BrowserError(f"the browser did not answer {waiting_for} in time")
            data = os.read(self.reads, 2**20)
            if not data:
                raise BrowserError(f"the browser ended during {waiting_for} (code {self.process.poll()})")
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(text))


@contextlib.contextmanager
def open_tab(flags: Sequence[str] = ()) -> Iterator[Tab]:
    """Starts a browser with an empty profile and yields its only page; both are gone afterwards.

    Args:
        flags: More command-line switches.

    Raises:
        ConfigError: No browser is installed.
        BrowserError: It does not start.
    """
    program = find_chromium()
    if program is None:
        raise ConfigError(str(missing_chromium()))
    with tempfile.TemporaryDirectory(prefix="fl-mobile-browser-", ignore_cleanup_errors=True) as profile:
        tab = _start([program, *_FLAGS, *_root_flags(), *flags, f"--user-data-dir={profile}", "about:blank"])
        try:
            _attach(tab)
            yield tab
        finally:
            _stop(tab)


def _root_flags() -> tuple[str, ...]:
    """Chromium's sandbox does not work for root, as whom containers run; for anybody else it stays on."""
    return ("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()


def _start(command: Sequence[str]) -> Tab:
    browser_reads, writes = os.pipe()
    reads, browser_writes = os.pipe()
    # The protocol insists on descriptors 3 and 4; the shell puts them there, since Popen only passes numbers through.
    wiring = f'exec "$0" "$@" 3</dev/fd/{browser_reads} 4>/dev/fd/{browser_writes}'
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", wiring, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(browser_reads, browser_writes),
            start_new_session=True,  # Ctrl-C is for this program, which then closes the pipe
        )
    except BaseException:
        os.close(writes)
        os.close(reads)
        raise
    finally:
        os.close(browser_reads)
        os.close(browser_writes)
    return Tab(process, reads, writes)


def _attach(tab: Tab) -> None:
    targets = tab.call("Target.getTargets", timeout_seconds=_START_SECONDS)["targetInfos"]
    page = next(target for target in targets if target["type"] == "page")
    attached = tab.call("Target.attachToTarget", {"targetId": page["targetId"], "flatten": True})
    tab.session = attached["sessionId"]
    for domain in ("Page", "Inspector"):
        tab.call(f"{domain}.enable")


def _stop(tab: Tab) -> None:
    """Closing the pipe ends the browser; one that does not listen is killed with all its processes."""
    import signal

    os.close(tab.writes)
    try:
        tab.process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(tab.process.pid, signal.SIGKILL)
        tab.process.wait()
    os.close(tab.reads)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
