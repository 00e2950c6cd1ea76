"""The image and the compose file match what the worker understands. The test needs no container engine."""

import base64
import json
import os
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from effective_contract import __version__
from worker.settings import read_settings

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
OURS: Final = [name for name, service in SERVICES.items() if "build" in service]

Instruction = tuple[str, str]


def instructions_of(text: str) -> list[Instruction]:
    """Return a Dockerfile's instructions in order, without comments and with continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


DOCKERFILE: Final = instructions_of((DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
FINAL_STAGE: Final = DOCKERFILE[max(index for index, (word, _) in enumerate(DOCKERFILE) if word == "FROM") :]


def given_by(stage: list[Instruction], instruction: str) -> list[str]:
    return [rest for word, rest in stage if word == instruction]


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in given_by(FINAL_STAGE, "ENV") for pair in shlex.split(rest))


# --- the image --------------------------------------------------------------------------------------------------------


def test_the_final_stage_runs_as_a_numbered_user_who_is_not_root() -> None:
    (user,) = given_by(FINAL_STAGE, "USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)


def test_the_final_stage_installs_nothing() -> None:
    assert given_by(FINAL_STAGE, "RUN") == []
    assert [copied.split()[0] for copied in given_by(FINAL_STAGE, "COPY")] == ["--from=build"]


def test_what_the_image_installs_is_hashed_and_never_compiled() -> None:
    installed = [step for run in given_by(DOCKERFILE, "RUN") for step in run.split("&&") if " -r " in step]
    assert len(installed) == 3
    assert all("--require-hashes" in step and "--only-binary :all:" in step for step in installed)


def test_what_the_image_copies_reaches_the_builder() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source for rest in given_by(DOCKERFILE, "COPY") if not rest.startswith("--from") for source in rest.split()[:-1]
    }
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)


def test_the_image_asks_the_admin_port_whether_it_lives() -> None:
    (check,) = given_by(FINAL_STAGE, "HEALTHCHECK")
    command = json.loads(check.split("CMD", 1)[1])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "HEALTHCHECK", "exec")
    assert "/livez" in command[2]


def test_the_image_works_when_it_is_given_no_command() -> None:
    assert json.loads(given_by(FINAL_STAGE, "ENTRYPOINT")[0]) == ["effective-worker"]
    assert json.loads(given_by(FINAL_STAGE, "CMD")[0]) == ["run"]


def test_the_image_sets_only_what_the_worker_reads() -> None:
    settings = read_settings({name: value for name, value in image_environment().items() if name.startswith("WORKER_")})
    assert (settings.admin.host, str(settings.admin.port)) == ("0.0.0.0", given_by(FINAL_STAGE, "EXPOSE")[0])


# --- the compose file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_a_service_sets_only_what_the_worker_reads(name: str) -> None:
    environment = image_environment() | SERVICES[name]["environment"]
    settings = read_settings(
        {name: value for name, value in environment.items() if name.startswith("WORKER_")}, needs_login=True
    )
    assert settings.kafka.bootstrap_servers == "kafka:9092"


def test_only_what_changes_the_schema_or_loads_data_knows_the_owner() -> None:
    knowing = {name for name in OURS if "WORKER_POSTGRES__OWNER_DSN" in SERVICES[name]["environment"]}
    assert knowing == {"migrate", "import"}


def test_the_passwords_that_postgres_is_given_are_those_that_the_worker_brings() -> None:
    postgres = SERVICES["postgres"]["environment"]
    brought = SERVICES["migrate"]["environment"]
    assert f"//worker:{postgres['EFFECTIVE_WORKER_PASSWORD']}@" in brought["WORKER_POSTGRES__DSN"]
    assert (
        f"//{postgres['POSTGRES_USER']}:{postgres['POSTGRES_PASSWORD']}@postgres:5432/{postgres['POSTGRES_DB']}"
        in brought["WORKER_POSTGRES__OWNER_DSN"]
    )
    assert "CREATE ROLE worker LOGIN" in (DEPLOY / "postgres" / "worker-role.sh").read_text(encoding="utf-8")


BASE: Final = dict(rest.split("=", 1) for rest in given_by(DOCKERFILE, "ARG"))
"""The arguments of a build, with their defaults."""


@pytest.mark.parametrize("image", [*(service["image"] for service in SERVICES.values()), *BASE.values()])
def test_an_image_is_pinned(image: str) -> None:
    _, _, tag = image.partition(":")
    assert re.match(r"\d", tag), "a tag that says which release it is"


def test_both_stages_stand_on_the_base_that_a_build_may_name_by_its_digest() -> None:
    assert [image.split()[0] for image in given_by(DOCKERFILE, "FROM")] == ["${PYTHON_IMAGE}"] * 2
    assert next(word for word, _ in DOCKERFILE) == "ARG"


def test_the_image_says_what_it_holds() -> None:
    [made] = [run for run in given_by(DOCKERFILE, "RUN") if "cyclonedx-py environment" in run]
    wanted = "--output-file /opt/effective-worker/sbom.cdx.json /opt/effective-worker/bin/python"
    assert wanted in re.sub(r"\s+", " ", made)
    assert ("COPY", "--from=build /opt/effective-worker /opt/effective-worker") in FINAL_STAGE


def test_an_image_without_a_number_of_its_own_does_not_hide_among_the_built_ones() -> None:
    assert {SERVICES[name]["image"] for name in OURS} == {f"effective-worker:{__version__}"}


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_waits_for_can_come_true(name: str) -> None:
    for awaited, how in SERVICES[name].get("depends_on", {}).items():
        health = SERVICES[awaited].get("healthcheck", {})
        if how["condition"] == "service_healthy":
            assert health["test"][0] == "CMD"
        else:
            assert how["condition"] == "service_completed_successfully"
            assert "restart" not in SERVICES[awaited], f"{awaited} would never be done"
            assert health == {"disable": True}


@pytest.mark.parametrize("name", ["kafka", "postgres", "worker"])
def test_what_stays_up_says_how_it_is_and_is_started_again(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_may_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_nothing_is_offered_beyond_this_machine() -> None:
    offered = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert offered
    assert all(port.startswith("127.0.0.1:") for port in offered)


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_mounts_exists(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source = mount.split(":")[0]
        assert source in COMPOSE["volumes"] or (DEPLOY / source).exists()


def test_the_worker_has_time_to_drain() -> None:
    drain = read_settings({}).drain_seconds
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > drain


def test_kafka_is_told_a_whole_configuration() -> None:
    kafka = SERVICES["kafka"]["environment"]
    assert len(base64.urlsafe_b64decode(kafka["CLUSTER_ID"] + "==")) == 16
    listeners = {listener.split("://")[0] for listener in kafka["KAFKA_LISTENERS"].split(",")}
    protocols = dict(pair.split(":") for pair in kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    advertised = {listener.split("://")[0] for listener in kafka["KAFKA_ADVERTISED_LISTENERS"].split(",")}
    assert protocols.keys() == listeners == advertised | {kafka["KAFKA_CONTROLLER_LISTENER_NAMES"]}
    # One broker: a topic that asks for more replicas than there are brokers waits forever.
    assert {value for name, value in kafka.items() if name.endswith(("REPLICATION_FACTOR", "ISR", "REPLICAS"))} == {"1"}


# --- the pinned requirements ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "requirements.txt",
        "requirements-build.txt",
        "requirements-dev.txt",
        "requirements-bench.txt",
        "requirements-docs.txt",
    ],
)
def test_every_requirement_is_pinned_and_hashed(name: str) -> None:
    lines = [
        line
        for line in (DEPLOY / name).read_text(encoding="utf-8").splitlines()
        if line and not line.lstrip().startswith("#")
    ]
    heads = [index for index, line in enumerate(lines) if not line.startswith(" ")]
    assert heads
    for start, end in pairwise([*heads, len(lines)]):
        assert "==" in lines[start]
        assert any("--hash=sha256:" in line for line in lines[start:end]), lines[start]


def test_what_is_developed_with_is_what_is_deployed() -> None:
    def pins(name: str) -> dict[str, str]:
        found = re.findall(
            r"^([a-z0-9-]+)(?:\[.*?\])?==(\S+)", (DEPLOY / name).read_text(encoding="utf-8"), re.MULTILINE
        )
        return dict(found)

    assert pins("requirements.txt").items() <= pins("requirements-dev.txt").items()
    assert pins("requirements-build.txt").items() <= pins("requirements-dev.txt").items()
    for beside in ("requirements-bench.txt", "requirements-docs.txt"):
        shared = pins(beside).keys() & pins("requirements-dev.txt").keys()
        assert {name: pins(beside)[name] for name in shared}.items() <= pins("requirements-dev.txt").items()


@pytest.mark.parametrize("script", ["make-venv.sh", "postgres/worker-role.sh"])
def test_a_script_can_be_started(script: str) -> None:
    assert os.access(DEPLOY / script, os.X_OK)
