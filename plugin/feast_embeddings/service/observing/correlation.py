"""What a request is found by in the logs of all that took part in it: its id, and the trace that it is of."""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import Headers

__all__ = ["log_fields"]

# Visible ASCII: it is written into logs, and returned as a header.
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
# W3C Trace Context: version, id of the trace, id of the caller's span, flags; later versions may add parts.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def log_fields(headers: Headers) -> dict[str, str | None]:
    """Return the fields of a request's log lines: ``request_id``, the caller's or a new one, and ``trace_id``.

    The id of the trace is None if the caller sent none. What is not valid is as if it had not been sent.
    """
    sent = headers.get("x-request-id", "")
    request_id = sent if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(16)
    trace = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    if trace is None or (trace[1] == "00" and trace[3] is not None):
        return {"request_id": request_id, "trace_id": None}
    return {"request_id": request_id, "trace_id": trace[2]}
