"""Which function answers a path: a few patterns in a table.

Starlette's router and middlewares cost a crowd of phones as much as their answers do; its requests and responses are
what we use of it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from fl_mobile.coordinator.limits import App, Message, Receive, Send

Handler = Callable[[Request], Awaitable[Response]]


def routed(table: Mapping[tuple[str, str], Handler], unknown: Callable[[Request, str], Awaitable[Response]]) -> App:
    """Returns the application that answers each path by its handler.

    Args:
        table: (path, method) → handler; ``{name}`` in a path is one segment, in the request's ``path_params``. What
            answers GET answers HEAD.
        unknown: (request, methods that the path has) → answer of all others; none if there is no such path.
    """
    paths: dict[str, dict[str, Handler]] = defaultdict(dict)
    for (path, method), handler in table.items():
        paths[path][method] = handler
        if method == "GET":
            paths[path]["HEAD"] = handler
    patterns = [(re.compile(_segments(path)), handlers) for path, handlers in paths.items()]

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        request, path, allowed = Request(scope, receive, send), scope["path"], ""
        for pattern, handlers in patterns:
            if found := pattern.fullmatch(path):
                scope["path_params"] = found.groupdict()
                if handler := handlers.get(scope["method"]):
                    response = await handler(request)
                    break
                allowed = ", ".join(handlers)
        else:
            response = await unknown(request, allowed)
        await response(scope, receive, send)

    return app


def _segments(path: str) -> str:
    """Returns a pattern of a path.

    >>> _segments("/v1/devices/{device}/check-ins")
    '/v1/devices/(?P<device>[^/]+)/check-ins'
    """
    return re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path)
