import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.rejects import Reason
from pipeline.shards.leaks import (
    PRECEDENCE,
    Leak,
    Member,
    describe_group,
    find_leaks,
    memberships,
)


def test_memberships_are_of_audio_and_known_artists():
    rows = [("t1", "a", "training", "x"), ("t2", "", "test", "y")]
    assert list(memberships(3, rows)) == [
        ("audio:x", Member(2, "t1", 3)),
        ("artist:a", Member(2, "t1", 3)),
        ("audio:y", Member(0, "t2", 3)),
    ]


def test_the_copy_in_the_more_important_split_stays():
    members = [Member(2, "t1", 5), Member(1, "t9", 4), Member(2, "t3", 6)]
    message = "has the same audio as track t9 in validation"
    assert find_leaks("audio:x", members) == [
        (shard, Leak(track_id=track, reason=Reason.DUPLICATE_AUDIO, message=message))
        for shard, track in ((5, "t1"), (6, "t3"))
    ]


def test_artists_are_named():
    [(_, leak)] = find_leaks("artist:a:b", [Member(0, "t1", 5), Member(1, "t2", 4)])
    assert leak.track_id == "t2"
    assert leak.reason == Reason.ARTIST_LEAK
    assert leak.message == "its artist, a:b, is also in test (track t1)"


def test_within_a_split_nothing_leaks():
    assert find_leaks("audio:x", [Member(2, "t1", 0), Member(2, "t2", 1)]) == []


MEMBERS = st.lists(
    st.builds(Member, st.integers(0, 2), st.text(min_size=1), st.integers(0, 9)),
    min_size=1,
    unique_by=lambda member: member.track_id,
)


@given(MEMBERS, st.randoms())
def test_what_stays_is_in_one_split_whatever_the_order(members, random):
    gone = find_leaks("audio:x", members)
    shuffled = random.sample(members, len(members))
    assert find_leaks("audio:x", shuffled) == gone
    ids = {leak.track_id for _, leak in gone}
    stays = {member.rank for member in members if member.track_id not in ids}
    assert stays == {min(member.rank for member in members)}


@pytest.mark.parametrize("split", PRECEDENCE)
def test_describe_group(split):
    assert (
        describe_group([(split, "t2"), (split, "t1")]) == f"t1 ({split}), t2 ({split})"
    )
