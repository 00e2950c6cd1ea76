"""Settings: read once, frozen, and every fault reported at once (CONTRACT, Settings)."""

import re
from pathlib import Path
from typing import Final

import certifi
import pytest
from pydantic import ValidationError

from tests.support.logins import SECRET
from worker.kafka.client import client_options
from worker.postgres.schema import WorkerRole
from worker.settings import VARIABLES, Settings, SettingsError, examine, read_settings


def faults_of(environ: dict[str, str], *, needs_login: bool = False) -> dict[str, str]:
    with pytest.raises(SettingsError) as raised:
        read_settings(environ, needs_login=needs_login)
    return dict(raised.value.faults)


def test_an_empty_environment_gives_the_defaults_of_the_contract() -> None:
    settings = read_settings({})
    assert settings == Settings()
    assert settings.kafka.bootstrap_servers == "localhost:9092"
    assert settings.kafka.group_id == "effective-worker"
    assert (settings.kafka.session_timeout_ms, settings.kafka.transaction_timeout_ms) == (10_000, 20_000)
    assert settings.topics.dead_letters == "access-token.set-effective.dead-letters"
    assert settings.postgres.owner.get_secret_value() == "postgresql://localhost/effective"
    assert settings.postgres.connections == 10
    assert settings.postgres.role == WorkerRole().name
    assert (settings.max_batch, settings.max_command_bytes, settings.record_retention_days) == (500, 65_536, 30)
    assert (settings.admin.host, settings.admin.port) == ("127.0.0.1", 8080)


def test_every_setting_is_read_from_its_variable() -> None:
    settings = read_settings(
        {
            "WORKER_KAFKA__BOOTSTRAP_SERVERS": "one:9092,two:9093",
            "WORKER_TOPICS__REPLY_TO_ALLOWED": "replies.a, replies.b*",
            "WORKER_POSTGRES__DSN": "postgresql://worker:w@db/e",
            "WORKER_POSTGRES__OWNER_DSN": "postgresql://owner:o@db/e",
            "WORKER_POSTGRES__CONNECTIONS": "3",
            "WORKER_POSTGRES__ROLE": 'one of "two"',
            "WORKER_LOGIN__SECRETS": f"{SECRET},{SECRET[::-1]}",
            "WORKER_LOGIN__EXPIRY_CLOCK": "append",
            "WORKER_DELIVERY": "at_least_once",
            "WORKER_ADMIN__NAMES": "worker, worker.internal",
            "WORKER_DRAIN_SECONDS": "2.5",
            "WORKER_REVEAL_VERIFICATION_CODE": "true",
            "WORKER_LOG__LEVEL": "DEBUG",
        }
    )
    assert settings.topics.reply_to_allowed == ("replies.a", "replies.b*")
    assert settings.postgres.owner.get_secret_value() == "postgresql://owner:o@db/e"
    assert settings.postgres.connections == 3
    assert settings.postgres.role == 'one of "two"'
    assert [secret.get_secret_value() for secret in settings.login.secrets] == [SECRET, SECRET[::-1]]
    assert (settings.login.expiry_clock, settings.delivery, settings.log.level) == ("append", "at_least_once", "debug")
    assert settings.admin.names == ("worker", "worker.internal")
    assert settings.drain_seconds == 2.5
    assert settings.reveal_verification_code is True


@pytest.mark.parametrize("name", ["public", "none", "pg_monitor", "é" * 32])
def test_a_role_that_postgres_would_take_for_another_one_is_a_fault(name: str) -> None:
    assert list(faults_of({"WORKER_POSTGRES__ROLE": name})) == ["WORKER_POSTGRES__ROLE"]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read_settings({}).max_batch = 1  # type: ignore[misc]


