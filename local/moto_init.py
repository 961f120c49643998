"""Profile aws: give moto the bucket and the secrets that functions look for. It keeps nothing when it stops.

    moto_init.py ARCHIVE SECRETS     s3://bucket/prefix or nothing, a JSON object of texts or nothing

Runs in our image of the relay, which has boto3, before any function starts; a bucket that is there is left alone.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

WAIT_S = 60.0


def buckets(archive: str) -> list[str]:
    """The bucket of ``s3://bucket/prefix``; none for another place."""
    scheme, _, rest = archive.partition("://")
    return [rest.partition("/")[0]] if scheme == "s3" else []


def secrets(text: str) -> dict[str, str]:
    """The secrets by their names: a JSON object of texts, or nothing."""
    found = json.loads(text or "{}")
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError("is not an object of texts")
    return found


def client(service: str) -> Any:
    return boto3.client(service, config=Config(connect_timeout=5, retries={"total_max_attempts": 1}))


def make(names: list[str], values: dict[str, str]) -> None:
    s3, manager = client("s3"), client("secretsmanager")
    region = s3.meta.region_name
    there = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    for name in set(names) - there:
        s3.create_bucket(Bucket=name, **place)
    for name, value in values.items():
        try:
            manager.create_secret(Name=name, SecretString=value)
        except manager.exceptions.ResourceExistsException:
            manager.put_secret_value(SecretId=name, SecretString=value)


def main(archive: str, text: str) -> str:
    """Make what is asked for, as soon as moto answers; returns what is wrong."""
    try:
        values = secrets(text)
    except ValueError as fault:
        return f'AWS_SECRETS: {fault} (e.g. {{"agentflow/llm": "a key"}})'
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            make(buckets(archive), values)
            return ""
        except ClientError as fault:
            return f"moto: {fault}"
        except BotoCoreError as fault:
            if time.monotonic() > deadline:
                return f"moto: {fault} (docker compose -f local/compose.yaml logs moto)"
            time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(f"moto_init: {said}" if (said := main(*sys.argv[1:])) else 0)
