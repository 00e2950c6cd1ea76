"""The start of a worker: what it says of topics that do not exist."""

from worker.service import TopicsMissing


def test_a_missing_topic_is_told_with_the_one_that_may_be_meant() -> None:
    assert str(
        TopicsMissing(["access-token.set-efective.commands"], ["access-token.set-effective.commands", "other"])
    ) == (
        "these topics do not exist: access-token.set-efective.commands. There is access-token.set-effective.commands:"
        " is a setting misspelt? If not, create them with: effective-worker topics apply"
    )


def test_missing_topics_without_any_that_is_called_nearly_so_are_to_be_created() -> None:
    assert str(TopicsMissing(["a.commands", "a.results"], ["something-else"])) == (
        "these topics do not exist: a.commands, a.results. Create them with: effective-worker topics apply"
    )