def test_a_value_can_come_from_a_file_without_its_last_newline(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text(f"{SECRET}\n")
    settings = read_settings({"WORKER_LOGIN__SECRETS_FILE": str(file)}, needs_login=True)
    assert settings.login.secrets[0].get_secret_value() == SECRET


@pytest.mark.parametrize("variable", sorted(VARIABLES))
def test_any_setting_can_come_from_a_file(variable: str, tmp_path: Path) -> None:
    assert faults_of({f"{variable}_FILE": str(tmp_path / "none")}) == {
        f"{variable}_FILE": "the file cannot be read: No such file or directory"
    }


@pytest.mark.parametrize("connections", ["0", "-1", "1001", "ten", "2.5"])
def test_a_pool_has_a_size_that_can_be(connections: str) -> None:
    assert list(faults_of({"WORKER_POSTGRES__CONNECTIONS": connections})) == ["WORKER_POSTGRES__CONNECTIONS"]


def test_a_value_and_its_file_together_are_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "batch"
    file.write_text("7")
    assert "WORKER_MAX_BATCH_FILE" in faults_of({"WORKER_MAX_BATCH": "5", "WORKER_MAX_BATCH_FILE": str(file)})


def test_an_empty_variable_counts_as_not_given() -> None:
    assert read_settings({"WORKER_MAX_BATCH": "", "WORKER_KAFKA__SASL_PASSWORD": ""}) == Settings()


def test_the_variable_that_names_a_file_of_variables_is_no_setting() -> None:
    assert read_settings({"WORKER_ENV_FILE": "worker.env"}) == Settings()


def test_all_faults_are_reported_together_each_with_its_variable() -> None:
    faults = faults_of(
        {
            "WORKER_KAFKA__BOOTSTRAP_SERVERS": "nowhere",
            "WORKER_KAFKA__SESSION_TIMEOUT_MS": "soon",
            "WORKER_KAFKA__TRANSACTION_TIMEOUT_MS": "1000",
            "WORKER_POSTGRES__DSN": "mysql://x",
            "WORKER_POSTGRES__OWNER_DSN_FILE": "/no/such/file",
            "WORKER_TOPICS__COMMANDS": "no spaces please",
            "WORKER_TOPICS__RESULTS": "same",
            "WORKER_TOPICS__TRANSITIONS": "same",
            "WORKER_MAX_BATCH": "0",
            "WORKER_ADMIN__PORT": "99999",
            "WORKER_LOG__FORMAT": "xml",
            "WORKER_BATCH": "1",
        },
        needs_login=True,
    )
    assert faults.keys() == {
        "WORKER_KAFKA__BOOTSTRAP_SERVERS",
        "WORKER_KAFKA__SESSION_TIMEOUT_MS",
        "WORKER_KAFKA__TRANSACTION_TIMEOUT_MS",
        "WORKER_POSTGRES__DSN",
        "WORKER_POSTGRES__OWNER_DSN_FILE",
        "WORKER_TOPICS__COMMANDS",
        "WORKER_TOPICS__TRANSITIONS",
        "WORKER_MAX_BATCH",
        "WORKER_ADMIN__PORT",
        "WORKER_LOG__FORMAT",
        "WORKER_BATCH",
        "WORKER_LOGIN__SECRETS",
    }


def test_an_unknown_variable_is_a_fault_with_a_hint() -> None:
    faults = faults_of({"WORKER_KAFKA_BOOTSTRAP_SERVERS": "x:1"})
    assert faults["WORKER_KAFKA_BOOTSTRAP_SERVERS"].endswith("did you mean WORKER_KAFKA__BOOTSTRAP_SERVERS?")


def test_what_kubernetes_sets_for_a_service_called_worker_is_no_fault() -> None:
    assert (
        read_settings({"WORKER_SERVICE_HOST": "10.0.0.1", "WORKER_PORT_8080_TCP": "tcp://10.0.0.1:8080"}) == Settings()
    )


def test_other_variables_are_none_of_our_business() -> None:
    assert read_settings({"PATH": "/bin", "KAFKA_HOME": "/opt"}) == Settings()


@pytest.mark.parametrize(
    ("variable", "environ"),
    [
        ("WORKER_KAFKA__TRANSACTION_TIMEOUT_MS", {"WORKER_KAFKA__TRANSACTION_TIMEOUT_MS": "14999"}),
        ("WORKER_KAFKA__SESSION_TIMEOUT_MS", {"WORKER_KAFKA__SESSION_TIMEOUT_MS": "15000"}),
        ("WORKER_KAFKA__SASL_USERNAME", {"WORKER_KAFKA__SASL_USERNAME": "somebody"}),
        ("WORKER_TOPICS__DEAD_LETTERS", {"WORKER_TOPICS__DEAD_LETTERS": "access-token.transitions"}),
    ],
)
def test_settings_that_contradict_each_other_are_a_fault(variable: str, environ: dict[str, str]) -> None:
    assert list(faults_of(environ)) == [variable]


def test_a_bulk_topic_is_read_from_and_is_one_of_the_workers_own() -> None:
    without, topics = read_settings({}).topics, read_settings({"WORKER_TOPICS__BULK_COMMANDS": "bulk"}).topics
    assert (without.read, topics.read) == ((without.commands,), (topics.commands, "bulk"))
    assert set(topics.own) - set(without.own) == {"bulk"}
    assert len(without.own) == 4


def test_a_bulk_topic_that_is_another_topic_as_well_is_a_fault() -> None:
    faults = faults_of({"WORKER_TOPICS__BULK_COMMANDS": "a", "WORKER_TOPICS__RESULTS": "a"})
    assert faults == {"WORKER_TOPICS__BULK_COMMANDS": "the same topic as WORKER_TOPICS__RESULTS"}


def test_sasl_needs_mechanism_user_and_password() -> None:
    faults = faults_of({"WORKER_KAFKA__SECURITY_PROTOCOL": "sasl_ssl"})
    assert faults.keys() == {
        "WORKER_KAFKA__SASL_MECHANISM",
        "WORKER_KAFKA__SASL_USERNAME",
        "WORKER_KAFKA__SASL_PASSWORD",
    }


@pytest.mark.parametrize(
    ("secrets", "what"),
    [
        ("short", "secret 1 of 1 is shorter than 32 bytes"),
        (f"{SECRET},", "secret 2 of 2 is empty"),
        (f"{SECRET}, {SECRET}", "secret 2 of 2 begins or ends with white space"),
    ],
)
def test_a_weak_login_secret_is_a_fault_that_does_not_quote_it(secrets: str, what: str) -> None:
    assert faults_of({"WORKER_LOGIN__SECRETS": secrets}) == {"WORKER_LOGIN__SECRETS": what}


def test_the_length_of_a_login_secret_counts_bytes() -> None:
    assert read_settings({"WORKER_LOGIN__SECRETS": "ü" * 16}).login.secrets


def test_no_secret_shows_in_text_or_in_faults() -> None:
    environ = {
        "WORKER_POSTGRES__DSN": "postgresql://worker:canary-1@db/e",
        "WORKER_LOGIN__SECRETS": "canary-2-" + SECRET,
        "WORKER_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "WORKER_KAFKA__SASL_MECHANISM": "PLAIN",
        "WORKER_KAFKA__SASL_USERNAME": "worker",
        "WORKER_KAFKA__SASL_PASSWORD": "canary-3",
    }
    settings = read_settings(environ)
    assert "canary" not in f"{settings!r} {settings}"
    broken = environ | {"WORKER_POSTGRES__DSN": "canary-1", "WORKER_LOGIN__SECRETS": "canary-2"}
    assert "canary" not in str(faults_of(broken))


def test_a_plain_broker_gets_no_security_options() -> None:
    options = client_options(read_settings({"WORKER_KAFKA__BOOTSTRAP_SERVERS": "one:1, two:2"}).kafka)
    assert options["bootstrap_servers"] == ["one:1", "two:2"]
    assert options["retry_backoff_ms"] == 30
    assert not {"ssl_context", "sasl_mechanism"} & options.keys()


def test_a_secured_broker_gets_a_verifying_context_and_the_login() -> None:
    options = client_options(
        read_settings(
            {
                "WORKER_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
                "WORKER_KAFKA__SASL_MECHANISM": "SCRAM-SHA-512",
                "WORKER_KAFKA__SASL_USERNAME": "worker",
                "WORKER_KAFKA__SASL_PASSWORD": "pass",
            }
        ).kafka
    )
    assert options["ssl_context"].check_hostname
    assert (options["sasl_mechanism"], options["sasl_plain_password"]) == ("SCRAM-SHA-512", "pass")


def test_a_file_that_is_no_certificate_is_a_fault_of_its_variable(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    environ = {"WORKER_KAFKA__SECURITY_PROTOCOL": "SSL", "WORKER_KAFKA__SSL_CAFILE": str(file)}
    with pytest.raises(SettingsError, match="WORKER_KAFKA__SSL_CAFILE"):
        client_options(read_settings(environ).kafka)


# --- secrets in transit -----------------------------------------------------------------------------------------------

_SASL: Final = {
    "WORKER_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "WORKER_KAFKA__SASL_MECHANISM": "PLAIN",
    "WORKER_KAFKA__SASL_USERNAME": "worker",
    "WORKER_KAFKA__SASL_PASSWORD": "canary",
}
PROTOCOL: Final = "WORKER_KAFKA__SECURITY_PROTOCOL"
SERVERS: Final = "WORKER_KAFKA__BOOTSTRAP_SERVERS"
DSN: Final = "WORKER_POSTGRES__DSN"
OWNER_DSN: Final = "WORKER_POSTGRES__OWNER_DSN"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {SERVERS: "127.0.0.1:9092,localhost:9093,[::1]:9094,127.8.9.1:1"},
        {SERVERS: "broker:9092", PROTOCOL: "SSL"},
        _SASL | {SERVERS: "broker:9092", PROTOCOL: "SASL_SSL"},
        _SASL,
        {DSN: "postgresql://worker@127.0.0.1/x?sslmode=disable"},
        {DSN: "postgresql://worker@/x?host=/run/postgresql"},
        {DSN: f"postgresql://worker@db/x?sslmode=verify-full&sslrootcert={certifi.where()}"},
    ],
)
def test_what_stays_here_or_is_protected_is_not_exposed(given: dict[str, str]) -> None:
    assert read_settings(given | {"WORKER_REQUIRE_TLS": "true"}).exposed == {}


