"""Write docs/metrics.md, the page of all metrics, from their vocabulary: ``python -m deploy.make_metrics_page``."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from textwrap import fill
from typing import Final

from worker.observability.vocabulary import VOCABULARY, Metric

COLUMNS: Final = 100
PAGE: Final = Path(__file__).parents[1] / "docs" / "metrics.md"

_HEAD: Final = """\
# Metrics

<!-- Made by deploy/make_metrics_page.py from worker/observability/vocabulary.py: change that. -->

Every worker has these at `/metrics` of its [admin port](../schemas/CONTRACT.md#admin-port), next to
Prometheus's usual `process_*`. Series whose labels have a known set of values are there from the
start, at zero. A scrape that asks for OpenMetrics, as Prometheus does, gets exemplars with the
trace ids of commands.
"""


def page() -> str:
    """Return the page's text."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    for group, metrics in groupby(VOCABULARY, lambda metric: metric.group):
        yield "\n".join([f"## {group}", "", *map(_entry, metrics), ""])


def _entry(metric: Metric) -> str:
    labels = f" by {', '.join(f'`{label}`' for label in metric.labels)}" if metric.labels else ""
    return fill(f"- `{metric.full_name}` ({metric.kind}{labels}): {metric.help}.", COLUMNS, subsequent_indent="  ")


if __name__ == "__main__":
    PAGE.write_text(page())
