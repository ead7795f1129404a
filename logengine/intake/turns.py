"""Decides whose turn it is, and how much one read may take. No sockets and no clock.

Deficit round robin (Shreedhar and Varghese, 1996), over the cost of the work. A flow is all that
must share one turn with itself: a user, however many connections that user has. A read's cost is
known only after the read, so a flow may spend more than it was granted. It then owes the rest and
is passed over until later rounds have paid it.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

F = TypeVar("F", bound=Hashable)

# The smallest read pays for its system calls; one of the largest takes 0.4 ms for plain records,
# and with half as much, a flood over one connection costs a tenth more CPU.
READ_BYTES_MIN = 4 * 1024
READ_BYTES_FIRST = 16 * 1024
READ_BYTES_MAX = 256 * 1024
# What one read may cost. Larger reads would gain nothing; smaller ones cost more in all.
READ_COST_S = 0.001


class _Account:
    """A flow's credit, in seconds, and the round in which it was last granted some."""

    __slots__ = ("credit_s", "round")

    def __init__(self, round_: int) -> None:
        self.credit_s = 0.0
        self.round = round_


class DeficitRoundRobin(Generic[F]):
    """Shares time among flows: `quantum_s` to each waiting flow in each round.

    A flow that stops waiting loses its credit, but not its debt. The rounds that pass meanwhile pay
    the debt too, as if it had waited. Keeps one account for each flow until `forget`. O(1) for each
    call, except that `next` is O(waiting flows) if all of them are in debt.
    """

    def __init__(self, quantum_s: float) -> None:
        self._quantum_s = quantum_s
        self._accounts: dict[F, _Account] = {}
        self._waiting: OrderedDict[F, None] = OrderedDict()
        self._round = 0

    @property
    def waiting(self) -> int:
        """How many flows wait for their turn."""
        return len(self._waiting)

    @property
    def flows(self) -> int:
        """How many flows have an account."""
        return len(self._accounts)

    def wait(self, flow: F) -> None:
        """Notes that `flow` has work; it comes after all flows that wait already."""
        if flow in self._waiting:
            return
        account = self._accounts.get(flow)
        if account is None:
            account = self._accounts[flow] = _Account(self._round)
        missed = self._round - account.round
        account.credit_s = min(0.0, account.credit_s + missed * self._quantum_s)
        account.round = self._round
        self._waiting[flow] = None
        self._grant(account, 1)

    def next(self) -> F | None:
        """Returns the flow whose turn it is, which has credit; None if no flow waits."""
        for _ in range(2):
            for _ in range(len(self._waiting)):
                flow = next(iter(self._waiting))
                account = self._accounts[flow]
                if account.credit_s > 0:
                    return flow
                self._waiting.move_to_end(flow)
                self._grant(account, 1)
            self._pass_rounds()
        return next(iter(self._waiting), None)

    def credit_s(self, flow: F) -> float:
        """Returns how much `flow` may spend in this turn."""
        return self._accounts[flow].credit_s

    def charge(self, flow: F, cost_s: float) -> None:
        """Takes the cost of work from the credit of `flow`, even into debt."""
        account = self._accounts.get(flow)
        if account is not None:
            account.credit_s -= cost_s

    def postpone(self, flow: F) -> None:
        """Lets all other waiting flows come before `flow`, which keeps its credit."""
        self._waiting.move_to_end(flow)

    def leave(self, flow: F) -> None:
        """Notes that `flow` has no work left."""
        self._waiting.pop(flow, None)

    def forget(self, flow: F) -> None:
        """Closes the account of `flow`, with its debt."""
        self._waiting.pop(flow, None)
        self._accounts.pop(flow, None)

    def _grant(self, account: _Account, rounds: int) -> None:
        account.credit_s += rounds * self._quantum_s
        account.round += rounds
        self._round = max(self._round, account.round)

    def _pass_rounds(self) -> None:
        """Passes as many rounds at once as none of the waiting flows has credit in."""
        accounts = [self._accounts[flow] for flow in self._waiting]
        most_s = max((account.credit_s for account in accounts), default=1.0)
        if most_s <= 0:
            rounds = int(-most_s / self._quantum_s) + 1
            for account in accounts:
                self._grant(account, rounds)


class ReadSize:
    """How many bytes of one sender the next read may take, by what its reads have cost.

    Starts small and doubles while the reads are cheap, so one read of costly lines costs little
    more than `READ_COST_S`, whatever they are.
    """

    __slots__ = ("size_bytes",)

    def __init__(self) -> None:
        self.size_bytes = READ_BYTES_FIRST

    def adapt(self, worked_bytes: int, cost_s: float) -> None:
        """Notes that work on `worked_bytes`, at least one, cost this much."""
        size_bytes = self.size_bytes
        if cost_s > READ_COST_S:
            fitting_bytes = int(worked_bytes * READ_COST_S / cost_s)
            if fitting_bytes < size_bytes:
                self.size_bytes = max(READ_BYTES_MIN, fitting_bytes)
        elif worked_bytes >= size_bytes and cost_s * 2 <= READ_COST_S:
            self.size_bytes = min(READ_BYTES_MAX, size_bytes * 2)
