"""The senders' client on real servers: every call gets its own answer, whatever happens to workers and broker."""

import asyncio
import logging
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import chain, repeat
from typing import Any, Final, TypeVar
from uuid import uuid4

import pytest
from confluent_kafka.cimpl import NewPartitions

from effective_contract.client import (
    BlockingCommandClient,
    BrokerAway,
    ClientClosed,
    CommandClient,
    CommandRefused,
    CommandTimeout,
    CommandTooLarge,
    NoSuchTopic,
    Retry,
    SetEffective,
)
from tests.acceptance.clients import Outgoing, Record, log_ends, send
from tests.acceptance.scene import Scene, answer
from tests.acceptance.test_two_workers import partitions_of, wait_for_split
from tests.acceptance.worker_process import ROOT, WorkerProcess
from tests.providers.kafka import PARTITIONS, create_topics, delete_topics
from tests.support.logins import login_token
from tests.support.pace import patience, stretched
from tests.support.waiting import run_to_end, until_answered, wait_until

pytestmark = pytest.mark.real_kafka

T = TypeVar("T")

MANY: Final = 10_000
SHOWN: Final = "authentication_code,life_cycle_state"
NUMBER: Final = b'{"data": {"number": "AT1"}, "status": {"code": "OK", "description": "", "message": ""}}'


def client_of(scene: Scene, **options: Any) -> CommandClient:
    topics = {"commands": scene.topics.commands, "results": scene.topics.results}
    return CommandClient(scene.kafka.bootstrap, **{**topics, "timeout": patience(120), **options})


async def ask(client: CommandClient, code: str, **options: Any) -> SetEffective:
    return await client.set_effective(
        **{"token": login_token(), "authentication_code": code, "fields_set": SHOWN, **options}
    )


def sent(scene: Scene) -> int:
    """Return the number of commands that the broker has."""
    return sum(log_ends(scene.kafka.bootstrap, scene.topics.commands).values())


