"""The vocabulary of metrics: the name, kind, labels and meaning of each, a part of the contract with dashboards.

Every metric of the worker is one of these (``worker.observability.metrics``), and ``deploy/make_metrics_page.py`` makes
docs/metrics.md from them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from effective_contract.codes import StatusCode
from worker.errors import DEPENDENCIES
from worker.observability.health import LaneState

Kind = Literal["counter", "gauge", "histogram"]
Series = tuple[str, ...]
"""One value for each label of a metric, in their order."""

PREFIX: Final = "effective_worker_"


@dataclass(frozen=True, slots=True)
class Metric:
    """One name that dashboards know.

    ``series`` are there from the start, at zero: an alert on the increase of a series that is born with its first event
    misses this one. The values of other labels are known only once they occur.
    """

    group: str
    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    series: tuple[Series, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """The name as Prometheus shows it; that of a histogram without ``_bucket``, ``_sum`` and ``_count``."""
        return PREFIX + self.name


def _each(values: Iterable[str]) -> tuple[Series, ...]:
    return tuple((value,) for value in values)


_LANE: Final = ("topic", "partition")
_CODES: Final = _each(code.value for code in StatusCode)
_WORK_SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
# A lone command takes 15 ms, and a busy worker answers within 0.2 s: close enough there to tell a median. Another
# worker takes over after some 8 s, and a restart of Postgres is waited out for a minute.
_ANSWER_SECONDS: Final = (
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0),
    *(15.0, 30.0, 60.0, 300.0, 900.0, 3600.0),
)
_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000)
AWAY: Final = (*DEPENDENCIES, "clock")
"""Whatever a worker may have to do without, as health names it."""
ATTEMPT_KINDS: Final = ("codes", "pass_codes", "identifier", "all_callers")

# --- Answers ----------------------------------------------------------------------------------------------------------

ANSWERS: Final = Metric(
    "Answers",
    "answers_total",
    "counter",
    "Results published, by status code",
    ("code", "replayed"),
    (*((code, "false") for (code,) in _CODES), (StatusCode.OK.value, "true")),
)
DRY_RUNS: Final = Metric(
    "Answers", "dry_runs_total", "counter", "Results of dry runs published, by status code", ("code",), _CODES
)
ANSWER_SECONDS: Final = Metric(
    "Answers",
    "answer_seconds",
    "histogram",
    "From the timestamp of a command to the commit of its answer; exemplars have the trace of a command",
    buckets=_ANSWER_SECONDS,
)
TRANSITIONS: Final = Metric("Answers", "transitions_total", "counter", "Transition events published")
DEAD_LETTERS: Final = Metric(
    "Answers",
    "dead_letters_total",
    "counter",
    "Dead letters published, by the status code of the answer",
    ("code",),
    _each((StatusCode.MALFORMED_REQUEST.value, StatusCode.INTERNAL_ERROR.value)),
)
DEAD_LETTERS_LEFT_OUT: Final = Metric(
    "Answers", "dead_letters_left_out_total", "counter", "Dead letters that could not be written"
)

# --- Backlog ----------------------------------------------------------------------------------------------------------

COMMANDS_READ: Final = Metric(
    "Backlog", "commands_read_total", "counter", "Commands taken from the log; those taken again count again"
)
IN_HAND: Final = Metric("Backlog", "in_hand", "gauge", "Commands that are taken and not answered yet", _LANE)
LAG: Final = Metric("Backlog", "lag", "gauge", "Offsets between the last answer and the end of the log", _LANE)
OLDEST_UNANSWERED: Final = Metric(
    "Backlog", "oldest_unanswered_seconds", "gauge", "Age of the oldest command that is not answered yet", _LANE
)
HIDDEN: Final = Metric(
    "Backlog", "hidden", "gauge", "Offsets behind an open transaction of a sender's, which no reader sees yet", _LANE
)

# --- Lanes ------------------------------------------------------------------------------------------------------------

LANES: Final = Metric(
    "Lanes", "lanes", "gauge", "Lanes of this worker by state", ("state",), _each(get_args(LaneState))
)
LANE_RESTARTS: Final = Metric("Lanes", "lane_restarts_total", "counter", "Lanes restarted, by reason", ("reason",))
BATCH_COMMANDS: Final = Metric("Lanes", "batch_commands", "histogram", "Commands per batch", buckets=_SIZES)
DECIDE_SECONDS: Final = Metric(
    "Lanes",
    "decide_seconds",
    "histogram",
    "From a batch's first statement to its Postgres commit",
    buckets=_WORK_SECONDS,
)
PUBLISH_SECONDS: Final = Metric(
    "Lanes", "publish_seconds", "histogram", "The Kafka transaction of a batch", buckets=_WORK_SECONDS
)
PRODUCERS_REPLACED: Final = Metric("Lanes", "producers_replaced_total", "counter", "Producers replaced")
OFFSETS_SET_BACK: Final = Metric(
    "Lanes", "offsets_set_back_total", "counter", "Lanes started below the offsets they had settled"
)
OFFSETS_MISSING: Final = Metric(
    "Lanes", "offsets_missing_total", "counter", "Lanes started without an offset of the group, though it had one"
)
COMMANDS_LOST: Final = Metric(
    "Lanes", "commands_lost_total", "counter", "Offsets whose commands were removed before they were answered"
)
UNACKNOWLEDGED_LOSSES: Final = Metric(
    "Lanes",
    "unacknowledged_losses",
    "gauge",
    "Ranges of commands that were removed unanswered, to be acknowledged",
)
BULK_GIVES_WAY: Final = Metric(
    "Lanes", "bulk_gives_way", "gauge", "1 while bulk lanes give way to interactive commands"
)

# --- Dependencies -----------------------------------------------------------------------------------------------------

DEPENDENCY_AWAY: Final = Metric(
    "Dependencies",
    "dependency_away",
    "gauge",
    "1 while it cannot be worked with",
    ("dependency",),
    _each(AWAY),
)
WAITS: Final = Metric(
    "Dependencies",
    "waits_total",
    "counter",
    "Times a dependency that was away was waited for",
    ("dependency",),
    _each(AWAY),
)
CIRCUIT_BREAKER_OPEN: Final = Metric(
    "Dependencies",
    "circuit_breaker_open",
    "gauge",
    "1 while too many commands in a row have failed, and lanes try one at a time",
)
CLOCK_AHEAD: Final = Metric(
    "Dependencies",
    "clock_ahead_of_postgres_seconds",
    "gauge",
    "Seconds by which this machine's clock was ahead of Postgres's when last looked at; absent before that",
)
OUT_OF_GROUP: Final = Metric(
    "Dependencies", "out_of_group", "gauge", "1 while the worker has left its partitions to the others"
)

# --- Pass codes and guesses -------------------------------------------------------------------------------------------

PASS_CODES_WAITING: Final = Metric(
    "Pass codes and guesses",
    "pass_codes_waiting",
    "gauge",
    "Pass codes that wait to be compared, or are being compared",
)
ATTEMPTS_FAILED: Final = Metric(
    "Pass codes and guesses",
    "attempts_failed_total",
    "counter",
    "Codes and pass codes that were wrong",
    ("kind",),
    _each(ATTEMPT_KINDS),
)
ATTEMPTS_LIMITED: Final = Metric(
    "Pass codes and guesses",
    "attempts_limited_total",
    "counter",
    "Times that the next attempt was made to wait",
    ("kind",),
    _each(ATTEMPT_KINDS),
)
ATTEMPTS_REFUSED: Final = Metric(
    "Pass codes and guesses",
    "attempts_refused_total",
    "counter",
    "Attempts that were refused unseen, since they had to wait",
)

# --- The process ------------------------------------------------------------------------------------------------------

RECORDS_RETIRED: Final = Metric(
    "The process", "records_retired_total", "counter", "Records of commands removed for their age"
)
RETENTION_BEHIND: Final = Metric(
    "The process",
    "retention_behind_seconds",
    "gauge",
    "Seconds since everything was removed that was due; up to 600 where nothing is wrong",
)
BUILD_INFO: Final = Metric(
    "The process", "build_info", "gauge", "1, with the version of the worker and of Python", ("version", "python")
)

VOCABULARY: Final[tuple[Metric, ...]] = tuple(each for each in [*globals().values()] if isinstance(each, Metric))
"""All of them, in the order of this module."""
