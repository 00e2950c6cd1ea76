"""The rights of deploy/ACCESS.md are enough for the work of each login, and one that a worker lacks is named."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from tests.acceptance.clients import Outgoing
from tests.acceptance.scene import Scene, body, on_a_broker_of_its_own
from tests.acceptance.test_first_states import lines
from tests.acceptance.test_history_and_explain import run
from tests.providers.kafka import HOST, JvmKafka
from tests.support.logins import login_token
from tests.support.pace import patience
from tests.support.preloaded import ROOT
from tests.support.seeded import CODE, CONTACT
from tests.support.waiting import Ceiling
from worker.demo.servers.processes import free_port

pytestmark = pytest.mark.real_kafka

ACCESS: Final = ROOT / "deploy" / "ACCESS.md"
PASSWORD: Final = "canary-of-access"
LOGINS: Final = ("worker", "sender", "reader", "auditor", "importer", "operator", "eraser", "nobody")
KINDS: Final = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id": ResourceType.TRANSACTIONAL_ID,
}
ROW: Final = re.compile(r"\| (\w+) \| ([a-z ]+) \| (\S+) \| ([A-Z_]+) \| .+ \|")


@dataclass(frozen=True, slots=True)
class Granted:
    """A row of the table of Kafka."""

    login: str
    kind: str
    name: str
    operation: str

    def bindings(self, names: dict[str, str]) -> list[AclBinding]:
        """Return the rules for the broker. ``names`` are those of a test for the defaults.

        A prefix of several defaults becomes a rule for each of them, beside the prefix; ``*`` alone is the broker's own
        word for everything.
        """
        stem = self.name.removesuffix("*")
        if stem in {self.name, ""}:
            return [self._binding(_in_place(self.name, names), ResourcePatternType.LITERAL)]
        several = [names[each] for each in names if each.startswith(stem) and each != stem]
        literal = [self._binding(name, ResourcePatternType.LITERAL) for name in several]
        return [self._binding(_in_place(stem, names), ResourcePatternType.PREFIXED), *literal]

    def _binding(self, name: str, pattern: ResourcePatternType) -> AclBinding:
        operation, login = AclOperation[self.operation], f"User:{self.login}"
        return AclBinding(KINDS[self.kind], name, pattern, login, "*", operation, AclPermissionType.ALLOW)


def _in_place(name: str, names: dict[str, str]) -> str:
    """Return the name with the longest default that it begins with replaced."""
    default = max((each for each in names if name.startswith(each)), key=len, default="")
    return names.get(default, "") + name.removeprefix(default)


GRANTED: Final = [Granted(*found.groups()) for found in ROW.finditer(ACCESS.read_text(encoding="utf-8"))]


class WalledKafka(JvmKafka):
    """A broker that denies all by default, but allows everything on the listener without logins."""

    def __init__(self) -> None:
        super().__init__()
        self.walled = f"{HOST}:{free_port(HOST)}"

    def _settings(self, directory: Path) -> dict[str, str]:
        base = super()._settings(directory)
        users = " ".join(f'user_{login}="{PASSWORD}"' for login in LOGINS)
        for name in ("listeners", "advertised.listeners"):
            base[name] += f",SASL_PLAINTEXT://{self.walled}"
        base["listener.security.protocol.map"] += ",SASL_PLAINTEXT:SASL_PLAINTEXT"
        return {
            **base,
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }


@dataclass(frozen=True, slots=True)
class Walled:
    """A scene on such a broker, and its logins."""

    scene: Scene
    broker: WalledKafka

    def settings_of(self, login: str) -> dict[str, str]:
        """Return the settings with which a command uses that login."""
        return {
            "KAFKA__BOOTSTRAP_SERVERS": self.broker.walled,
            "KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "KAFKA__SASL_MECHANISM": "PLAIN",
            "KAFKA__SASL_USERNAME": login,
            "KAFKA__SASL_PASSWORD": PASSWORD,
        }

    def client(self, login: str) -> dict[str, Any]:
        """Return the options of a client that is not ours."""
        return {
            "bootstrap.servers": self.broker.walled,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": login,
            "sasl.password": PASSWORD,
            "log_level": 0,
        }

    @contextmanager
    def allowed(self, *rows: Granted) -> Iterator[None]:
        """Grant these rights, and take them back."""
        topics = self.scene.topics
        names = {
            "access-token.set-effective.commands": topics.commands,
            "access-token.set-effective.results": topics.results,
            "access-token.transitions": topics.transitions,
            "access-token.set-effective.dead-letters": topics.dead_letters,
            "effective-worker": self.scene.group,
        }
        admin = self.scene.admin()
        bindings = [binding for row in rows for binding in row.bindings(names)]
        for made in admin.create_acls(bindings).values():
            made.result(timeout=patience(60))
        try:
            yield
        finally:
            anything: list[Any] = [ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY]
            everything = AclBindingFilter(*anything, AclPermissionType.ANY)  # type: ignore[call-arg] # counted wrongly
            for gone in admin.delete_acls([everything]).values():
                gone.result(timeout=patience(60))

    def run(self, login: str, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run a command by that login."""
        return run(self.scene, *arguments, **self.settings_of(login), **settings)

    def lines(self, login: str, **settings: str) -> dict[str, str]:
        """Return the words of ``check``, by the name of the line."""
        checks = json.loads(self.run(login, "check", "--json", **settings).stdout)["checks"]
        return {each["name"]: f"{each['state']}: {each['detail']}" for each in checks}

    def read(self, login: str, topic: str, count: int) -> list[bytes | None]:
        """Return so many values of a topic. Raises ``KafkaException``."""
        consumer = Consumer(
            self.client(login)
            | {"group.id": f"{login}-1", "auto.offset.reset": "earliest", "enable.auto.commit": False}
        )
        try:
            consumer.subscribe([topic])
            values: list[bytes | None] = []
            deadline = Ceiling()
            while len(values) < count and deadline.left:
                message = consumer.poll(0.2)
                if message is None:
                    continue
                if message.error() is not None:
                    raise KafkaException(message.error())
                values.append(message.value())
            consumer.commit(asynchronous=False)
            return values
        finally:
            consumer.close()


