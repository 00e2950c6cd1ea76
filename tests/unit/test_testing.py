"""The senders' test kit: the contract's rules without Kafka, and refusals, losses and delays on demand."""

import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from effective_contract.client import CommandClient, CommandRefused, CommandTimeout, Retry
from effective_contract.client.client import RESULTS
from effective_contract.codes import StatusCode
from effective_contract.testing import InMemoryWorker, Reply
from tests.contract.bad_inputs import BAD_INPUTS, BadInput
from tests.contract.expectations import EXPECTATIONS, OWN, Answer
from tests.support.pace import stretched
from tests.support.waiting import run_to_end, until_answered
from worker.operations.contract.samples import SAMPLES, TOKEN

ROOT: Final = Path(__file__).parents[2]
FIXTURE: Final = ROOT / "tests" / "seed" / "fixture.ndjson"
CODE: Final = "99021047380"


def seeded() -> InMemoryWorker:
    """Return a worker with the access tokens of the fixture."""
    worker = InMemoryWorker(reply_topics=[OWN], other_topics=["somebody.elses"])
    for line in FIXTURE.read_text(encoding="utf-8").splitlines():
        members = json.loads(line)
        if members.pop("kind") == "access_token":
            worker.add(members.pop("authentication_code"), **members)
    return worker


class InMemory:
    """The world of an in-memory worker (``tests.contract.expectations.World``)."""

    def __init__(self) -> None:
        self.worker = seeded()
        self._numbers = count(1)

    def client(self, *, source: str | None = None, reply_to: str | None = None) -> CommandClient:
        return self.worker.client(source=source, reply_to=reply_to, timeout=stretched(10))

    def login(self, user: str = "mpadmin", *, expired: bool = False, account: str | None = None) -> str:
        return self.worker.login(
            user=user,
            account=account,
            is_expired=expired,
            may_set_effective=user != "reader",
            is_active=user != "leaver",
        )

    async def new_code(self) -> str:
        code = f"new-{next(self._numbers)}"
        self.worker.add(code)
        return code

    async def exchange(self, value: bytes, headers: Mapping[str, bytes], key: bytes | None = None) -> Answer:
        return shown(self.worker.answer(value, [*headers.items()], key))


def shown(reply: Reply | None) -> Answer:
    assert reply is not None
    return Answer(reply.key, json.loads(reply.value), dict(reply.headers))


@pytest.mark.parametrize("expectation", EXPECTATIONS, ids=lambda each: each.__name__)
async def test_the_test_kit_does_what_a_sender_may_expect(expectation: Any) -> None:
    await expectation(InMemory())


# --- the rules of a message -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [row for row in BAD_INPUTS if row.stage == "decode"], ids=lambda row: row.name)
def test_the_test_kit_refuses_bad_inputs_as_the_worker_does(row: BadInput) -> None:
    worker = seeded()
    before = worker.access_token(CODE)

    answer = shown(worker.answer(row.value, row.headers))

    assert answer.value["status"]["code"] == row.status
    assert row.says in answer.value["status"]["message"]
    assert worker.access_token(CODE) == before
    assert worker.received[-1].status == row.status


OF_A_DATABASE: Final = "internal-error"
"""The sample that a constraint in Postgres decides."""


def test_the_test_kit_answers_as_the_samples_of_the_contract_say() -> None:
    worker = seeded()
    for sample in SAMPLES:
        if sample.name == OF_A_DATABASE:
            continue
        token = "none"
        if sample.login is not None:
            allowed = sample.login.user != "reader"
            token = worker.login(
                organisation=sample.login.organisation, is_expired=sample.login.expired, may_set_effective=allowed
            )
        command = sample.command
        value = orjson.dumps(command.value) if command.is_json else command.value
        headers = [(name, text.encode()) for name, text in command.headers.items()]
        reply = worker.answer(value.replace(TOKEN.encode(), token.encode()), headers, command.key.encode())
        answer = shown(reply)
        assert reply is not None
        assert reply.topic == (sample.result.topic or RESULTS), sample.name
        told = deepcopy(sample.result.value)
        for each in (answer.value, told):
            each["data"].pop("log_information", None)
        assert answer.value == told, sample.name
        assert answer.headers.keys() == sample.result.headers.keys(), sample.name
        if not sample.result.headers["command_id"].startswith("rec:"):
            assert answer.headers["command_id"].decode() == sample.result.headers["command_id"], sample.name


# --- on demand --------------------------------------------------------------------------------------------------------


def small() -> InMemoryWorker:
    return InMemoryWorker({CODE: {"number": "AT0000000671"}})


async def test_what_is_not_given_has_a_sensible_value() -> None:
    worker = small()
    async with worker.client(source="/shop") as client:
        answer = await client.set_effective(token=worker.login(), authentication_code=CODE)

    assert answer.data["number"] == "AT0000000671"
    assert answer.data["life_cycle_state"] == worker.access_token(CODE)["life_cycle_state"] == "EFFECTIVE"
    assert answer.data["udf_string_1"] is None


