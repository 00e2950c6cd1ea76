"""``effective-worker topics plan`` and ``effective-worker topics apply``"""

from collections.abc import Iterator

import typer

from worker.cli.output import pasteable
from worker.cli.terminal import FAILED, Json, example, group, run_to_end, settings_from_environment, show
from worker.kafka import topics
from worker.kafka.topics import Difference, PlannedTopic, TopicPlan
from worker.values import counted


def plan(json: Json = False) -> None:
    """Show what `topics apply` would do.

    Also how existing topics differ from what they should be, and the commands of Kafka's own tools for both. Changes
    nothing. Exit 1 if a topic is missing, or is wrong in a way that does harm.
    """
    planned = run_to_end(topics.plan(settings_from_environment()))
    _show(planned, "would be created", as_json=json, with_commands=True)
    raise typer.Exit(FAILED if planned.missing or planned.harmful else 0)


def apply(json: Json = False) -> None:
    """Create the missing topics. Existing ones are never altered; one that is wrong in a way that does harm exits 1."""
    carried_out = run_to_end(topics.apply(settings_from_environment()))
    _show(carried_out, "created", as_json=json, with_commands=False)
    raise typer.Exit(FAILED if carried_out.harmful else 0)


def _show(planned: TopicPlan, missing: str, *, as_json: bool, with_commands: bool) -> None:
    document = {"topics": [_document(topic, missing, with_commands) for topic in planned.topics]}
    lines = [line for topic in planned.topics for line in _lines(topic, missing, with_commands)]
    show(document, lines, as_json=as_json)


def _state(topic: PlannedTopic, missing: str) -> str:
    if not topic.exists:
        return missing
    return "differs" if topic.differences else "as it should be"


def _document(topic: PlannedTopic, missing: str, with_commands: bool) -> dict[str, object]:
    making = {"create": topic.create or None} if with_commands else {}
    return {
        "role": topic.role,
        "name": topic.name,
        "state": _state(topic, missing),
        "partitions": topic.partitions,
        "replication_factor": topic.replication,
        "settings": topic.settings,
        "differences": [
            {"setting": each.setting, "wanted": each.wanted, "found": each.found, "harm": each.harm, "mend": each.mend}
            for each in topic.differences
        ],
        **making,
    }


def _lines(topic: PlannedTopic, missing: str, with_commands: bool) -> Iterator[str]:
    wanted = ", ".join(f"{name}={value}" for name, value in topic.settings.items())
    size = f"{counted(topic.partitions, 'partition')}, replication {topic.replication}"
    more = "" if topic.exists else f" ({size}, {wanted})"
    yield f"{topic.name}: {_state(topic, missing)}{more}"
    if topic.create and with_commands:
        yield from pasteable(topic.create, "  ")
    for difference in topic.differences:
        yield from _explained(difference)


def _explained(difference: Difference) -> Iterator[str]:
    weight = f"WRONG, {difference.harm}" if difference.harm else "does no harm"
    yield f"  {difference.setting} is {difference.found}, should be {difference.wanted}: {weight}"
    # What no tool does in one command is told in words.
    is_command = difference.mend.partition(" ")[0].endswith(".sh")
    yield from pasteable(difference.mend, "    ") if is_command else (f"    {difference.mend}",)


def add(app: typer.Typer) -> None:
    """Add the commands, with examples in their help."""
    topics = group("Create or check the topics.")
    topics.command("plan", epilog=example("topics plan"))(plan)
    topics.command("apply", epilog=example("topics apply"))(apply)
    app.add_typer(topics, name="topics", epilog=example("topics plan", "topics apply"))