@pytest.fixture(scope="module")
def walled(shared_scene: Scene) -> Iterator[Walled]:
    broker = WalledKafka()
    with on_a_broker_of_its_own(shared_scene, broker) as scene:
        yield Walled(scene, broker)


def of(login: str, *, without: Granted | None = None) -> list[Granted]:
    return [row for row in GRANTED if row.login == login and row != without]


CHECKED: Final = [row for row in of("worker") if row.name != "replies-*"]
"""The rows that ``check`` covers.

The topics that senders may ask for are a pattern, and no single topic to look at.
"""


def test_every_login_has_its_rows() -> None:
    assert {row.login for row in GRANTED} == set(LOGINS) - {"nobody"}
    assert len(CHECKED) == 6


def test_a_worker_works_and_its_sender_and_reader_get_what_is_theirs(walled: Walled) -> None:
    scene = walled.scene
    codes = scene.new_tokens(2, prefix="access")
    with walled.allowed(*of("worker"), *of("sender"), *of("reader")):
        settings = walled.settings_of("worker")
        for delivery, code in zip(("exactly_once", "at_least_once"), codes, strict=True):
            with scene.worker(DELIVERY=delivery, **settings) as worker:
                producer = Producer(walled.client("sender"))
                producer.produce(scene.topics.commands, body(code))
                assert producer.flush(patience(60)) == 0
                scene.wait_consumed()
                assert worker.terminate() == 0
                assert worker.events("dependency_away") == []
        assert {
            json.loads(each or b"")["status"]["code"] for each in walled.read("sender", scene.topics.results, 2)
        } == {"OK"}
        assert len(walled.read("reader", scene.topics.transitions, 2)) == 2
        for login, topic in (
            ("sender", scene.topics.commands),
            ("sender", scene.topics.transitions),
            ("reader", scene.topics.results),
            ("worker", scene.topics.results),
            ("nobody", scene.topics.transitions),
        ):
            with pytest.raises(KafkaException, match="AUTHORIZATION"):
                walled.read(login, topic, 1)


