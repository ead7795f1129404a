"""Who may still write when the file system is nearly full."""

from logengine.intake.space_shares import SharedSpace, SpaceShares

MIB = 1024 * 1024
KEPT = 400 * MIB  # of it, 100 are for root, and 300 are shared out
ROOT, ANN, BOB, EVE = 0, 1000, 1001, 1002


def shares(free: int = 1000 * MIB, restored: SharedSpace | None = None) -> SpaceShares:
    made = SpaceShares({ROOT})
    if restored is not None:
        made.restore(restored)
    look(made, free)
    return made


def look(of: SpaceShares, free: int, keep_free: int = KEPT) -> None:
    of.look()
    of.saw(free, keep_free)


def fill(of: SpaceShares, uid: int, stream: str = "app") -> int:
    """Sends for a user until it is stopped; returns how much passed."""
    sent = 0
    while not of.limits(uid) or of.left(uid) > 0:
        of.add(stream, uid, 64 * 1024)
        sent += 64 * 1024
    return sent


def about(size: int) -> range:
    return range(size - MIB, size + MIB)


def test_nobody_is_limited_while_there_is_enough() -> None:
    of = shares()
    of.add("app", ANN, 500 * MIB)
    assert not of.is_scarce
    assert not of.limits(ANN)
    assert of.users_without() == []
    assert of.shared is None


def test_one_who_fills_the_disk_is_stopped_and_leaves_as_much_to_others() -> None:
    of = shares()
    assert fill(of, ANN) in about(600 * MIB + 150 * MIB)
    assert of.users_without() == [ANN]
    assert of.left(BOB) in about(150 * MIB)
    assert not of.is_used_up


def test_each_further_one_gets_half_of_what_is_left() -> None:
    of = shares(KEPT)
    assert fill(of, ANN) in about(150 * MIB)
    assert fill(of, BOB) in about(75 * MIB)
    assert fill(of, EVE) in about(37 * MIB)
    assert of.left(1003) in about(37 * MIB)


def test_root_is_never_stopped_and_has_a_reserve_that_nobody_else_can_use() -> None:
    of = shares()
    for uid in range(1000, 1064):
        fill(of, uid)
    assert of.left_for_all in about(0)
    assert of.free in about(100 * MIB)
    assert not of.limits(ROOT)
    of.add("app", ROOT, 50 * MIB)
    assert of.is_used_up
    assert of.left(2000) < 0
    assert {ANN, BOB, EVE} <= set(of.users_without())


def test_another_program_that_fills_the_disk_stops_all_and_nobody_is_charged() -> None:
    of = shares()
    look(of, 90 * MIB)
    assert of.is_used_up
    assert of.left(ANN) == of.left(BOB) < 0
    look(of, 300 * MIB)
    assert of.left(ANN) == of.left(BOB) == 200 * MIB


def test_space_that_comes_back_is_given_out_at_once() -> None:
    of = shares(KEPT)
    fill(of, ANN)
    look(of, 300 * MIB)  # somebody removed 50 MiB
    assert of.left(ANN) in about(100 * MIB)
    look(of, KEPT)
    assert of.is_scarce  # not to change with each block
    assert of.left(ANN) == 300 * MIB
    look(of, 2 * KEPT)
    assert not of.is_scarce
    assert not of.limits(ANN)


def test_a_disk_that_is_kept_nearly_full_on_purpose_goes_on_working() -> None:
    of = shares(60 * MIB)
    assert not of.limits(ANN)
    for _ in range(100):  # retention removes as much as arrives
        of.add("app", ANN, 5 * MIB)
        assert of.left(ANN) > 0
        look(of, 60 * MIB)


def test_a_restart_does_not_give_out_new_shares() -> None:
    before = shares()
    fill(before, ANN)
    free = before.free
    after = shares(free, before.shared)
    assert after.users_without() == [ANN]
    assert after.left(BOB) == before.left(BOB)
    # Without the note, what is free at the start is what is shared out.
    assert shares(free).left(ANN) in about(free - free // 4)
    # What was freed meanwhile counts.
    assert not shares(2 * KEPT, before.shared).is_scarce


def test_a_note_that_claims_more_than_is_kept_is_cut_down() -> None:
    of = shares(300 * MIB, SharedSpace(10**15, {ANN: 10**15}))
    assert of.kept == KEPT
    assert of.left(ANN) in about(100 * MIB)


def test_a_new_stream_costs_what_its_files_take() -> None:
    of = shares(KEPT)
    of.add("app", ANN, 0)
    started = of.free
    for number in range(1000):
        of.add(f"s{number}", ANN, 1)
    assert started - of.free > 1000 * 8192
    assert of.left(BOB) - of.left(ANN) > 1000 * 8192


def test_what_is_not_on_disk_yet_is_not_free() -> None:
    of = shares(KEPT + 100 * MIB)
    of.add("app", ANN, 10 * MIB)
    not_stored = of.look()
    of.add("app", ANN, 20 * MIB)  # during the look
    assert of.free in about(KEPT + 70 * MIB)
    of.saw(KEPT + 90 * MIB - not_stored, KEPT)
    assert of.free in about(KEPT + 70 * MIB)


def test_looks_are_due_more_often_as_space_gets_short() -> None:
    def until_look(of: SpaceShares) -> int:
        sent = 0
        while of.until_look > 0:
            of.add("app", ANN, 1000)
            sent += 1000
        return sent

    much, little = until_look(shares(100 * KEPT)), until_look(shares(KEPT + 8 * MIB))
    assert much > 900 * MIB
    assert little < MIB


def test_without_a_floor_nothing_is_shared_out() -> None:
    of = SpaceShares({ROOT})
    look(of, 10 * MIB, 0)
    of.add("app", ANN, 20 * MIB)
    look(of, 0, 0)
    assert not of.limits(ANN)


def test_another_directory_starts_without_knowledge() -> None:
    of = shares(KEPT)
    fill(of, ANN)
    of.forget()
    assert not of.limits(ANN)
    look(of, KEPT)
    assert of.left(ANN) == 300 * MIB


def test_nobody_is_limited_where_nothing_is_kept_free_however_full_the_disk_is() -> None:
    of = SpaceShares({ROOT})
    look(of, -MIB, keep_free=0)  # what waits for the disk is more than what is free
    of.add("app", ANN, MIB)
    assert not of.limits(ANN)
    look(of, 1000 * MIB, keep_free=0)
    of.add("app", ANN, 2000 * MIB)
    assert not of.limits(ANN)
