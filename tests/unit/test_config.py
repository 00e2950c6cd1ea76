"""The settings as an operator asks for them (CONTRACT, Command line and Settings)."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest

from tests.support import preloaded
from worker.cli.config import lines_of
from worker.dsn import masked_dsn
from worker.operations.config import shown_settings
from worker.settings import VARIABLES, Settings

CANARY: Final = "canary-of-more-than-thirty-two-bytes"
DSN: Final = f"postgresql://worker:{CANARY}@db/e?sslmode=require&sslpassword={CANARY}"
SHOWN_DSN: Final = "postgresql://worker:***@db/e?sslmode=require&sslpassword=***"
SECRETS: Final = {
    "WORKER_LOGIN__SECRETS": f"{CANARY},{CANARY}",
    "WORKER_DIGEST_KEYS": CANARY,
    "WORKER_POSTGRES__DSN": DSN,
    "WORKER_POSTGRES__OWNER_DSN": DSN,
    "WORKER_KAFKA__SASL_PASSWORD": CANARY,
    "WORKER_KAFKA__SASL_USERNAME": "worker",
    "WORKER_KAFKA__SASL_MECHANISM": "PLAIN",
    "WORKER_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
}


def worker(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    done = preloaded.run_to_end(arguments, cwd=preloaded.ROOT, env={**os.environ, **variables})
    assert CANARY not in done.stdout + done.stderr
    return done


def shown(**variables: str) -> tuple[dict[str, Any], "subprocess.CompletedProcess[str]"]:
    done = worker("config", "show", "--json", **variables)
    document = json.loads(done.stdout)
    return {each["variable"]: each for each in document["settings"]} | {"faults": document["faults"]}, done


def test_every_setting_is_shown_with_its_default() -> None:
    found, done = shown()
    assert done.returncode == 0
    assert found.pop("faults") == {}
    assert found.keys() == VARIABLES.keys()
    assert all(each["value"] == each["default"] and each["source"] == "default" for each in found.values())
    assert found["WORKER_MAX_BATCH"]["value"] == Settings().max_batch


def test_a_source_is_named(tmp_path: Path) -> None:
    own, file = tmp_path / "batch", tmp_path / "worker.env"
    own.write_text("7\n", encoding="utf-8")
    file.write_text(f"WORKER_LOG__LEVEL=debug\nWORKER_MAX_COMMAND_BYTES_FILE={own}\n", encoding="utf-8")
    found, _ = shown(WORKER_ENV_FILE=str(file), WORKER_MAX_BATCH_FILE=str(own), WORKER_DRAIN_SECONDS="5")
    assert {
        name: (found[name]["value"], found[name]["source"], found[name]["env_file"], found[name]["file"])
        for name in ("WORKER_LOG__LEVEL", "WORKER_MAX_COMMAND_BYTES", "WORKER_MAX_BATCH", "WORKER_DRAIN_SECONDS")
    } == {
        "WORKER_LOG__LEVEL": ("debug", "env_file", str(file), None),
        "WORKER_MAX_COMMAND_BYTES": (7, "env_file", str(file), str(own)),
        "WORKER_MAX_BATCH": (7, "environment", None, str(own)),
        "WORKER_DRAIN_SECONDS": (5.0, "environment", None, None),
    }


def test_no_secret_is_shown() -> None:
    found, done = shown(**SECRETS)
    assert done.returncode == 0, done.stderr
    assert found["WORKER_LOGIN__SECRETS"]["value"] == ["***", "***"]
    assert found["WORKER_KAFKA__SASL_PASSWORD"]["value"] == "***"
    assert found["WORKER_POSTGRES__DSN"]["value"] == found["WORKER_POSTGRES__OWNER_DSN"]["value"] == SHOWN_DSN
    assert {name for name, each in found.items() if name != "faults" and each["secret"]} == {
        "WORKER_LOGIN__SECRETS",
        "WORKER_DIGEST_KEYS",
        "WORKER_POSTGRES__DSN",
        "WORKER_POSTGRES__OWNER_DSN",
        "WORKER_KAFKA__SASL_PASSWORD",
    }
    assert f"WORKER_POSTGRES__DSN\t{SHOWN_DSN}\tenvironment" in worker("config", "show", **SECRETS).stdout


def test_no_secret_is_shown_that_is_wrong_or_in_a_wrong_place() -> None:
    wrong = {
        "WORKER_POSTGRES__DSN": f"postgresql://worker:{CANARY}@@db/[e",
        "WORKER_LOGIN__SECRETS": f" {CANARY}",
        "WORKER_TOPICS__COMMANDS": f"postgresql://worker:{CANARY}@db/e",
        "WORKER_LOGIN_SECRETS": CANARY,
    }
    found, done = shown(**wrong)
    assert done.returncode == 2
    assert found["faults"].keys() == wrong.keys()
    assert found["WORKER_POSTGRES__DSN"]["value"] == found["WORKER_LOGIN__SECRETS"]["value"] == "***"
    assert found["WORKER_TOPICS__COMMANDS"]["value"] == "postgresql://worker:***@db/e"


def test_a_setting_that_is_wrong_is_shown_beside_the_others() -> None:
    found, done = shown(WORKER_MAX_BATCH="many", WORKER_ADMIN__PORT="0", WORKER_BATCH="1")
    assert done.returncode == 2
    assert found["WORKER_MAX_BATCH"]["value"] == "many"
    assert "whole number" in found["WORKER_MAX_BATCH"]["fault"]
    assert (found["WORKER_ADMIN__PORT"]["value"], found["WORKER_ADMIN__PORT"]["fault"]) == (0, None)
    assert found["faults"].keys() == {"WORKER_MAX_BATCH", "WORKER_BATCH"}
    assert [line.split(":")[1].strip() for line in done.stderr.splitlines()] == ["WORKER_BATCH", "WORKER_MAX_BATCH"]


def test_a_person_sees_the_same() -> None:
    settings, _ = shown_settings(SECRETS | {"WORKER_MAX_BATCH": "many", "WORKER_REQUIRE_TLS": "true"})
    lines = [line for each in settings for line in lines_of(each)]
    assert "WORKER_LOGIN__SECRETS = ***,***" in lines
    assert "WORKER_LOG__LEVEL = info (default)" in lines
    at = lines.index("WORKER_MAX_BATCH = many")
    assert lines[at + 1] == "    from environment; default: 500"
    assert lines[at + 2].startswith("    wrong: ")
    assert CANARY not in "".join(lines)


@pytest.mark.parametrize(
    ("dsn", "masked"),
    [
        ("postgresql://localhost/e", "postgresql://localhost/e"),
        ("postgresql://u@a:1,b:2/e", "postgresql://u@a:1,b:2/e"),
        ("postgresql://u:p%40q@h/e", "postgresql://u:***@h/e"),
        ("postgresql:///e?host=%2Frun%2Fpg&user=u&password=p", "postgresql:///e?host=%2Frun%2Fpg&user=u&password=***"),
    ],
)
def test_a_dsn_is_shown_without_its_password(dsn: str, masked: str) -> None:
    assert masked_dsn(dsn) == masked


def test_the_schema_is_one_that_settings_meet() -> None:
    schema = json.loads(worker("config", "schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$defs"]["KafkaSettings"]["description"] == "Kafka connection and authentication."
    assert schema["properties"]["max_batch"]["maximum"] == 10_000
    names = {
        f"WORKER_{name}__{inner}".upper()
        for name, each in schema["properties"].items()
        if "$ref" in each
        for inner in schema["$defs"][each["$ref"].rpartition("/")[2]]["properties"]
    } | {f"WORKER_{name}".upper() for name, each in schema["properties"].items() if "$ref" not in each}
    assert names == VARIABLES.keys()
    jsonschema.validate({"max_batch": 5, "kafka": {"group_id": "g"}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"max_batch": 0}, schema)
