"""Settings: read once, checked, documented; secrets by reference, AWS asked over real HTTP."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from agentflow.config import Settings
from agentflow.errors import Invalid, Rejected, RetryLater

SECRETS = {"prod/agentflow": json.dumps({"llm_key": "sk-1", "n": 5}), "plain": "hush"}


class SecretsManager(BaseHTTPRequestHandler):
    """GetSecretValue as AWS answers it."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert self.headers["x-amz-target"] == "secretsmanager.GetSecretValue"
        found = SECRETS.get(asked["SecretId"])
        status = 200 if found else 400
        body = {"SecretString": found, "Name": asked["SecretId"]} if found else {"__type": "ResourceNotFoundException"}
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.send_header("content-type", "application/x-amz-json-1.1")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), SecretsManager)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_fault_is_named_with_its_variable_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        Settings.from_env({"AGENTFLOW_BATCH": "many", "AGENTFLOW_HANDOFF": "?", "AGENTFLOW_COLOUR": "red"})
    assert [p.path for p in caught.value.problems] == ["AGENTFLOW_BATCH", "AGENTFLOW_HANDOFF", "AGENTFLOW_COLOUR"]


def test_the_platforms_port_is_used_unless_we_are_told_another() -> None:
    assert Settings.from_env({"PORT": "9000"}).http_port == 9000
    assert Settings.from_env({"PORT": "9000", "AGENTFLOW_HTTP_PORT": "9001"}).http_port == 9001


def test_a_role_takes_the_place_of_the_user_in_the_database_url() -> None:
    url = "postgresql://admin@db.internal:5432/agentflow?sslmode=require"
    settings = Settings.from_env({"AGENTFLOW_DATABASE_URL": url})
    dsn = settings.dsn("agentflow_api")
    assert dsn.startswith("postgresql://agentflow_api@db.internal:5432/agentflow?sslmode=require&")
    assert conninfo_to_dict(dsn)["connect_timeout"] == "5"


def test_how_long_the_database_is_waited_for_is_the_urls_to_say() -> None:
    url = "postgresql://db.internal/agentflow?connect_timeout=60&tcp_user_timeout=0"
    given = conninfo_to_dict(Settings(database_url=url).dsn("agentflow_api"))
    assert (given["connect_timeout"], given["tcp_user_timeout"]) == ("60", "0")
    assert given["keepalives_idle"] == "5"
    assert conninfo_to_dict(Settings(database_url="postgresql://h/d").dsn("x"))["tcp_user_timeout"] == "10000"


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-2\n")
    assert Settings.from_env({"AGENTFLOW_LLM_API_KEY": f"secret://file{tmp_path}/key"}).llm_api_key == "sk-2"
    with pytest.raises(Invalid, match="AGENTFLOW_LLM_API_KEY"):
        Settings.from_env({"AGENTFLOW_LLM_API_KEY": f"secret://file{tmp_path}/nothing"})


@pytest.mark.usefixtures("aws")
def test_a_secret_comes_from_aws_whole_or_by_field() -> None:
    settings = Settings.from_env(
        {"AGENTFLOW_LLM_API_KEY": "secret://aws/prod/agentflow#llm_key", "AGENTFLOW_KEY_PEPPER": "secret://aws/plain"}
    )
    assert (settings.llm_api_key, settings.key_pepper) == ("sk-1", "hush")


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("reference", ["secret://aws/nothing", "secret://aws/prod/agentflow#n", "secret://vault/x"])
def test_a_missing_secret_names_the_reference_and_not_the_value(reference: str) -> None:
    with pytest.raises(Invalid) as caught:
        Settings.from_env({"AGENTFLOW_KEY_PEPPER": reference})
    assert reference in str(caught.value)
    assert "sk-1" not in str(caught.value)


def test_aws_out_of_reach_is_a_passing_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "eu-central-1", "AWS_MAX_ATTEMPTS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with pytest.raises(RetryLater, match="secret://aws/plain"):
        Settings.from_env({"AGENTFLOW_KEY_PEPPER": "secret://aws/plain"})


def test_the_table_in_the_documentation_is_the_settings() -> None:
    text = (Path(__file__).parents[1] / "functions" / "README.md").read_text()
    for variable, default, meaning in Settings.table():
        assert f"| `{variable}` | `{default}` | {meaning} |" in text, variable


def test_secrets_that_everybody_knows_are_named() -> None:
    assert Settings().development_secrets() == ["AGENTFLOW_KEY_PEPPER", "AGENTFLOW_AUDIT_KEY"]
    own = Settings(audit_key="of our own, and long enough", key_pepper="ours")
    assert own.development_secrets() == []


def test_a_password_file_that_others_may_read_is_copied_for_us_alone(tmp_path: Path) -> None:
    mounted = tmp_path / "pgpass"
    mounted.write_text("*:*:*:agentflow_engine:word")
    mounted.chmod(0o444)
    settings = Settings.from_env(
        {"AGENTFLOW_DATABASE_URL": "postgresql://db:5432/agentflow", "AGENTFLOW_PASSFILE": str(mounted)}
    )
    (copy,) = {re.findall(r"passfile=([^&]+)", settings.dsn(role))[0] for role in ("agentflow_engine", "agentflow_api")}
    assert stat.S_IMODE(os.stat(copy).st_mode) == 0o600
    assert Path(copy).read_text() == mounted.read_text()
    assert "word" not in settings.dsn("agentflow_engine")
    gone = Settings(database_url="postgresql://db/agentflow", passfile=str(tmp_path / "none"))
    with pytest.raises(Rejected, match="none: No such file"):
        gone.dsn("agentflow_engine")
