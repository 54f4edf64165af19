// The internet of the laboratory: a router in a namespace of its own, on which the lines and the name server are.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { FORWARDING } from "./net-system.js";

const PROGRAM = fileURLToPath(new URL("net-internet.py", import.meta.url));
// A burst that a real line would keep in its buffers.
const QUEUE = 2000;

export class Internet {
  /** Of the name server. */
  nameServers = { ip4: "203.0.113.53", ip6: "2001:db8::53" };
  #namespace;
  #child;
  #answers;
  #errors = "";
  #asked = Promise.resolve();
  #lines = 0;
  #routes = new Map();

  static async namespace(run) {
    return run.namespace("internet", { settings: FORWARDING });
  }

  /** `known` is the one name there is: { name, ip4, ip6 }. */
  static async open(namespace, known) {
    const internet = new Internet();
    internet.#namespace = namespace;
    const listen = Object.values(internet.nameServers);
    // Without multicast routing none is passed on: nobody hears the names that others announce in their own homes.
    await namespace.ip(`addr add ${listen[0]}/32 dev lo`, `addr add ${listen[1]}/128 dev lo nodad`);
    const [command, ...rest] = namespace.wrap(["python3", PROGRAM, JSON.stringify({ ...known, listen })]);
    internet.#child = spawn(command, rest, { stdio: ["pipe", "pipe", "pipe"] });
    internet.#child.stderr.on("data", (text) => (internet.#errors += text));
    internet.#child.stdin.on("error", () => {});
    internet.#answers = createInterface({ input: internet.#child.stdout })[Symbol.asyncIterator]();
    await internet.#answer();
    return internet;
  }

  /** Joins the server to it, by a cable without a delay. */
  async attach(namespace, { ip4, otherIp4, ip6 }) {
    await this.#namespace.cable("server", namespace, "eth0");
    const { nameServers } = this;
    await namespace.ip(
      `addr add ${ip4}/32 dev eth0`, `addr add ${otherIp4}/32 dev eth0`, `addr add ${ip6}/128 dev eth0 nodad`,
      `route add default via ${nameServers.ip4} dev eth0 onlink`,
      "route add ::/0 via fe80::1 dev eth0",
    );
    await this.#namespace.ip(
      // A neighbor is found by an address of the cable's own.
      "addr add fe80::1/64 dev server nodad",
      `route add ${ip4}/32 dev server`, `route add ${otherIp4}/32 dev server`, `route add ${ip6}/128 dev server`,
    );
  }

  /** A line that ends in a device of that namespace: each way has this delay (ms), loss, and rate (bits a second). */
  async line(namespace, device, { delay, loss, rate }) {
    this.#lines += 1;
    const seed = this.#lines;
    const line = { near: `line${seed}`, far: `far${seed}` };
    await this.#ask({ do: "line", line: line.near, ...line, delay, loss, rate, seed });
    await this.#namespace.ip(
      `link set ${line.near} txqueuelen ${QUEUE} up`,
      `link set ${line.far} txqueuelen ${QUEUE} netns ${namespace.name} name ${device}`,
    );
    await namespace.ip(`link set ${device} up`);
    return line;
  }

  /** Sends what is for these addresses along the line, and what was for others before no longer. */
  async route(line, ...destinations) {
    const routes = destinations.filter(Boolean).map((to) => `${to} dev ${line.near}`);
    const before = this.#routes.get(line) ?? [];
    this.#routes.set(line, routes);
    const commands = (verb, routes) => routes.map((route) => `route ${verb} ${route}`);
    await this.#namespace.ip(...commands("del", before), ...commands("add", routes));
  }

  async cut(line) {
    await this.#ask({ do: "cut", line: line.near });
  }

  async mend(line) {
    await this.#ask({ do: "mend", line: line.near });
  }

  async counts(line) {
    return this.#ask({ do: "counts", line: line.near });
  }

  async close() {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.stdin.end();
    await ended;
  }

  /** One question at a time: answers have no names. */
  #ask(command) {
    const answer = this.#asked.then(() => {
      this.#child.stdin.write(`${JSON.stringify(command)}\n`);
      return this.#answer();
    });
    this.#asked = answer.catch(() => {});
    return answer;
  }

  async #answer() {
    const { value, done } = await this.#answers.next();
    if (done) throw new Error(`the laboratory's internet has ended: ${this.#errors}`);
    return JSON.parse(value);
  }
}
