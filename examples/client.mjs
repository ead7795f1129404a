// Node without a library: the protocol of docs/protocol.md. Each record is stored once,
// even if the daemon is killed and restarted.   ls | node client.mjs
import { randomUUID } from "node:crypto";
import { EventEmitter, once } from "node:events";
import net from "node:net";
import readline from "node:readline";

class Client extends EventEmitter {
  first = 1; // the number of the first record in `pending`
  pending = []; // records not known to be durable
  constructor(path, stream) {
    super();
    this.path = path;
    this.hello = { _hello: 1, stream, producer: `node-${randomUUID()}` };
    this.connect();
  }
  connect() {
    this.welcomed = false;
    this.connection = net.connect(this.path);
    this.say({ ...this.hello, first: this.first });
    const answers = readline.createInterface({ input: this.connection });
    answers.on("line", (line) => line.endsWith("}") && this.take(JSON.parse(line))); // or cut off
    for (const each of [answers, this.connection]) each.on("error", () => {}); // "close" follows
    this.connection.on("close", () => setTimeout(() => this.closing || this.connect(), 100));
  }
  say(object) {
    this.connection.write(JSON.stringify(object) + "\n");
  }
  send(record) {
    this.pending.push(record);
    if (this.welcomed) this.say(record);
  }
  take({ welcome, next, ack, error, record }) {
    if (record) console.error(`record ${record} is not stored: ${error}`);
    else if (error && error !== "stalled") throw new Error(`the daemon says ${error}`);
    if (welcome || ack) this.forget(welcome ? next - 1 : ack);
    if (welcome) {
      this.welcomed = true;
      this.pending.forEach((record) => this.say(record)); // from `next` on
    }
  }
  forget(last) {
    this.pending.splice(0, last + 1 - this.first);
    this.first = last + 1;
    if (!this.pending.length) this.emit("durable");
  }
  async close() {
    while (this.pending.length) await once(this, "durable");
    this.closing = true;
    this.connection.destroy();
  }
}

const client = new Client(process.env.LOGENGINE_SOCKET ?? "/run/logengine/socket", "node");
const input = readline.createInterface({ input: process.stdin });
input.on("line", (line) => {
  client.send({ level: "info", message: line });
  if (client.pending.length >= 10_000) input.pause(); // bounds the memory
});
client.on("durable", () => input.resume());
input.on("close", () => client.close());