def test_check_finds_all_that_a_worker_needs(walled: Walled) -> None:
    with walled.allowed(*of("worker")):
        assert walled.lines("worker")["rights"].startswith("ok: ")
        assert "allow DESCRIBE_CONFIGS on it" in walled.lines("worker")["topics"]


@pytest.mark.parametrize("lacking", CHECKED, ids=lambda row: f"{row.operation} on {row.kind} {row.name}")
def test_check_names_the_right_that_is_lacking_and_no_other(walled: Walled, lacking: Granted) -> None:
    with walled.allowed(*of("worker", without=lacking)):
        lines = walled.lines("worker")
    assert lines["broker"].startswith("ok: ")
    refused = lines["rights"].removeprefix("failed: the broker refuses ").partition(":")[0]
    assert refused.startswith(f"{lacking.operation} on {lacking.kind} ")
    assert refused.count(" on ") == 1


def test_at_least_once_needs_no_transactional_id(walled: Walled) -> None:
    lacking = next(row for row in CHECKED if row.kind == "transactional id")
    with walled.allowed(*of("worker", without=lacking)):
        assert walled.lines("worker", DELIVERY="at_least_once")["rights"].startswith("ok: ")


def test_a_login_that_may_do_nothing_is_told_so_and_not_that_no_broker_answers(walled: Walled) -> None:
    lines = walled.lines("nobody")
    assert lines["broker"].startswith("ok: ")
    assert lines["rights"].count(" on ") == len(CHECKED)


@pytest.mark.parametrize(
    ("login", "arguments"),
    [
        ("auditor", "audit verify"),
        ("auditor", "reconcile"),
        ("auditor", "lanes list"),
        ("auditor", "dead-letters list"),
        ("operator", "topics plan"),
        ("operator", "dead-letters replay"),
        ("operator", "lanes list"),
    ],
)
def test_what_stands_in_its_rows_is_enough(walled: Walled, login: str, arguments: str) -> None:
    with walled.allowed(*of(login)):
        done = walled.run(login, *arguments.split())
    # The topics of these tests are no deployment's, and `topics plan` says so with its exit code.
    right = {0, 1} if arguments == "topics plan" else {0}
    assert done.returncode in right, done.stdout + done.stderr
    assert "error: " not in done.stderr


def test_an_operator_makes_a_topic_that_is_missing(walled: Walled) -> None:
    missing = "access-token.made-by-an-operator"
    with walled.allowed(*of("operator")):
        done = walled.run("operator", "topics", "apply", TOPICS__DEAD_LETTERS=missing)
    assert f"{missing}: created" in done.stdout, done.stderr
    assert missing in walled.scene.admin().list_topics(timeout=patience(60)).topics


def test_who_may_not_see_what_it_has_made_is_told_so(walled: Walled) -> None:
    lacking = next(row for row in of("operator") if row.operation == "DESCRIBE" and row.kind == "topic")
    with walled.allowed(*of("operator", without=lacking)):
        done = walled.run("operator", "topics", "apply", TOPICS__DEAD_LETTERS="access-token.never-seen")
    assert done.returncode == 1
    assert "made, but not to be seen after 10 seconds: access-token.never-seen" in done.stderr
    assert "is DESCRIBE on it allowed?" in done.stderr


