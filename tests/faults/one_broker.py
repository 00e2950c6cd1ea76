"""One broker with two doors: ``bootstrap`` for observers, and one for workers that leads through a proxy."""

from pathlib import Path

from tests.faults.proxy import KafkaProxy
from tests.providers.kafka import HOST, JvmKafka
from worker.demo.servers.processes import free_port


class ProxiedKafka(JvmKafka):
    """A broker behind a proxy.

    Workers are told of no address but the proxy's, so that all their traffic passes through it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.name = f"{self.name} behind a proxy"
        self._port_for_workers = free_port(HOST)
        self.proxy = KafkaProxy(self._port_for_workers)
        self.proxy.start()
        self.workers_bootstrap = f"{HOST}:{self.proxy.port}"

    def _settings(self, directory: Path) -> dict[str, str]:
        settings = super()._settings(directory)
        return settings | {
            "listeners": f"{settings['listeners']},WORKERS://{HOST}:{self._port_for_workers}",
            "advertised.listeners": f"{settings['advertised.listeners']},WORKERS://{self.workers_bootstrap}",
            "listener.security.protocol.map": f"{settings['listener.security.protocol.map']},WORKERS:PLAINTEXT",
            # A member that is silent for so long is out: seconds of real time must not take minutes here.
            "group.min.session.timeout.ms": "1000",
        }

    async def dispose(self) -> None:
        self.proxy.close()
        await super().dispose()