@pytest.mark.parametrize(
    ("given", "variable", "says"),
    [
        ({SERVERS: "broker:9092"}, PROTOCOL, "pass codes of commands are readable on the way to broker"),
        ({SERVERS: "localhost:1,10.0.0.7:9092"}, PROTOCOL, "to 10.0.0.7"),
        (_SASL | {SERVERS: "broker:9092"}, PROTOCOL, "and the password are readable"),
        ({DSN: "postgresql://worker@db/x"}, DSN, "may be readable on the way"),
        ({DSN: "postgresql://worker@127.0.0.1,db/x?sslmode=disable"}, DSN, "from db may be readable"),
        ({DSN: "postgresql://worker@db/x?sslmode=require"}, DSN, "nothing verifies that db is what answers"),
        ({OWNER_DSN: "postgresql://owner@db/x?sslmode=prefer"}, OWNER_DSN, "may be readable on the way"),
    ],
)
def test_what_is_not_is_named_and_an_error_where_tls_is_required(
    given: dict[str, str], variable: str, says: str
) -> None:
    [(named, what)] = read_settings(given).exposed.items()
    assert (named, says in what) == (variable, True), what
    assert "canary" not in what
    faults = faults_of(given | {"WORKER_REQUIRE_TLS": "true"})
    assert faults == {variable: f"{what} (WORKER_REQUIRE_TLS is true)"}


