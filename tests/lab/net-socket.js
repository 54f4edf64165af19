// A UDP socket on a host of the laboratory, used from outside: this file is also the program that runs there.

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const PROGRAM = fileURLToPath(import.meta.url);
const COOKIE = 0x2112a442;
// Lines lose packets, and the program may be slow to start: a question is asked again, but not for ever.
const AGAIN_MS = 500;
const TIMES = 60;

export class Socket {
  /** Everything that has come in and was not taken yet: { address, port, data }. */
  arrived = [];
  #child;
  #sent = 0;
  #orders = 0;
  #waiting = new Set();
  #errors = "";

  /** `place` is a host, or the server; with `echo` it sends back whatever comes. */
  static async open(place, { ip6 = false, port = 0, echo = false } = {}) {
    const socket = new Socket();
    const [command, ...rest] = place.wrap([process.execPath, PROGRAM, ip6 ? "udp6" : "udp4", port, echo ? "echo" : ""]);
    socket.#child = spawn(command, rest, { stdio: ["pipe", "pipe", "pipe"] });
    socket.#child.stderr.on("data", (text) => (socket.#errors += text));
    socket.#child.stdin.on("error", () => {});
    const lines = createInterface({ input: socket.#child.stdout });
    lines.on("line", (line) => {
      const { listening, sent, address, port, data } = JSON.parse(line);
      if (listening) socket.port = listening;
      else if (sent) socket.#sent += 1;
      else socket.arrived.push({ address, port, data: Buffer.from(data, "hex") });
      socket.#wake();
    });
    socket.#child.on("exit", () => socket.#wake());
    await socket.#until(() => socket.port);
    return socket;
  }

  /** To { address, port }, one datagram or several in a row, which have left when this is done. */
  async send({ address, port, ttl = 64 }, ...datagrams) {
    const data = datagrams.map((text) => Buffer.from(text).toString("hex"));
    this.#child.stdin.write(`${JSON.stringify({ address, port, ttl, data })}\n`);
    const mine = (this.#orders += 1);
    await this.#until(() => this.#sent >= mine);
  }

  /** Takes the first datagram that matches, once it is there; undefined after `within` ms without one. */
  async next(matches, within = Infinity) {
    const find = () => this.arrived.findIndex(matches);
    await this.#until(() => find() >= 0, within);
    return find() < 0 ? undefined : this.arrived.splice(find(), 1)[0];
  }

  /** How the server at { address, port } sees this socket: asks until it is told. */
  async mapped(server) {
    for (let time = 0; time < TIMES; time += 1) {
      const transaction = await this.ask(server);
      const answer = await this.next(({ data }) => answers(data, transaction), AGAIN_MS);
      if (answer) return mappedAddress(answer.data);
    }
    throw new Error(`no answer of ${server.address}, port ${server.port}`);
  }

  /** Sends one question to a STUN server, and returns its transaction ID. */
  async ask(server) {
    const transaction = randomBytes(12);
    const head = Buffer.alloc(8);
    head.writeUInt16BE(0x0001, 0);
    head.writeUInt32BE(COOKIE, 4);
    await this.send(server, Buffer.concat([head, transaction]));
    return transaction;
  }

  async close() {
    if (this.#ended) return;
    const ended = once(this.#child, "exit");
    this.#child.stdin.end();
    await ended;
  }

  get #ended() {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  #wake() {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    waiting.forEach((resolve) => resolve());
  }

  /** Until it is so, or so many ms have passed. */
  async #until(isSo, within = Infinity) {
    let late = false;
    const timer = within === Infinity ? undefined : setTimeout(() => {
      late = true;
      this.#wake();
    }, within);
    while (!isSo() && !late) {
      if (this.#ended) throw new Error(`the socket's program has ended: ${this.#errors}`);
      await new Promise((resolve) => this.#waiting.add(resolve));
    }
    clearTimeout(timer);
  }
}

export function answers(data, transaction) {
  return data.length >= 20 && data.readUInt16BE(0) === 0x0101 && data.subarray(8, 20).equals(transaction);
}

/** XOR-MAPPED-ADDRESS (RFC 8489, section 14.2): { address, port }, an IPv6 address as its 16 bytes in hex. */
function mappedAddress(data) {
  for (let at = 20; at + 4 <= data.length; at += 4 + Math.ceil(data.readUInt16BE(at + 2) / 4) * 4) {
    if (data.readUInt16BE(at) !== 0x0020) continue;
    const mask = data.subarray(4, 20);
    const bytes = data.subarray(at + 8, at + 4 + data.readUInt16BE(at + 2)).map((byte, index) => byte ^ mask[index]);
    const port = data.readUInt16BE(at + 6) ^ (COOKIE >>> 16);
    return { address: bytes.length === 4 ? bytes.join(".") : Buffer.from(bytes).toString("hex"), port };
  }
  throw new Error("an answer without a mapped address");
}

/** On the host: datagrams and commands are lines of JSON, and the end of the commands is the end. */
async function main(family, port, echo) {
  const socket = createSocket(family);
  const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
  socket.on("message", (data, { address, port }) => {
    if (echo) socket.send(data, port, address, () => {});
    print({ address, port, data: data.toString("hex") });
  });
  socket.bind(Number(port));
  await once(socket, "listening");
  print({ listening: socket.address().port });
  for await (const line of createInterface({ input: process.stdin })) {
    const { address, port, ttl, data } = JSON.parse(line);
    socket.setTTL(ttl);
    // It is sent when its callback is called. What has no way out is lost as on any other network.
    for (const hex of data) await new Promise((sent) => socket.send(Buffer.from(hex, "hex"), port, address, sent));
    print({ sent: true });
  }
  socket.close();
}

if (process.argv[1] === PROGRAM) await main(...process.argv.slice(2));
