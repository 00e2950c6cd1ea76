"""Every command is answered exactly once, whatever the network or the broker does to a single request (DESIGN 2).

Fault after fault strikes one running worker under load; then all traces left behind are checked.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import pytest

from tests.acceptance.scene import PARTITIONS, Load, Scene
from tests.faults.proxy import Api, Fault, GroupApi, KafkaProxy, Kind, PostgresProxy
from tests.support.pace import stretched

pytestmark = [
    pytest.mark.real_kafka,
    pytest.mark.slow(
        why="every fault of every request, one after the other: four minutes; make faults takes some of them in turn",
        instead="tests/acceptance/test_crash.py::test_a_worker_killed_over_and_over_answers_every_command_once",
    ),
]

TOKENS: Final = 4000
TOGETHER: Final = 8
"""Faults that wait at once for a lane to run into them."""
WAVE: Final = 8 * PARTITIONS
"""Commands of a wave: enough per partition to be halved by several refusals in a row."""
WAVES: Final = 20
"""Waves, with a pause between each, within which a fault must strike."""
PAUSE: Final = stretched(0.5)

# The waits that matter to a worker of these tests: a transaction may take 1.8 s, an answer 3 s. On a slow machine all
# of these grow alike.
BELOW_THE_DEADLINE: Final = stretched(0.5)
ABOVE_THE_DEADLINE: Final = stretched(2.2)
ABOVE_THE_REQUEST_TIMEOUT: Final = stretched(3.3)

_COORDINATOR: Final = (14, 15, 16, 51)  # loading, not available, not this one, the transaction before is not over
_FENCED: Final = (47, 48, 49, 53, 90)  # epoch, state, mapping, not authorised, the newer code for fenced
ERRORS: Final[Mapping[Api | GroupApi, tuple[int, ...]]] = {
    # Corrupt, unknown topic, not the leader, timed out, too few replicas before and after, disk; too large (twice),
    # not authorised, sequence, epoch, state, forgotten producer, invalid, unknown.
    Api.PRODUCE: (2, 3, 6, 7, 19, 20, 56, 10, 18, 29, 45, 47, 48, 59, 87, -1),
    # Out of range, unknown topic, not the leader, no replica, disk, epochs, not authorised, corrupt, unknown.
    Api.FETCH: (1, 3, 5, 6, 9, 29, 56, 74, 76, 2, -1),
    # Coordinator, unknown topic, not authorised (group, topic), membership, unstable, no such group.
    Api.OFFSET_FETCH: (14, 15, 16, 3, 30, 29, 22, 25, 88, 69),
    Api.INIT_PRODUCER_ID: (*_COORDINATOR, *_FENCED, 50),
    Api.ADD_PARTITIONS_TO_TXN: (*_COORDINATOR, 3, *_FENCED, 29, 55, 120),
    Api.ADD_OFFSETS_TO_TXN: (*_COORDINATOR, *_FENCED, 30, 120),
    Api.TXN_OFFSET_COMMIT: (14, 15, 16, 7, 3, *_FENCED, 12, 22, 25, 28, 30, 120),
    Api.END_TXN: (*_COORDINATOR, *_FENCED, 120),
    # Coordinator, generation, member, a rebalance under way, not authorised, timed out, unknown.
    GroupApi.HEARTBEAT: (14, 15, 16, 22, 25, 27, 30, 7, -1),
    # The same; too much metadata, size, not authorised (topic, group).
    GroupApi.OFFSET_COMMIT: (14, 15, 16, 22, 25, 27, 12, 28, 29, 30),
}
TRANSACTIONAL: Final = tuple(api for api in Api if api not in {Api.FETCH, Api.OFFSET_FETCH})


def network_faults(api: Api | GroupApi) -> Iterator[Fault]:
    yield Fault(Kind.DROPPED, api)
    yield Fault(Kind.ANSWER_LOST, api)
    yield Fault(Kind.BLACK_HOLED, api, seconds=BELOW_THE_DEADLINE)
    yield Fault(Kind.DELAYED, api, seconds=BELOW_THE_DEADLINE)
    yield Fault(Kind.DELAYED, api, seconds=ABOVE_THE_DEADLINE)
    yield Fault(Kind.BLACK_HOLED, api, seconds=ABOVE_THE_REQUEST_TIMEOUT)


def error_answers(api: Api | GroupApi) -> Iterator[Fault]:
    for error in ERRORS[api]:
        yield Fault(Kind.REFUSED, api, error=error)
        if api in TRANSACTIONAL or api is GroupApi.OFFSET_COMMIT:
            yield Fault(Kind.MISREPORTED, api, error=error)


def dealt(faults: Sequence[Fault]) -> list[Sequence[Fault]]:
    """Return groups to be armed together, in which no two are neighbours of each other in ``faults``."""
    groups = -(-len(faults) // TOGETHER)
    return [faults[first::groups] for first in range(groups)]


class UnderFire:
    """A load that goes on in waves as long as faults must strike."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._codes = scene.new_tokens(TOKENS)
        self.load = Load(scene, [])

    def wave(self) -> None:
        """Send one more wave, and wait until it is consumed."""
        first = len(self.load.codes)
        self.load.codes.extend(self._codes[first : first + WAVE])
        self.load.send(first + 1, first + WAVE)
        self._scene.wait_consumed()

    def strike(self, proxy: KafkaProxy | PostgresProxy, *faults: Fault) -> None:
        """Let the faults strike, and the worker come through."""
        before = len(proxy.fired)
        proxy.arm(*faults)
        for _ in range(WAVES):
            self.wave()
            if proxy.wait(lambda: not proxy.is_armed(), PAUSE):
                return
        struck = [fired.fault for fired in proxy.fired[before:]]
        raise AssertionError(
            f"{', '.join(map(str, proxy.disarm()))} found nothing to strike in {WAVES} waves; struck have {struck}"
        )


