"""Precision and recall of filters, counted by hand on ten rows."""

from __future__ import annotations

import pyarrow as pa
import pytest

from factory_assets.demo.rendered.truth import FAULTS, removed_by_fault, score_duplicates, score_filter

# key -> fault, picture
ROWS = {
    "a": ("", 1),
    "b": ("copy", 1),
    "c": ("copy", 1),
    "d": ("", 2),
    "e": ("too_small", 3),
    "f": ("broken", 4),
    "g": ("mismatched", 5),
    "h": ("unsafe", 6),
    "i": ("copy", 2),
    "j": ("failed", 7),
}
TRUTH = pa.table(
    {
        "key": list(ROWS),
        "fault": [fault for fault, _ in ROWS.values()],
        "picture": [picture for _, picture in ROWS.values()],
        **{name: [fault == name for fault, _ in ROWS.values()] for name in FAULTS},
    }
)
IMAGES = list("abcdefghi")


def test_a_filter_is_scored_by_what_it_removed() -> None:
    # Removed: d (clean), e, f. Guilty: e, f, h.
    score = score_filter(TRUTH, IMAGES, list("abcghi"), ("too_small", "broken", "unsafe"))
    assert (score.before, score.after, score.removed, score.wanted, score.caught) == (9, 6, 3, 3, 2)
    assert score.precision == pytest.approx(2 / 3)
    assert score.recall == pytest.approx(2 / 3)


def test_what_was_gone_before_is_not_asked_of_a_later_stage() -> None:
    score = score_filter(TRUTH, list("abcdgh"), list("abcdh"), ("mismatched", "too_small"))
    assert (score.wanted, score.caught, score.precision, score.recall) == (1, 1, 1.0, 1.0)


def test_nothing_removed_has_no_precision_and_nothing_wanted_no_recall() -> None:
    score = score_filter(TRUTH, list("ad"), list("ad"), ("broken",))
    assert score.precision is None
    assert score.recall is None


@pytest.mark.parametrize(
    ("kept", "caught", "removed"),
    [
        ("adefgh", 3, 3),  # one version of pictures 1 and 2 stays
        ("bdefgh", 3, 3),  # whichever
        ("abdefgh", 2, 2),  # one duplicate missed
        ("aefgh", 3, 4),  # picture 2 is lost: one of its two removals was wrong
        ("adegh", 3, 4),  # a picture without duplicates is removed
    ],
)
def test_of_every_picture_one_version_is_to_stay(kept: str, caught: int, removed: int) -> None:
    score = score_duplicates(TRUTH, IMAGES, list(kept))
    assert (score.wanted, score.caught, score.removed) == (3, caught, removed)
    assert score.recall == pytest.approx(caught / 3)
    assert score.precision == pytest.approx(caught / removed)


def test_duplicates_whose_other_versions_went_before_are_no_duplicates() -> None:
    score = score_duplicates(TRUTH, list("bdi"), list("bi"))
    assert (score.wanted, score.caught, score.precision) == (1, 1, 1.0)


def test_removals_are_counted_by_kind() -> None:
    counted = removed_by_fault(TRUTH, pa.chunked_array([IMAGES]), pa.array(list("abdg")))
    assert counted == {
        "": (2, 0),
        "broken": (1, 1),
        "copy": (3, 2),
        "mismatched": (1, 0),
        "too_small": (1, 1),
        "unsafe": (1, 1),
    }


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'blurred' is no fault"):
        score_filter(TRUTH, ["a"], ["a"], ("blurred",))
    with pytest.raises(ValueError, match=r"does not know key 'z'"):
        score_filter(TRUTH, ["a", "z"], ["a"], ("broken",))
    with pytest.raises(ValueError, match=r"'b' comes out of the stage but does not go in"):
        score_duplicates(TRUTH, ["a"], ["a", "b"])
