"""Settings of a worker on topics of the test's own."""

from tests.providers.kafka import TopicNames
from worker.settings import Settings, read_settings


def variables_for(bootstrap: str, names: TopicNames) -> dict[str, str]:
    """Return the environment that names a broker and the worker's topics."""
    return {
        "WORKER_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "WORKER_TOPICS__COMMANDS": names.commands,
        "WORKER_TOPICS__RESULTS": names.results,
        "WORKER_TOPICS__TRANSITIONS": names.transitions,
        "WORKER_TOPICS__DEAD_LETTERS": names.dead_letters,
    }


def settings_for(bootstrap: str, names: TopicNames) -> Settings:
    """Return the same as settings, with defaults for the rest."""
    return read_settings(variables_for(bootstrap, names))