@pytest.mark.parametrize("api", [*Api, GroupApi.HEARTBEAT], ids=lambda api: api.name.lower())
def test_faults_of_every_kind_to_every_request(scene: Scene, kafka_proxy: KafkaProxy, api: Api | GroupApi) -> None:
    faults = [*network_faults(api), *error_answers(api)]
    under_fire = UnderFire(scene)
    with scene.worker() as worker:
        under_fire.wave()
        for several in dealt(faults):
            # These two come only with a new producer.
            needs_another = api in {Api.INIT_PRODUCER_ID, Api.OFFSET_FETCH}
            causes = [Fault(Kind.DROPPED, Api.END_TXN)] * (len(several) if needs_another else 0)
            under_fire.strike(kafka_proxy, *causes, *several)
        under_fire.wave()
        worker.wait_ready()
        assert worker.terminate() == 0

    under_fire.load.check_exactly_once()
    assert not worker.events("lane_failed"), worker.logs()


def test_requests_that_arrive_within_the_next_transaction(scene: Scene, kafka_proxy: KafkaProxy) -> None:
    under_fire = UnderFire(scene)
    struck = len(kafka_proxy.fired)
    with scene.worker() as worker:
        under_fire.wave()
        for api in TRANSACTIONAL:
            needs_another = api is Api.INIT_PRODUCER_ID
            late = Fault(Kind.LATE_DUPLICATE, api)
            under_fire.strike(kafka_proxy, *([Fault(Kind.DROPPED, Api.END_TXN)] if needs_another else []), late)
        under_fire.wave()
        assert worker.terminate() == 0

    under_fire.load.check_exactly_once()
    outcomes = {fired.fault.at: fired.outcome for fired in kafka_proxy.fired[struck:] if fired.outcome is not None}
    # It fences any owner; all others were fenced by it.
    outcomes.pop(Api.INIT_PRODUCER_ID)
    assert set(outcomes) == set(TRANSACTIONAL) - {Api.INIT_PRODUCER_ID}
    assert 0 not in outcomes.values()


@pytest.mark.parametrize("api", [Api.PRODUCE, GroupApi.OFFSET_COMMIT], ids=lambda api: api.name.lower())
def test_delivery_at_least_once_loses_nothing(scene: Scene, kafka_proxy: KafkaProxy, api: Api | GroupApi) -> None:
    under_fire = UnderFire(scene)
    with scene.worker(DELIVERY="at_least_once") as worker:
        under_fire.wave()
        for several in dealt([*network_faults(api), *error_answers(api)]):
            under_fire.strike(kafka_proxy, *several)
        under_fire.wave()
        worker.wait_ready()
        assert worker.terminate() == 0

    under_fire.load.check_at_least_once()
    assert not worker.events("lane_failed"), worker.logs()


def test_faults_of_every_kind_to_statements_and_commits(scene: Scene, postgres_proxy: PostgresProxy) -> None:
    under_fire = UnderFire(scene)
    with scene.worker() as worker:
        under_fire.wave()
        for at in ("COMMIT", "BEGIN", None):
            for kind in (Kind.DROPPED, Kind.ANSWER_LOST):
                under_fire.strike(postgres_proxy, *[Fault(kind, at)] * PARTITIONS)
            for kind in (Kind.DELAYED, Kind.BLACK_HOLED):
                under_fire.strike(postgres_proxy, Fault(kind, at, seconds=BELOW_THE_DEADLINE))
        under_fire.wave()
        worker.wait_ready()
        assert worker.terminate() == 0

    under_fire.load.check_exactly_once()
