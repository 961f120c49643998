"""The command that publishes CloudEvents."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from agentflow.config import Settings
from agentflow.errors import Rejected
from agentflow.terminal import output
from agentflow.terminal.client import api, call
from agentflow.wire.http import BATCH, STRUCTURED


async def publish_event(
    settings: Settings, event: str, data: str, source: str, event_id: str, subject: str, *, as_json: bool
) -> None:
    """Publish one event made from the options, or the event or array of events in ``@file``."""
    document: Any
    if event.startswith("@"):
        document = _json(event, "the events")
    else:
        document = {"specversion": "1.0", "id": event_id or str(uuid4()), "source": source, "type": event}
        if subject:
            document["subject"] = subject
        if data:
            document |= {"datacontenttype": "application/json", "data": _json(data, "--data")}
    media = BATCH if isinstance(document, list) else STRUCTURED
    async with api(settings) as client:
        done = await call(
            client, "POST", "/v1/events", content=orjson.dumps(document), headers={"content-type": media}
        )
    if as_json:
        output.print_json(done)
        return
    for accepted in done["accepted"]:
        print(f"accepted {accepted['id']} from {accepted['source']}")


def _json(text: str, what: str) -> Any:
    try:
        body = Path(text[1:]).expanduser().read_bytes() if text.startswith("@") else text.encode()
        return orjson.loads(body)
    except OSError as fault:
        said = f"{text[1:]} cannot be read: {fault.strerror or fault}"
        raise Rejected(said, code="no_file", path=what, mend="check the path") from None
    except orjson.JSONDecodeError as fault:
        mend = 'write JSON, e.g. \'{"order": "42"}\''
        raise Rejected(f"is not JSON: {fault}", code="bad_json", path=what, mend=mend) from None
