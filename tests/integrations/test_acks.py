"""What the clients for Node were told is stored, is stored once, whatever is killed.

Fluent Bit, which has acks too, is packaged neither by Debian nor on PyPI or npm.
"""

import re
from collections import Counter

import pytest

from tests.daemon import eventually
from tests.integrations.conftest import Host
from tests.integrations.programs import needs_node_modules, program, run_in_node

NEW = "@fluent-org/logger (Node)"
OLD = "fluent-logger (Node)"
MODES = [
    (NEW, "Message"),
    (NEW, "Forward"),
    (NEW, "PackedForward"),
    (NEW, "CompressedPackedForward"),
    (OLD, "Message"),
    (OLD, "PackedForward"),
    (OLD, "CompressedPackedForward"),
]


def code_in_mode(host: Host, heading: str, mode: str) -> str:
    """The program of the page, with another mode."""
    code = host.recipe(heading).code("js")
    changed, count = re.subn(r'eventMode: "\w+"', f'eventMode: "{mode}"', code)
    assert count == 1
    return changed


@needs_node_modules()
@pytest.mark.parametrize(("heading", "mode"), MODES)
def test_a_client_for_node_sends_in_each_mode_and_gets_its_ack(
    host: Host, heading: str, mode: str
) -> None:
    code = code_in_mode(host, heading, mode)
    # It ends when it has the ack; without one, it waits for longer than the test.
    host.run(program("node"), host.write("shop.js", code), **run_in_node())
    host.has("fluent", host.recipe(heading))


# The clients as on the page, but they give up earlier what has no ack: a killed daemon sends none.
EMIT = {
    NEW: "client.emit('orders', { n }).then(() => console.log(n), () => {});",
    OLD: "logger.emit('orders', { n }, (error) => { if (!error) console.log(n); });",
}
# The old one throws out of a callback if its connection ends while it writes.
LOAD = """
console.error = console.info = () => {};
process.on("uncaughtException", (error) => {
  if (!/of null/.test(error.message)) { process.stderr.write(error.stack); process.exit(1); }
});
let n = 0;
setInterval(() => { for (const end = n + 5; n < end; n++) EMIT }, 5);
"""


@needs_node_modules()
@pytest.mark.parametrize(("heading", "mode"), MODES)
def test_what_a_client_for_node_was_told_is_stored_once_however_often_the_daemon_is_killed(
    host: Host, heading: str, mode: str
) -> None:
    code = code_in_mode(host, heading, mode)
    made = code.partition("\nasync function main" if heading == NEW else "\nlogger.on")[0]
    made = re.sub(r"(ackTimeout|ackResponseTimeout): \d+", r"\1: 500", made)
    made = re.sub(r"(maxDelay|reconnectInterval): \d+", r"\1: 50", made)
    load = LOAD.replace("EMIT", f"{{ const of = n; {EMIT[heading].replace('n }', 'n: of }')} }}")
    load = load.replace("console.log(n)", "console.log(of)")
    path = host.write("load.js", made + load)

    def told() -> list[int]:
        """What was acknowledged until now."""
        return [int(line) for line in host.said().splitlines(keepends=True) if line.endswith("\n")]

    with host.running(program("node"), path, **run_in_node()):
        for _ in range(4):
            before = len(told())
            eventually(lambda: len(told()) >= before + 50, "acks")  # noqa: B023 - called here
            host.daemon.kill()
            host.start()
        before = len(told())
        eventually(lambda: len(told()) >= before + 50, "acks")
    stored = Counter(value["n"] for value in host.daemon.values("fluent"))
    assert set(stored.values()) == {1}
    assert set(told()) <= set(stored)
    assert len(set(told())) == len(told()) >= 250
    host.daemon.cli("verify")
