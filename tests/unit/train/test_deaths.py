"""An attempt outlives any number of deaths, but not four without a commit in between."""

from kuberec_runtime.train.bringup import MOST_HEALINGS, Deaths


def test_deaths_that_follow_commits_are_all_healed() -> None:
    deaths = Deaths()
    assert all(deaths.another(epoch) for epoch in range(100))


def test_deaths_after_one_and_the_same_commit_end_the_attempt() -> None:
    deaths = Deaths()
    assert [deaths.another(5) for _ in range(MOST_HEALINGS + 1)] == [True] * MOST_HEALINGS + [False]


def test_a_commit_starts_the_count_again() -> None:
    deaths = Deaths()
    for epoch in (5, 5, 5, 6, 6, 6, 7):
        assert deaths.another(epoch)