async def test_a_status_can_be_had_for_the_next_commands_and_changes_nothing() -> None:
    worker = small()
    worker.refuse_next("INTERNAL_ERROR", "the poison of the day", times=2)
    async with worker.client() as client:
        with pytest.raises(CommandRefused, match="the poison of the day"):
            await client.set_effective(token=worker.login(), authentication_code=CODE)
        assert worker.access_token(CODE)["life_cycle_state"] == "NOT_EFFECTIVE"
        retry = Retry(attempts=2, pause_seconds=0)
        answer = await client.set_effective(token=worker.login(), authentication_code=CODE, retry=retry)

    assert not answer.replayed
    assert [each.status for each in worker.received] == ["INTERNAL_ERROR", "INTERNAL_ERROR", "OK"]
    with pytest.raises(ValueError, match="OK is no refusal"):
        worker.refuse_next("OK")
    with pytest.raises(ValueError, match="TEAPOT"):
        worker.refuse_next("TEAPOT")


async def test_a_lost_answer_leaves_the_sender_in_doubt_and_asking_again_clears_it() -> None:
    worker = small()
    worker.lose_next_answers()
    async with worker.client(source="/shop", timeout=stretched(0.1)) as client:
        with pytest.raises(CommandTimeout) as caught:
            await client.set_effective(token=worker.login(), authentication_code=CODE, ce_id="order-7")
        assert caught.value.may_be_applied
        assert worker.access_token(CODE)["life_cycle_state"] == "EFFECTIVE"
        answer = await client.set_effective(
            token=worker.login(), authentication_code=CODE, ce_id="order-7", timeout=stretched(10)
        )
        assert answer.replayed


async def test_a_lost_command_changes_nothing() -> None:
    worker = small()
    worker.lose_next_commands()
    async with worker.client(timeout=stretched(0.1)) as client:
        with pytest.raises(CommandTimeout):
            await client.set_effective(token=worker.login(), authentication_code=CODE)

    assert worker.access_token(CODE)["life_cycle_state"] == "NOT_EFFECTIVE"
    assert [each.status for each in worker.received] == [None]


def late_replies_of(client: CommandClient) -> Callable[[], Awaitable[int]]:
    async def late() -> int:
        return client.counts.late

    return late


async def test_an_answer_can_come_too_late() -> None:
    worker = small()
    worker.delay_answers(stretched(0.2))
    async with worker.client(timeout=stretched(0.05)) as client:
        with pytest.raises(CommandTimeout):
            await client.set_effective(token=worker.login(), authentication_code=CODE)
        await until_answered(late_replies_of(client), bool, what="the answer came", pause=0.01)


async def test_logins_expire_and_are_revoked() -> None:
    worker = small()
    token = worker.login()
    async with worker.client() as client:
        worker.expire(token)
        with pytest.raises(CommandRefused, match="EXPIRED_TOKEN"):
            await client.set_effective(token=token, authentication_code=CODE)
        worker.revoke(token)
        with pytest.raises(CommandRefused, match="INVALID_TOKEN"):
            await client.set_effective(token=token, authentication_code=CODE)


async def test_a_reply_topic_that_is_not_allowed_is_refused_and_one_that_is_absent_is_no_topic() -> None:
    worker = InMemoryWorker(other_topics=["somebody.elses"])
    async with worker.client(reply_to="somebody.elses", timeout=stretched(10)) as client:
        with pytest.raises(CommandRefused, match="to which no answers may be sent"):
            await client.set_effective(token=worker.login(), authentication_code=CODE)


def test_programs_without_an_event_loop_have_a_client_too() -> None:
    worker = small()
    with worker.blocking_client(source="/shop") as client:
        answer = client.set_effective(token=worker.login, authentication_code=CODE, ce_id="order-7")

    assert answer.command_id == "ce:ORG1:%2Fshop:order-7"


@pytest.mark.parametrize(
    ("members", "told"),
    [({"nmae": "x"}, "nmae"), ({"life_cycle_state": "ON"}, "life_cycle_state"), ({"udf_float_1": "1"}, "udf_float_1")],
)
def test_an_access_token_that_the_contract_does_not_have_is_an_error(members: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"no access token of the contract: {told}"):
        InMemoryWorker({CODE: members})


def test_no_pass_code_and_no_access_token_stands_in_a_repr() -> None:
    worker = InMemoryWorker({CODE: {"identifier": "a@b.example"}}, pass_codes={"a@b.example": "canary"})

    assert "canary" not in repr(vars(worker))


def test_the_fixture_is_a_plugin_of_pytest(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["effective_contract.testing.fixtures"]\n')
    (tmp_path / "test_shop.py").write_text(
        "def test_it(in_memory_worker):\n"
        "    in_memory_worker.add('1')\n"
        "    with in_memory_worker.blocking_client() as client:\n"
        "        answer = client.set_effective(token=in_memory_worker.login(), authentication_code='1')\n"
        "    assert answer.data['life_cycle_state'] == 'EFFECTIVE'\n"
    )
    ran = run_to_end([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path])
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


def test_every_refusal_of_the_contract_can_be_asked_for() -> None:
    for code in set(StatusCode) - {StatusCode.OK}:
        worker = small()
        worker.refuse_next(code)
        answer = shown(worker.answer(b"{}"))
        assert (answer.value["status"]["code"], answer.headers["status_code"]) == (code, code.encode())
        assert answer.value["status"]["description"] == code.description
