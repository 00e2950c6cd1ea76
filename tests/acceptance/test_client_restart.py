"""The senders' client while the broker is away: each call gets its answer or a reason, and nothing is left behind."""

import asyncio

import pytest

from effective_contract.client import CommandRefused, CommandTimeout
from tests.acceptance.scene import Scene
from tests.acceptance.test_client import ask, client_of, others, running, shown, until_at_work
from tests.logins import login_token
from tests.pace import patience

pytestmark = [pytest.mark.real_kafka, pytest.mark.own_servers]


@pytest.mark.slow(
    why="the broker is started twice under load: 30 s",
    instead="tests/acceptance/test_broker_restart.py::test_the_broker_stopped_and_killed_under_load",
)
def test_the_broker_is_restarted_while_calls_wait(scene: Scene) -> None:
    codes = scene.new_tokens(1000)

    async def story() -> None:
        worker = scene.worker(MAX_BATCH="20")
        async with running(worker), client_of(scene, timeout=patience(240)) as client:
            token = login_token()
            for share, away in ((codes[:500], scene.kafka.stop), (codes[500:], scene.kafka.kill)):
                before = client.counts.answered
                calls = [asyncio.create_task(ask(client, code, token=token)) for code in share]
                await until_at_work(client, before + 50)
                await away()
                during = asyncio.create_task(ask(client, "nobody's", token=token))
                await scene.kafka.start()
                answers = await asyncio.gather(*calls)
                assert [answer.data for answer in answers] == [shown(code) for code in share]
                with pytest.raises(CommandRefused, match="ACCESS_TOKEN_NOT_FOUND"):
                    await during
            assert client.counts.waiting == 0

    asyncio.run(story())


def test_nothing_is_left_of_a_command_that_no_broker_took(scene: Scene) -> None:
    async def story() -> None:
        async with client_of(scene) as client:
            await scene.kafka.stop()
            with pytest.raises(CommandTimeout, match="no answer of the broker") as caught:
                await ask(client, "1", timeout=2.0)
            assert not caught.value.taken
        assert others() == []
        await scene.kafka.start()

    asyncio.run(story())