def test_an_operator_submits_and_finds_the_answers_among_others(walled: Walled, tmp_path: Path) -> None:
    [code] = walled.scene.new_tokens(1, prefix="submitted")
    file = tmp_path / "codes.csv"
    file.write_text(f"authentication_code\n{code}\n", encoding="utf-8")
    with walled.allowed(*of("worker"), *of("operator")), walled.scene.worker(**walled.settings_of("worker")):
        arguments = ("submit", str(file), "--token", login_token(), "--reply-topic", walled.scene.topics.results)
        done = walled.run("operator", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("login", ["sender", "operator"])
def test_a_sender_and_an_operator_may_send_one_command(walled: Walled, login: str) -> None:
    [code] = walled.scene.new_tokens(1, prefix=f"sent-by-{login}")
    with walled.allowed(*of("worker"), *of(login)), walled.scene.worker(**walled.settings_of("worker")):
        done = walled.run(login, "send", "--code", code, "--login-token", login_token())
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("lacking", "instead", "words"),
    [
        ("commands", None, "this login may send nothing: allow WRITE on topic {commands}"),
        ("commands", "DESCRIBE", "this login may send nothing: allow WRITE on topic {commands}"),
        ("results", None, "the topic {results} does not exist, or this login may not see it"),
        ("results", "DESCRIBE", "answers cannot be read: allow READ on topic {results}"),
    ],
)
def test_a_sender_that_lacks_a_right_is_told_which(
    walled: Walled, lacking: str, instead: str | None, words: str
) -> None:
    topics = walled.scene.topics
    row = next(row for row in of("sender") if row.name == f"access-token.set-effective.{lacking}")
    granted = [*of("sender", without=row), *([] if instead is None else [replace(row, operation=instead)])]
    with walled.allowed(*granted):
        done = walled.run("sender", "send", "--code", "1", "--login-token", login_token())
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: kafka: {words.format(commands=topics.commands, results=topics.results)}")
    assert done.stderr.count("\n") == 1


def test_a_wrong_password_is_called_so(walled: Walled) -> None:
    wrong = walled.settings_of("sender") | {"KAFKA__SASL_PASSWORD": "canary"}
    done = run(walled.scene, "send", "--code", "1", "--login-token", login_token(), **wrong)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: kafka: no broker can be used: {walled.broker.walled}: ")
    assert "the broker refuses this login (WORKER_KAFKA__SASL_" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "canary" not in done.stderr


def test_an_importer_announces_and_keeps_how_far(walled: Walled, tmp_path: Path) -> None:
    file = lines(tmp_path / "new.ndjson", 3)
    with walled.allowed(*of("importer")):
        owner = {"POSTGRES__OWNER_DSN": walled.scene.database.owner_dsn}
        done = walled.run("importer", "import", str(file), "--json", **owner)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["events"]["published"] == 3
    assert "allow READ on the group" not in done.stderr


def test_an_eraser_finds_and_deletes_what_everybody_has_read(walled: Walled) -> None:
    scene = walled.scene
    owner = {"POSTGRES__OWNER_DSN": scene.database.owner_dsn}
    erasing = ("contact", "erase", "--organisation", "ORG1", CONTACT, "--json")
    with walled.allowed(*of("worker"), *of("sender")), scene.worker(**walled.settings_of("worker")):
        scene.send(Outgoing(body(CODE), b"a", (), 0))
        scene.wait_consumed()
    with walled.allowed(*of("eraser")):
        planned = walled.run("eraser", *erasing, **owner)
        done = walled.run("eraser", *erasing, "--yes", "--delete-records", **owner)
        again = walled.run("eraser", *erasing, **owner)

    assert (planned.returncode, done.returncode, again.returncode) == (0, 0, 0), planned.stderr + done.stderr
    found = {each["topic"]: each for each in json.loads(planned.stdout)["mentions"]}
    deleted = {each["topic"]: each["deleted"] for each in json.loads(done.stdout)["mentions"]}
    assert found[scene.topics.commands]["readers"] == [scene.group]
    assert found[scene.topics.commands]["gone_by"]
    assert deleted[scene.topics.commands]
    # No group is known to have read results, so they are left to retention.
    assert not deleted[scene.topics.results]
    assert scene.topics.commands not in {each["topic"] for each in json.loads(again.stdout)["mentions"]}


def test_an_eraser_who_may_not_look_erases_nothing(walled: Walled) -> None:
    lacking = next(row for row in of("eraser") if row.operation == "READ")
    owner = {"POSTGRES__OWNER_DSN": walled.scene.database.owner_dsn}
    walled.scene.send(Outgoing(body("none"), b"a", (), 0))
    before = walled.scene.every_table()
    with walled.allowed(*of("eraser", without=lacking)):
        done = walled.run("eraser", "contact", "erase", "--organisation", "ORG1", CONTACT, "--yes", **owner)
    assert (done.returncode, "nothing was erased" in done.stderr) == (1, True), done.stderr
    assert walled.scene.every_table() == before