def others() -> list[str]:
    """Return the tasks that run besides the current one."""
    return [repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def until(look: Callable[[], T], wanted: Callable[[T], object], what: str) -> None:
    """Look until the result is ``wanted``, while the client goes on."""
    await until_answered(lambda: asyncio.to_thread(look), wanted, what=what, pause=0.05)


async def until_at_work(client: CommandClient, count: int) -> None:
    """Wait until more than so many calls are answered."""
    await until(lambda: client.counts.answered, lambda answered: answered > count, f"more than {count} were answered")


@asynccontextmanager
async def running(*workers: WorkerProcess) -> AsyncIterator[None]:
    """Run the workers, started and ready, while the loop of the client runs on."""
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            await asyncio.to_thread(worker.wait_ready)
        yield
    finally:
        for worker in workers:
            worker.kill()


def shown(code: str) -> dict[str, str]:
    return {"authentication_code": code, "life_cycle_state": "EFFECTIVE"}


def test_each_call_gets_its_own_answer_or_its_own_refusal(scene: Scene) -> None:
    async def story() -> None:
        async with running(scene.worker()), client_of(scene, source="/shop") as client:
            code, other = await asyncio.to_thread(scene.new_tokens, 2)
            first, refused = await asyncio.gather(
                ask(client, code, ce_id="order 7", key="card-1", traceparent=f"00-{'1' * 32}-{'2' * 16}-01"),
                ask(client, "nobody's", ce_id="order 8"),
                return_exceptions=True,
            )
            assert isinstance(first, SetEffective)
            assert (first.data, first.replayed) == (shown(code), False)
            assert first.command_id == "ce:ORG1:%2Fshop:order%207"
            assert isinstance(refused, CommandRefused)
            assert (refused.code, refused.ce_id, refused.ce_source) == ("ACCESS_TOKEN_NOT_FOUND", "order 8", "/shop")
            assert refused.command_id == "ce:ORG1:%2Fshop:order%208"

            again = await ask(client, code, ce_id="order 7", token=login_token())
            assert (again.data, again.replayed, again.command_id) == (shown(code), True, first.command_id)
            with pytest.raises(CommandRefused, match="DUPLICATE_REQUEST"):
                await ask(client, other, ce_id="order 7")

            for _ in range(2):  # the second time it would be a replay, if the first had had any effect
                rehearsed = await ask(client, other, ce_id="order 9", dry_run=True)
                assert (rehearsed.data, rehearsed.replayed, rehearsed.dry_run) == (shown(other), False, True)
            with pytest.raises(CommandRefused, match="INVALID_LIFE_CYCLE_STATE") as caught:
                await ask(client, code, dry_run=True)
            assert caught.value.dry_run
            real = await ask(client, other, ce_id="order 9")
            assert (real.data, real.replayed, real.dry_run) == (shown(other), False, False)
            assert client.counts.late == client.counts.foreign == client.counts.waiting == 0

    asyncio.run(story())
    [command] = [record for record in scene.seen(scene.topics.commands) if record.key == b"card-1"]
    assert command.header("traceparent") == f"00-{'1' * 32}-{'2' * 16}-01".encode()
    assert command.header("reply_to") is None
    [result] = [record for record in scene.seen(scene.topics.results) if record.key == b"card-1"]
    assert (result.header("traceparent") or b"").startswith(b"00-" + b"1" * 32)


@pytest.mark.slow(
    why="ten thousand calls, and the session of a dead worker",
    instead="tests/acceptance/test_client.py::test_two_clients_share_a_results_topic",
)
def test_ten_thousand_calls_at_once_while_one_of_two_workers_is_killed(scene: Scene) -> None:
    codes = scene.new_tokens(MANY)

    async def story() -> None:
        staying, falling = scene.worker(MAX_BATCH="100"), scene.worker(MAX_BATCH="100")
        async with running(staying, falling), client_of(scene, timeout=patience(240)) as client:
            await asyncio.to_thread(wait_for_split, staying, falling)
            token = login_token()
            calls = [asyncio.create_task(ask(client, code, token=token)) for code in codes]
            await until_at_work(client, MANY // 10)
            assert client.counts.answered < MANY
            falling.kill()
            answers = await asyncio.gather(*calls)
            assert partitions_of(staying) == list(range(PARTITIONS))
            assert [answer.data for answer in answers] == [shown(code) for code in codes]
            assert not any(answer.replayed for answer in answers)
            counts = client.counts
            assert (counts.made, counts.answered, counts.waiting) == (MANY, MANY, 0)
            assert (counts.late, counts.foreign) == (0, 0)

    asyncio.run(story())
    assert len(scene.seen(scene.topics.results)) == MANY


def test_a_late_reply_answers_no_later_call(scene: Scene) -> None:
    late, next_one = scene.new_tokens(2)

    async def story() -> None:
        worker = scene.worker()
        async with running(worker), client_of(scene, source="/shop") as client:
            worker.pause()
            with pytest.raises(CommandTimeout, match="may still be applied: ask again with ce_id='order-1'") as caught:
                await ask(client, late, ce_id="order-1", timeout=stretched(2))
            assert caught.value.taken
            with pytest.raises(CommandTimeout):
                await ask(client, late, ce_id="order-1", timeout=stretched(1))
            waiting = asyncio.create_task(ask(client, next_one))
            await until(lambda: sent(scene), lambda count: count == 3, "all were sent")
            worker.resume()
            assert (await waiting).data == shown(next_one)
            await until(lambda: client.counts.late, lambda late: late == 2, "both came late")
            # The way out that the error names.
            again = await ask(client, late, ce_id=caught.value.ce_id, ce_source=caught.value.ce_source)
            assert (again.data, again.replayed) == (shown(late), True)
            assert client.counts.answered == 2

    asyncio.run(story())


def test_a_retry_is_the_same_command_with_a_fresh_login(scene: Scene) -> None:
    [code] = scene.new_tokens(1)
    logins = chain([login_token(exp=1_000_000_000)], repeat(login_token()))

    async def story() -> None:
        worker = scene.worker()
        async with running(worker), client_of(scene) as client:
            worker.pause()

            async def log_in() -> str:
                return next(logins)

            retried = asyncio.create_task(
                ask(client, code, token=log_in, timeout=stretched(2), retry=Retry(attempts=10, pause_seconds=0))
            )
            await until(lambda: sent(scene), lambda count: count >= 2, "the second attempt was under way")
            worker.resume()
            assert (await retried).data == shown(code)
            # The refusal of the first, whose login had expired, was not taken for the answer of a later one. It has a
            # partition of its own, whose turn may come later.
            others_sent = sent(scene) - 1
            await until(lambda: client.counts.late, lambda late: late == others_sent, "all others came late")

    asyncio.run(story())
    statuses = [answer(record)["status"]["code"] for record in scene.seen(scene.topics.results)]
    assert Counter(statuses) == {"EXPIRED_TOKEN": 1, "OK": len(statuses) - 1}
    assert len({record.header("ce_id") for record in scene.seen(scene.topics.commands)}) == 1


def test_two_clients_share_a_results_topic(scene: Scene) -> None:
    codes = scene.new_tokens(200)

    async def story() -> None:
        async with running(scene.worker()), client_of(scene) as one, client_of(scene) as other:
            answers = await asyncio.gather(
                *(ask(client, code) for code, client in zip(codes, [one, other] * 100, strict=True))
            )
            assert [answer.data for answer in answers] == [shown(code) for code in codes]
            await until(
                lambda: (one.counts.foreign, other.counts.foreign),
                lambda counts: counts == (100, 100),
                "each had seen the other's",
            )
            assert one.counts.late == other.counts.late == 0

    asyncio.run(story())


def widen(scene: Scene, partitions: int) -> None:
    """Give commands, results and transitions so many partitions."""
    admin = scene.admin()
    topics = (scene.topics.commands, scene.topics.results, scene.topics.transitions)
    for made in admin.create_partitions([NewPartitions(topic, partitions) for topic in topics]).values():
        made.result(patience(60))


def test_replies_on_a_partition_that_came_later_are_read(scene: Scene) -> None:
    codes = scene.new_tokens(50)

    async def story() -> None:
        async with client_of(scene) as client:
            await asyncio.to_thread(widen, scene, PARTITIONS + 2)
            async with running(scene.worker()), client_of(scene) as knowing:
                answers = await asyncio.gather(*(ask(client, code) for code in codes[:25]))
                assert [answer.data for answer in answers] == [shown(code) for code in codes[:25]]
                answers = await asyncio.gather(*(ask(knowing, code) for code in codes[25:]))
                assert [answer.data for answer in answers] == [shown(code) for code in codes[25:]]
                await until(lambda: client.counts.foreign, lambda seen: seen == 25, "the first read those too")

    asyncio.run(story())
    used = {record.partition for record in scene.seen(scene.topics.results)}
    assert used & {PARTITIONS, PARTITIONS + 1}, "no reply was on a new partition: the test has shown nothing"


def the_command(scene: Scene, key: bytes) -> Record:
    """Return the command with this key, once the broker has it."""

    def sent_so() -> list[Record]:
        return [record for record in scene.seen(scene.topics.commands) if record.key == key]

    [command] = wait_until(sent_so, lambda found: len(found) == 1, what=f"{key!r} was sent", pause=0.05)
    return command


def test_replies_to_a_topic_of_ones_own(scene: Scene) -> None:
    """A stand-in answers, so that only the client is tested."""
    own = f"own-{uuid4().hex[:12]}"
    create_topics(scene.kafka.bootstrap, own)

    async def story() -> None:
        async with client_of(scene, reply_to=own) as client:
            for key, topic in ((b"first", scene.topics.results), (b"second", own)):
                waiting = asyncio.create_task(ask(client, "1", key=key))
                command = await asyncio.to_thread(the_command, scene, key)
                assert command.header("reply_to") == own.encode()
                headers = [("correlation_id", command.header("correlation_id") or b"")]
                await asyncio.to_thread(send, scene.kafka.bootstrap, topic, [Outgoing(NUMBER, None, headers)])
                assert (await waiting).data == {"number": "AT1"}
            assert (client.counts.answered, client.counts.late, client.counts.foreign) == (2, 0, 0)

    asyncio.run(story())
    delete_topics(scene.kafka.bootstrap, own)


def test_a_reply_topic_that_the_worker_does_not_allow_is_a_refusal(scene: Scene) -> None:
    own = f"own-{uuid4().hex[:12]}"
    create_topics(scene.kafka.bootstrap, own)

    async def story() -> None:
        async with running(scene.worker()), client_of(scene, reply_to=own) as client:
            with pytest.raises(CommandRefused, match="names a topic to which no answers may be sent") as caught:
                await ask(client, "1")
            assert caught.value.code == "INVALID_PARAMETER"

    asyncio.run(story())
    delete_topics(scene.kafka.bootstrap, own)


def test_a_blocking_client_on_a_real_broker(scene: Scene) -> None:
    code, other = scene.new_tokens(2)
    with scene.worker(), BlockingCommandClient(client_of(scene, source="/shop")) as client:
        answer_ = client.set_effective(token=login_token(), authentication_code=code, fields_set=SHOWN, ce_id="order-7")
        again = client.submit(token=login_token, authentication_code=code, fields_set=SHOWN, ce_id="order-7")
        another = client.submit(token=login_token, authentication_code=other, fields_set=SHOWN)
        assert (answer_.data, again.result().replayed, another.result().data) == (shown(code), True, shown(other))
        with pytest.raises(CommandRefused, match="ACCESS_TOKEN_NOT_FOUND"):
            client.set_effective(token=login_token(), authentication_code="nobody's")


def test_a_reply_topic_of_ones_own_gets_every_answer_and_the_shared_one_none(scene: Scene) -> None:
    codes, own = scene.new_tokens(50), f"own-{uuid4().hex[:12]}"
    create_topics(scene.kafka.bootstrap, own)

    async def story() -> None:
        allowing = scene.worker(TOPICS__REPLY_TO_ALLOWED="own-*")
        async with running(allowing), client_of(scene, reply_to=own) as client:
            answers = await asyncio.gather(*(ask(client, code) for code in codes))
            assert [answer.data for answer in answers] == [shown(code) for code in codes]
            with pytest.raises(CommandRefused) as refused:
                await ask(client, "nobody's")
            assert refused.value.code == "ACCESS_TOKEN_NOT_FOUND"

    asyncio.run(story())
    assert scene.seen(scene.topics.results) == []
    assert len(scene.seen(own)) == len(codes) + 1
    delete_topics(scene.kafka.bootstrap, own)


def test_a_command_too_large_for_the_topic_takes_none_with_it(scene: Scene) -> None:
    codes = scene.new_tokens(20)
    scene.set_up(scene.topics.commands, "max.message.bytes", "2000")

    async def story() -> None:
        async with running(scene.worker()), client_of(scene) as client:
            large = ask(client, codes[0], fields_set="number," * 500 + "number")
            outcomes = await asyncio.gather(large, *(ask(client, code) for code in codes), return_exceptions=True)
            assert isinstance(outcomes[0], CommandTooLarge)
            assert not outcomes[0].may_be_applied
            assert [getattr(outcome, "data", outcome) for outcome in outcomes[1:]] == [shown(code) for code in codes]

    asyncio.run(story())


def test_closing_and_cancelling_leave_nothing_waiting(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = login_token()

    async def story() -> None:
        async with client_of(scene, max_in_flight=2) as client:
            waiting = [asyncio.create_task(ask(client, "1", token=token)) for _ in range(3)]
            await until(lambda: sent(scene), lambda count: count == 2, "as many were sent as may be in flight")
            waiting[0].cancel()
            await until(lambda: sent(scene), lambda count: count == 3, "the third had its turn")
            assert client.counts.waiting == 2
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError, ClientClosed, ClientClosed]
        assert [outcome.may_be_applied for outcome in outcomes[1:] if isinstance(outcome, ClientClosed)] == [True] * 2
        with pytest.raises(ClientClosed) as caught:
            await ask(client, "1", token=token)
        assert not caught.value.may_be_applied
        assert others() == []

    asyncio.run(story())
    assert caplog.records, "nothing was logged: the test has shown nothing"
    assert token not in caplog.text


def test_a_client_that_cannot_be_opened_says_why(scene: Scene) -> None:
    async def story() -> None:
        with pytest.raises(BrokerAway, match=r"no broker answers at 127\.0\.0\.1:1: check bootstrap_servers"):
            async with client_of(scene, reply_to=None, connection={"bootstrap_servers": "127.0.0.1:1"}):
                pytest.fail("it was opened")
        with pytest.raises(NoSuchTopic, match="absent"):
            async with client_of(scene, reply_to="absent"):
                pytest.fail("it was opened")
        assert others() == []

    asyncio.run(story())


def test_the_program_of_the_documents_works(scene: Scene) -> None:
    page = (ROOT / "docs" / "senders.md").read_text(encoding="utf-8")
    [program] = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    topics = f'commands="{scene.topics.commands}", results="{scene.topics.results}"'
    here = program.replace('"kafka:9092"', f'"{scene.kafka.bootstrap}", {topics}')
    assert here != program
    with scene.worker():
        command = [sys.executable, "-c", here, login_token()]
        ran = run_to_end(command, what="the program of docs/senders.md ended", cwd=ROOT)

    assert (ran.returncode, ran.stdout) == (0, "AT0000000671 EFFECTIVE\n"), ran.stderr