@pytest.mark.parametrize(
    ("variable", "text", "what"),
    [
        ("WORKER_MAX_BATCH", "many", "not a whole number from 1 to 10000"),
        ("WORKER_MAX_BATCH", "0", "not a whole number from 1 to 10000"),
        ("WORKER_MAX_BATCH", "2.5", "not a whole number from 1 to 10000"),
        ("WORKER_DRAIN_SECONDS", "inf", "not a number above 0 and up to 3600"),
        ("WORKER_DRAIN_SECONDS", "0", "not a number above 0 and up to 3600"),
        ("WORKER_LOGIN__LONGEST_SECONDS", "nan", "not a number from 1 to 31622400"),
        ("WORKER_REQUIRE_TLS", "perhaps", "neither true nor false"),
        ("WORKER_LOG__LEVEL", "loud", "not one of debug, info, warning, error"),
        ("WORKER_KAFKA__SASL_MECHANISM", "GSSAPI", "not one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
        ("WORKER_KAFKA__GROUP_ID", "g" * 256, "longer than 255 characters"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(variable: str, text: str, what: str) -> None:
    assert faults_of({variable: text}) == {variable: what}


@pytest.mark.parametrize("variable", sorted(VARIABLES))
@pytest.mark.parametrize("text", ["\N{SNOWMAN}" * 300, "-1", "0.5"])
def test_no_fault_speaks_the_language_of_a_library(variable: str, text: str) -> None:
    told = "; ".join(examine({variable: text}).faults.values())
    assert not re.search(r"[Ii]nput|[Ss]tring|[Vv]alue error|valid|None", told), told
