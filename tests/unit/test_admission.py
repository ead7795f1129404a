"""Who may be read: decided without sockets, streams or disks."""

from dataclasses import dataclass, field
from typing import Any, cast

from logengine.intake.admission import UNLIMITED, Admission
from logengine.intake.quota_gate import QuotaGate
from logengine.intake.shares import Rule


@dataclass
class Queue:
    """As much of a committer as admission asks."""

    pending_bytes: int = 0
    without_room: set[str] = field(default_factory=set)
    of_others: dict[int, int] = field(default_factory=dict)  # of `pending_bytes`; else it is root's

    def has_room(self, stream: str, _bytes_max: int) -> bool:
        return stream not in self.without_room

    def failing_bytes(self) -> int:
        return 0

    def commit_now(self) -> None:
        self.is_asked = True

    def bytes_of_uid(self, uid: int) -> int:
        return self.of_others.get(uid, self.pending_bytes if uid == 0 else 0)

    @property
    def uids(self) -> set[int]:
        return {0, *self.of_others}


@dataclass(eq=False)
class Sender:
    """Somebody who is read."""

    admission: Admission
    stream: str = "app"
    uid: int = 0
    held_bytes: int = 0
    holds_parts: bool = True
    is_routed: bool = False
    is_read: bool = True
    is_stalled: bool = False

    def resume(self) -> None:
        self.is_read = True

    def stall(self) -> None:
        self.is_stalled = True

    def hold(self, change_bytes: int, *, finished: bool = False) -> None:
        self.held_bytes += change_bytes
        self.admission.hold(self, change_bytes, finished=finished)

    def wants_to_read(self) -> None:
        if self.admission.room_for(self) is None:
            self.is_read = False
            self.admission.pause(self)


def admitting(queue: Queue, memory: Rule | None = None) -> Admission:
    quotas = QuotaGate(None, 1.0, lambda: None, lambda _stream, _record: None)
    return Admission(
        cast("Any", queue),
        quotas,
        memory=memory or Rule(100, 0),
        privileged={0},
        max_pending_stream=50,
        stall_timeout_s=3600,
    )


async def test_a_sender_is_not_read_while_its_stream_has_no_room() -> None:
    queue = Queue(without_room={"bad"})
    admission = admitting(queue)
    bad, good = Sender(admission, "bad"), Sender(admission)
    for sender in (bad, good):
        sender.wants_to_read()
    assert (bad.is_read, good.is_read) == (False, True)
    assert admission.room_for(good) is UNLIMITED
    queue.without_room.clear()
    admission.let_go_on()
    assert bad.is_read
    assert admission.paused == 0


async def test_nobody_is_read_while_the_memory_is_full_of_what_will_be_committed() -> None:
    queue = Queue(pending_bytes=100)
    admission = admitting(queue)
    senders = [Sender(admission) for _ in range(3)]
    for sender in senders:
        sender.wants_to_read()
    assert not any(sender.is_read or admission.may_finish_records(sender) for sender in senders)
    assert admission.elected is None
    queue.pending_bytes = 99
    admission.let_go_on()
    assert all(sender.is_read for sender in senders)


async def test_one_sender_at_a_time_finishes_a_record_where_such_records_fill_the_memory() -> None:
    admission = admitting(Queue())
    short, long = Sender(admission), Sender(admission)
    short.hold(40)
    long.hold(60)
    assert admission.is_full
    for sender in (short, long):
        sender.wants_to_read()
    short.wants_to_read()
    assert admission.elected in (short, long)
    first = admission.elected
    other = long if first is short else short
    assert first.is_read
    assert not other.is_read
    first.hold(-first.held_bytes, finished=True)
    assert admission.elected is None
    assert other.is_read


async def test_who_can_hold_no_part_of_a_record_is_not_elected() -> None:
    admission = admitting(Queue())
    holder, datagrams = Sender(admission), Sender(admission, holds_parts=False)
    holder.hold(120)
    datagrams.wants_to_read()
    assert admission.elected is None
    holder.wants_to_read()
    assert admission.elected is holder


async def test_when_the_elected_one_goes_another_is_elected() -> None:
    admission = admitting(Queue())
    senders = [Sender(admission) for _ in range(3)]
    for sender in senders:
        sender.hold(60)
    for sender in senders:
        sender.wants_to_read()
    elected = cast("Sender", admission.elected)
    admission.forget(elected)
    assert admission.elected not in (None, elected)
    assert cast("Sender", admission.elected).is_read


async def test_who_is_elected_is_so_no_more_when_its_stream_has_no_room() -> None:
    queue = Queue()
    admission = admitting(queue)
    sender = Sender(admission)
    sender.hold(120)
    sender.wants_to_read()
    assert admission.elected is sender
    queue.without_room.add("app")
    sender.wants_to_read()
    assert admission.elected is None
    assert not sender.is_stalled


async def test_whole_records_may_be_read_where_unfinished_ones_fill_the_memory() -> None:
    admission = admitting(Queue())
    holder, other = Sender(admission), Sender(admission)
    holder.hold(120)
    assert admission.may_finish_records(other)
    assert admission.room_for(other) is None


# Users who share the memory.

ONE, TWO = 1000, 1001


async def test_a_user_with_its_share_in_memory_does_not_hold_up_others() -> None:
    queue = Queue(pending_bytes=800, of_others={ONE: 800, 0: 0})
    admission = admitting(queue, Rule(1000, 100, 0.8))
    one, two, root = (Sender(admission, uid=uid) for uid in (ONE, TWO, 0))
    for sender in (one, two, root):
        sender.wants_to_read()
    assert (one.is_read, two.is_read, root.is_read) == (False, True, True)
    assert admission.is_full
    two.hold(80)
    root.hold(180)
    assert admission.room_for(two) is None
    assert admission.room_for(root) is None
    queue.pending_bytes = queue.of_others[ONE] = 400
    admission.let_go_on()
    assert one.is_read
    assert not admission.is_full


async def test_what_is_reserved_for_root_is_given_to_nobody_else() -> None:
    queue = Queue(pending_bytes=900, of_others={ONE: 900, 0: 0})
    admission = admitting(queue, Rule(1000, 100, 1.0))
    assert admission.room_for(Sender(admission, uid=TWO)) is None
    root = Sender(admission, uid=0)
    root.hold(99)
    assert admission.room_for(root) is UNLIMITED
    root.hold(1)
    assert admission.room_for(root) is None


async def test_each_user_has_a_sender_of_its_own_that_finishes_its_record() -> None:
    admission = admitting(Queue(), Rule(1000, 0, 0.8))
    senders = [Sender(admission, uid=uid) for uid in (ONE, ONE, TWO, TWO)]
    for sender, held_bytes in zip(senders, (500, 300, 90, 80), strict=True):
        sender.hold(held_bytes)
    for sender in senders:
        sender.wants_to_read()
    # Those that want to read first are elected at once; the others wait for them.
    assert [sender.is_read for sender in senders] == [True, False, True, False]
    senders[2].hold(-90, finished=True)
    assert senders[3].is_read, "its user has room again"
    assert not senders[1].is_read
