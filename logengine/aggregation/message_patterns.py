"""Folds messages that differ only in their variable parts into patterns, with their counts.

The method is Drain: Pinjia He, Jieming Zhu, Zibin Zheng, Michael R. Lyu, "Drain: An Online Log
Parsing Approach with Fixed Depth Tree", IEEE International Conference on Web Services, 2017. What
looks variable is masked first. A message then descends a tree, by its number of words and by its
first words, to a few patterns. It belongs to the one that has most words in common with it, if
these are enough; words that differ become variable.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from logengine.filtering.fields import Fields
from logengine.filtering.syntax import parse_field
from logengine.format.block import Block
from logengine.format.json_object import decode_string
from logengine.format.record import MESSAGE_FIELDS
from logengine.format.segment import timestamp_of

VARIABLE = "<*>"
REST = "…"

PATTERNS_MAX = 1_000
CHARACTERS_MAX = 1_000  # of a message
WORDS_MAX = 60  # of a message

# As in the paper and in its authors' implementation.
_PREFIX_WORDS = 2
_CHILDREN_MAX = 100
_SIMILARITY_MIN = 0.4
_REMEMBERED_MAX = 10_000

_VARIABLE_PARTS = re.compile(
    r"""
      \b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b               # UUID
    | \b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?  # time
    | \b(?=[a-fA-F:]*[0-9])[0-9a-fA-F]{1,4}(?:::?[0-9a-fA-F]{1,4}){2,7}\b   # IPv6, hardware
    | \b0[xX][0-9a-fA-F]+\b
    | \b(?=[a-fA-F]*[0-9])[0-9a-fA-F]{8,}\b                                 # hash
    | (?<![A-Za-z0-9_])[-+]?\d+(?:[.,:]\d+)*                                # number, IPv4, port
    """,
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True)
class Pattern:
    """A pattern: words, and `<*>` for what differs. `example` is the first message of it."""

    text: str
    count: int
    example: str
    first: str  # timestamp of the earliest record
    last: str


class _Cluster:
    __slots__ = ("count", "example", "first", "last", "words")

    def __init__(self, words: list[str], example: str, time: str) -> None:
        self.words = words
        self.example = example
        self.count = 0
        self.first = self.last = time


class _Node:
    __slots__ = ("children", "clusters")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.clusters: list[_Cluster] = []


class MessagePatterns:
    """Collects the messages of blocks of records.

    `field` has the message, as it is written in an expression; by default the first of
    `MESSAGE_FIELDS`. What is no text is no message. Messages that match no pattern once there are
    `PATTERNS_MAX` are counted in `others`. Raises `InvalidFilter` for what is no field.
    """

    def __init__(self, field: str | None = None) -> None:
        self.messages = 0
        self.others = 0
        names = MESSAGE_FIELDS if field is None else (field,)
        paths = [parse_field(name) for name in names]
        fields = Fields(paths)
        self._decode = fields.decode
        self._finders = [fields.finder(path) for path in paths]
        self._by_length: dict[int, _Node] = {}
        self._clusters: list[_Cluster] = []
        self._remembered: dict[str, _Cluster] = {}

    def add(self, block: Block) -> None:
        """Adds the messages of the records of a block."""
        decode = self._decode
        for line in block.body[:-1].split(b"\n"):
            record = decode(line)
            if record is None:
                continue
            for find in self._finders:
                value = next(iter(find(record)), b"")
                if value.startswith(b'"'):
                    self.add_message(decode_string(value), timestamp_of(line))
                    break

    def add_message(self, message: str, time: str) -> None:
        """Adds the message of a record that arrived at `time`, a timestamp."""
        self.messages += 1
        masked = _VARIABLE_PARTS.sub(VARIABLE, message[:CHARACTERS_MAX])
        # A pattern that matched once goes on to: it only becomes more general.
        cluster = self._remembered.get(masked)
        if cluster is None:
            cluster = self._cluster_of(words_of(masked), message[:CHARACTERS_MAX], time)
            if cluster is None:
                self.others += 1
                return
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[masked] = cluster
        cluster.count += 1
        if time < cluster.first:
            cluster.first = time
        elif time > cluster.last:
            cluster.last = time

    def patterns(self) -> list[Pattern]:
        """Returns the patterns, the most frequent first."""
        folded: dict[str, Pattern] = {}
        for each in self._clusters:
            text = " ".join(each.words)
            same = folded.get(text)
            if same is None:
                folded[text] = Pattern(text, each.count, each.example, each.first, each.last)
                continue
            folded[text] = Pattern(
                text,
                same.count + each.count,
                same.example,
                min(same.first, each.first),
                max(same.last, each.last),
            )
        return sorted(folded.values(), key=lambda each: (-each.count, each.text))

    def _cluster_of(self, words: list[str], message: str, time: str) -> _Cluster | None:
        """Returns the pattern of a message, a new one if there is room for it."""
        is_full = len(self._clusters) >= PATTERNS_MAX
        node = self._by_length.get(len(words))
        if node is None:
            if is_full:
                return None
            node = self._by_length[len(words)] = _Node()
        for word in words[:_PREFIX_WORDS]:
            key = VARIABLE if any(map(str.isdigit, word)) or VARIABLE in word else word
            if key not in node.children and len(node.children) >= _CHILDREN_MAX:
                key = VARIABLE
            child = node.children.get(key)
            if child is None:
                if is_full:
                    return None
                child = node.children[key] = _Node()
            node = child
        found = _most_similar(node.clusters, words)
        if found is not None:
            found.words = [
                old if old == new else VARIABLE for old, new in zip(found.words, words, strict=True)
            ]
            return found
        if is_full:
            return None
        cluster = _Cluster(words, message, time)
        node.clusters.append(cluster)
        self._clusters.append(cluster)
        return cluster


def words_of(masked: str) -> list[str]:
    """Returns the words of a message; what is after `WORDS_MAX` of them is one, `…`."""
    words = masked.split()
    return words if len(words) <= WORDS_MAX else [*words[: WORDS_MAX - 1], REST]


def _most_similar(clusters: Sequence[_Cluster], words: Sequence[str]) -> _Cluster | None:
    """Returns the pattern with most words in common, if enough; of several, the most general."""
    best = None
    best_order = (-1.0, -1)
    for cluster in clusters:
        pairs = zip(cluster.words, words, strict=True)
        same = sum(old == new and old != VARIABLE for old, new in pairs)
        fixed = len(words) - cluster.words.count(VARIABLE)
        similarity = 1.0 if cluster.words == words else same / len(words)
        order = (similarity, -fixed)
        if similarity >= _SIMILARITY_MIN and order > best_order:
            best, best_order = cluster, order
    return best
