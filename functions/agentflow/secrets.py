"""Secrets by reference, so that no environment, manifest or process list has to hold them.

    secret://file/run/secrets/llm-key             the file's content, without the newline at its end
    secret://aws/agentflow/production             a secret of AWS Secrets Manager, by name or ARN
    secret://aws/agentflow/production#llm_key     one field of a secret that is a JSON object
"""

from __future__ import annotations

import atexit
import json
import os
import tempfile
from functools import cache
from pathlib import Path

from agentflow.errors import Rejected, RetryLater

SCHEME = "secret://"
MAX_BYTES = 64 * 1024


def resolve(text: str) -> str:
    """The secret that ``text`` refers to; any other text as it is.

    Raises ``Rejected`` when there is no such secret, ``RetryLater`` when AWS can't be asked now. The error names
    the reference, never the value.
    """
    if not text.startswith(SCHEME):
        return text
    source, _, name = text.removeprefix(SCHEME).partition("/")
    name, _, field = name.partition("#")
    if source == "file":
        value = _file("/" + name, text)
    elif source == "aws":
        value = _aws(name, text)
    else:
        raise Rejected(
            f"{text} names no known source", code="bad_secret", mend="use secret://file/… or secret://aws/…"
        )
    return _field(value, field, text) if field else value


def _file(path: str, reference: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_BYTES).decode().rstrip("\n")
    except (OSError, UnicodeDecodeError) as fault:
        raise Rejected(f"{reference}: {fault}", code="bad_secret", mend="mount the secret there") from None


def _aws(name: str, reference: str) -> str:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = boto3.client("secretsmanager").get_secret_value(SecretId=name)
    except ClientError as fault:
        code = str(fault.response.get("Error", {}).get("Code", ""))
        if code in ("ResourceNotFoundException", "AccessDeniedException", "InvalidRequestException"):
            mend = "check the secret's name and the role's secretsmanager:GetSecretValue"
            raise Rejected(f"{reference}: {code}", code="bad_secret", mend=mend) from None
        raise RetryLater(f"{reference}: {code}", after=1.0) from None
    except BotoCoreError as fault:
        raise RetryLater(f"{reference}: {type(fault).__name__}", after=1.0) from None
    value = answer.get("SecretString")
    if not isinstance(value, str):
        raise Rejected(f"{reference} is binary", code="bad_secret", mend="store it as text")
    return value


def _field(value: str, field: str, reference: str) -> str:
    try:
        found = json.loads(value)[field]
    except (ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, str):
        mend = f"store a JSON object with a text field {field!r}"
        raise Rejected(f"{reference}: there is no such field", code="bad_secret", mend=mend)
    return found


@cache
def private_copy(path: str) -> str:
    """A copy of a file that nobody else may read, made once and removed when the process ends.

    libpq ignores a file of passwords that others may read, as every Secret is that Kubernetes mounts for a process
    which is not root.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as fault:
        raise Rejected(f"{path}: {fault.strerror}", code="bad_secret", mend="mount the secret there") from None
    descriptor, copy = tempfile.mkstemp(prefix="agentflow-pgpass-")  # only its owner may read it
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    atexit.register(lambda: Path(copy).unlink(missing_ok=True))
    return copy
