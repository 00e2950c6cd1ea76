"""A test kit for senders: a worker in memory that answers by the contract's rules, without Kafka.

::

    worker = InMemoryWorker({"99021047380": {"number": "AT0000000671"}})
    async with worker.client(source="/shop") as client:
        answer = await client.set_effective(token=worker.login(), authentication_code="99021047380")
    assert answer.data["life_cycle_state"] == "EFFECTIVE"

``effective_contract.testing.fixtures`` has a fixture for pytest.
"""

from effective_contract.testing.transport import Reply
from effective_contract.testing.worker import InMemoryWorker, Received

__all__ = ["InMemoryWorker", "Received", "Reply"]
