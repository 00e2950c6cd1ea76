"""The contract as installed: its names, and none of its secrets."""

import json

from tests.support.logins import SECRET
from worker.operations.contract.deployment import deployment
from worker.operations.contract.served import Contract
from worker.settings import read_settings

SECRETS = ("canary-sasl-password", "canary-dsn-password", SECRET)


def test_it_has_the_names_of_the_settings_and_none_of_the_secrets() -> None:
    settings = read_settings(
        {
            "WORKER_KAFKA__BOOTSTRAP_SERVERS": "one:9093,two:9093",
            "WORKER_KAFKA__GROUP_ID": "workers",
            "WORKER_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "WORKER_KAFKA__SASL_MECHANISM": "SCRAM-SHA-256",
            "WORKER_KAFKA__SASL_USERNAME": "worker",
            "WORKER_KAFKA__SASL_PASSWORD": SECRETS[0],
            "WORKER_POSTGRES__DSN": f"postgresql://worker:{SECRETS[1]}@localhost/effective",
            "WORKER_LOGIN__SECRETS": SECRET,
            "WORKER_TOPICS__RESULTS": "answers",
            "WORKER_MAX_COMMAND_BYTES": "1234",
        }
    )
    contract = Contract(deployment(settings))
    document = json.loads(contract.asyncapi)
    assert [server["host"] for server in document["servers"].values()] == ["one:9093", "two:9093"]
    assert document["servers"]["broker2"]["security"] == [{"$ref": "#/components/securitySchemes/scramSha256"}]
    assert document["channels"]["results"]["address"] == "answers"
    assert document["operations"]["setEffective"]["bindings"]["kafka"]["groupId"]["const"] == "workers"
    for text in (contract.asyncapi, contract.page):
        assert "answers" in text
        assert "1234 bytes" in text
        assert not [secret for secret in SECRETS if secret in text]
