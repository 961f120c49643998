"""moto_init.py, which fills moto for local/compose.yaml: a bucket and secrets, as often as it is asked; what is wrong
is one line. tests/deploy runs it in its container."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

SCRIPT = Path(__file__).parents[2] / "local" / "moto_init.py"
REGION = "eu-central-1"


def fill(archive: str, secrets: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, archive, secrets]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | environment)


def test_it_makes_the_bucket_and_the_secrets_and_leaves_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "NO_PROXY": host, "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "moto", "AWS_SECRET_ACCESS_KEY": "moto",
        }  # fmt: skip
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        s3, manager = boto3.client("s3"), boto3.client("secretsmanager")
        for value in ("first", "second"):
            done = fill("s3://cold/runs", f'{{"agentflow/llm": "{value}"}}')
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            s3.put_object(Bucket="cold", Key=value, Body=b"kept")
            assert manager.get_secret_value(SecretId="agentflow/llm")["SecretString"] == value
        assert [each["Key"] for each in s3.list_objects_v2(Bucket="cold")["Contents"]] == ["first", "second"]
        assert fill("", "").returncode == fill("file:///archive", "").returncode == 0
        assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == ["cold"]
        done = fill("s3://ab", "")
        assert done.returncode == 1 and done.stderr.startswith("moto_init: ") and len(done.stderr.splitlines()) == 1
    finally:
        server.stop()


@pytest.mark.parametrize("secrets", ["{", "[]", '{"a": 1}'])
def test_secrets_that_are_none_are_one_line(secrets: str) -> None:
    done = fill("", secrets)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("moto_init: AWS_SECRETS: ")
