"""The reading guide of the contract pack: everything an engineer must know to send and to read, in any language."""

from importlib.resources import files
from string import Template

from effective_contract.statuses import meanings
from worker.operations.contract.deployment import Deployment


def guide(deployment: Deployment) -> str:
    """Return the guide in Markdown, with the deployment's names in it. Its text is in ``guide.md``."""
    rows = (f"| `{code}` | {meaning.when} | {meaning.retry} |" for code, meaning in meanings().items())
    template = Template(files(__package__).joinpath("guide.md").read_text(encoding="utf-8"))
    return template.substitute(
        bytes=deployment.max_command_bytes,
        days=deployment.record_retention_days,
        commands=deployment.commands,
        results=deployment.results,
        transitions=deployment.transitions,
        statuses="\n".join(rows),
    )
