// What the module's unit tests run against: a clock that stands still, a server that speaks the second version, and
// peer connections that connect when their descriptions fit. Each keeps to the parts of the standards that matter here.

import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { readFile } from "node:fs/promises";
import { afterEach, beforeEach } from "node:test";

globalThis.crypto ??= webcrypto;

/** Node's own asks an event for its type, which the fields of a file's event hide; browsers know it. */
globalThis.EventTarget = class {
  #listeners = [];

  addEventListener(type, listener, { once = false, signal } = {}) {
    const known = { type, listener, once };
    this.#listeners.push(known);
    signal?.addEventListener("abort", () => this.#remove(known));
  }

  dispatchEvent(event) {
    const type = Object.getOwnPropertyDescriptor(Event.prototype, "type").get.call(event);
    for (const known of this.#listeners.filter((known) => known.type === type)) {
      if (known.once) this.#remove(known);
      known.listener(event);
    }
  }

  #remove(known) {
    this.#listeners = this.#listeners.filter((other) => other !== known);
  }
};

const source = await readFile(new URL("../../static/throughway.js", import.meta.url), "utf8");
export const { Signal, ThroughwayError, MAX_TEXT, readPath } = await import(
  `data:text/javascript,${encodeURIComponent(`${source}\n//# sourceURL=throughway.js`)}`
);

const real = { setTimeout, clearTimeout, setImmediate };

/** Lets everything run that waits for nothing but its turn. */
export async function settled() {
  for (let turn = 0; turn < 4; turn += 1) await new Promise((resolve) => real.setImmediate(resolve));
}

/** Node's own mock timers are not there in all the versions that we support. */
class Clock {
  now = 0;
  /** Timers that run while the machine sleeps are late by as much. */
  slept = 0;
  #timers = new Map();
  #next = 1;

  install() {
    globalThis.setTimeout = (task, milliseconds = 0) => {
      this.#timers.set(this.#next, { at: this.now + milliseconds, task });
      return this.#next++;
    };
    globalThis.clearTimeout = (timer) => void this.#timers.delete(timer);
    globalThis.Date.now = () => this.now + this.slept;
  }

  /** Time passes, and what is due runs in order. */
  async pass(milliseconds) {
    const until = this.now + milliseconds;
    for (;;) {
      const [next] = [...this.#timers].filter(([, { at }]) => at <= until).sort(([, a], [, b]) => a.at - b.at);
      if (!next) break;
      this.#timers.delete(next[0]);
      this.now = Math.max(this.now, next[1].at);
      next[1].task();
      await settled();
    }
    this.now = until;
    await settled();
  }
}

export let clock;
export let server;

/** A generator of the same numbers for the same seed (mulberry32). */
export function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The server: sessions that are taken up again, rooms, and what waits to be acknowledged. */
class FakeServer {
  sessions = new Map();
  rooms = new Map();
  /** What clients sent, by name, without what is about the connection alone. */
  heard = [];
  accepts = true;
  /** Whose network carries nothing. */
  cutOff = new Set();
  /** Sockets deliver by themselves; else the test does. */
  prompt = true;
  #joined = 0;

  get sockets() {
    return FakeSocket.all.filter(({ readyState }) => readyState < 3);
  }

  socketOf(name) {
    return this.sessions.get(name)?.socket;
  }

  /** All that `name` was heard saying, by type. */
  types(name) {
    return this.heard.filter(({ from }) => from === name).map(({ frame }) => frame.type);
  }

  tell(name, frame) {
    const session = this.sessions.get(name);
    if (!session) return false;
    session.kept.push({ seq: (session.seq += 1), ...frame });
    session.socket?.down(session.kept.at(-1));
    return true;
  }

  receive(socket, frame) {
    const { name = frame.name, session } = socket;
    if (this.cutOff.has(name)) return;
    if (frame.type === "login") return this.#login(socket, frame);
    if (!session || this.sessions.get(name) !== session || session.socket !== socket) return;
    if (frame.type === "ping") return socket.down({ type: "pong", id: session.last });
    if (frame.type === "bye") return this.end(name);
    if (frame.type === "ack") {
      session.acks.push(frame.seq);
      session.kept = session.kept.filter(({ seq }) => seq > frame.seq);
      return;
    }
    if (frame.id <= session.last) return;
    session.last = frame.id;
    const { id, ...rest } = frame;
    this.heard.push({ from: name, frame: rest, id });
    this.#carryOut(name, session, frame);
  }

  #login(socket, { name, resume, seq }) {
    const known = this.sessions.get(name);
    if (resume !== undefined) {
      if (known?.secret !== resume) return socket.down({ type: "login", success: false, reason: "auth", resume: false });
      if (known.socket?.readyState < 3) known.socket.drop(4002);
      known.kept = known.kept.filter((frame) => frame.seq > seq);
      return this.#welcome(socket, name, known);
    }
    if (known) return socket.down({ type: "login", success: false, reason: "name-taken" });
    const session = { secret: Math.random(), seq: 0, last: 0, kept: [], acks: [], partners: new Set(), order: (this.#joined += 1) };
    this.sessions.set(name, session);
    this.#welcome(socket, name, session);
  }

  #welcome(socket, name, session) {
    Object.assign(socket, { name, session });
    session.socket = socket;
    const iceServers = [{ urls: ["stun:s"] }];
    socket.down({ type: "login", success: true, name, resume: session.secret, id: session.last, iceServers, iceTtl: 600 });
    for (const frame of session.kept) socket.down(frame);
  }

  #carryOut(from, session, { type, name, room, id, ...rest }) {
    const fault = (code) => this.tell(from, { type: "error", code, message: code, name, id });
    if (type === "join") {
      const members = this.rooms.get(room) ?? new Set();
      this.rooms.set(room, members);
      if (this.full) return fault("forbidden");
      const others = [...members].filter((other) => other !== from);
      if (!members.has(from)) for (const other of others) this.tell(other, { type: "presence", room, joined: from });
      members.add(from);
      return this.tell(from, { type: "join", room, members: others });
    }
    if (type === "part") return this.#part(from, room);
    if (type === "ice") return;
    const to = this.sessions.get(name);
    if (!to) return fault("unknown-member");
    if (type === "leave") {
      session.partners.delete(name);
    } else {
      session.partners.add(name);
      to.partners.add(from);
    }
    const polite = type === "offer" ? { polite: to.order > session.order } : {};
    this.tell(name, { type, name: from, ...polite, ...rest });
  }

  #part(name, room) {
    if (!this.rooms.get(room)?.delete(name)) return;
    for (const other of this.rooms.get(room)) this.tell(other, { type: "presence", room, left: name });
  }

  /** A session is over, by its client's will or because that is not coming back. */
  end(name) {
    const session = this.sessions.get(name);
    if (!session) return;
    this.sessions.delete(name);
    for (const partner of session.partners) this.tell(partner, { type: "leave", name });
    for (const room of this.rooms.keys()) this.#part(name, room);
    for (const frame of session.kept.filter(({ type }) => type in { offer: 1, answer: 1, candidate: 1 })) {
      this.tell(frame.name, { type: "error", code: "undelivered", message: "it may not have arrived", name });
    }
  }

  /** A session waits for its client, for as long again as it takes to notice that there is nothing on the line. */
  lose({ name, session }) {
    session.socket = undefined;
    const isOver = () => session.socket === undefined && this.sessions.get(name) === session;
    setTimeout(() => isOver() && this.end(name), this.cutOff.has(name) ? 75_000 : 30_000);
  }

  /** Everything is forgotten, and every connection ends. */
  restart() {
    this.sessions.clear();
    this.rooms.clear();
    for (const socket of this.sockets) socket.drop(1012);
  }
}

export class FakeSocket {
  static OPEN = 1;
  static all = [];
  readyState = 0;
  /** What is on its way, in either direction. */
  ways = { up: [], down: [] };
  /** Packets get lost without a word. */
  deaf = false;

  constructor() {
    FakeSocket.all.push(this);
    queueMicrotask(() => {
      if (this.readyState > 0) return;
      if (!server.accepts) return this.drop(1006);
      this.readyState = 1;
      this.onopen();
    });
  }

  send(text) {
    if (this.readyState === 1 && !this.deaf) this.#push("up", text);
  }

  down(frame) {
    if (this.readyState === 1 && !this.deaf && !server.cutOff.has(this.name)) this.#push("down", typeof frame === "string" ? frame : JSON.stringify(frame));
  }

  #push(way, text) {
    this.ways[way].push(text);
    if (server.prompt) queueMicrotask(() => this.deliver(way));
  }

  deliver(way) {
    const text = this.ways[way].shift();
    if (text === undefined || this.readyState !== 1) return;
    if (way === "up") server.receive(this, JSON.parse(text));
    else this.onmessage({ data: text });
  }

  drop(code, reason = "") {
    if (this.readyState === 3) return;
    this.readyState = 3;
    if (this.session?.socket === this) server.lose(this);
    this.onclose({ code, reason });
  }

  close() {
    if (this.readyState < 2) queueMicrotask(() => this.drop(1000));
  }
}

/** A channel that carries what the other end of the same number gets. */
class FakeChannel extends EventTarget {
  readyState = "connecting";
  bufferedAmount = 0;
  sent = [];

  send(data) {
    if (this.readyState !== "open") throw new Error("not open");
    this.sent.push(data);
    this.onsend?.(data);
    queueMicrotask(() => this.other?.readyState === "open" && this.other.onmessage({ data }));
  }

  open(other) {
    if (this.readyState !== "connecting") return;
    this.other = other;
    this.readyState = "open";
    this.onopen?.();
  }

  close() {
    if (this.readyState === "closed") return;
    this.readyState = "closed";
    this.onclose?.();
    this.dispatchEvent(new Event("close"));
  }
}

/** A sender and receiver of one kind. */
class FakeTransceiver {
  direction = "sendrecv";
  swaps = 0;

  constructor(pc, kind, track = null) {
    this.receiver = { track: { kind } };
    this.sender = { track, setStreams: () => {}, replaceTrack: async (next) => void ((this.sender.track = next), (this.swaps += 1)) };
    return new Proxy(this, {
      set: (target, key, value) => {
        if (key === "direction" && target.direction !== value) pc.need();
        target[key] = value;
        return true;
      },
    });
  }
}

export class FakeConnection {
  static all = [];
  signalingState = "stable";
  connectionState = "new";
  remoteDescription = null;
  localDescription = null;
  candidates = [];
  channels = new Map();
  transceivers = [];
  restarts = 0;
  offers = 0;
  /** Nothing gets here. */
  isAsleep = false;
  #generation = 1;
  #needed = false;
  #stable = {};

  constructor(configuration) {
    this.configuration = configuration;
    this.id = FakeConnection.all.push(this) - 1;
  }

  /** Those that are not closed. */
  static get open() {
    return FakeConnection.all.filter(({ signalingState }) => signalingState !== "closed");
  }

  getConfiguration() {
    return this.configuration;
  }

  setConfiguration(configuration) {
    assert.equal(configuration.iceCandidatePoolSize, this.configuration.iceCandidatePoolSize, "it is fixed once described");
    this.configuration = configuration;
  }

  getTransceivers() {
    return this.transceivers;
  }

  addTrack(track) {
    this.transceivers.push(new FakeTransceiver(this, track.kind, track));
    this.need();
  }

  removeTrack(sender) {
    if (!sender.track) return;
    sender.track = null;
    this.transceivers.find((known) => known.sender === sender).direction = "recvonly";
  }

  createDataChannel(label, { id }) {
    const channel = new FakeChannel();
    this.channels.set(id, channel);
    // An offer of theirs has room for it already.
    if (!this.remoteDescription) this.need();
    return channel;
  }

  need() {
    this.#needed = true;
    queueMicrotask(() => {
      if (!this.#needed || this.signalingState !== "stable") return;
      this.#needed = false;
      this.onnegotiationneeded?.();
    });
  }

  restartIce() {
    this.restarts += 1;
    this.#generation += 1;
    this.need();
  }

  async setLocalDescription(description) {
    await null;
    if (this.signalingState === "closed") return;
    if (description?.type === "rollback") {
      assert.equal(this.signalingState, "have-local-offer");
      return this.#stabilize(this.#stable);
    }
    const type = this.signalingState === "have-remote-offer" ? "answer" : "offer";
    if (type === "offer") this.offers += 1;
    this.#needed = false;
    const kinds = this.transceivers.map(({ receiver }) => `m=${receiver.track.kind} 9\n`).join("");
    const sdp = `v=0\ni=${this.id} ${this.#generation}\n${kinds}`;
    if (type === "offer") this.#stable = { localDescription: this.localDescription, remoteDescription: this.remoteDescription };
    this.localDescription = { type, sdp };
    this.signalingState = type === "offer" ? "have-local-offer" : "stable";
    // As a task of its own, after who waits for the description has it.
    real.setImmediate(() => this.#gather());
    if (type === "answer") this.#stabilize({});
  }

  async setRemoteDescription(description) {
    await null;
    if (this.signalingState === "closed") return;
    const { type, sdp } = description;
    if (type === "offer" && this.signalingState === "have-local-offer") this.#stabilize(this.#stable);
    const wanted = type === "offer" ? "stable" : "have-local-offer";
    if (this.signalingState !== wanted) throw new Error(`${type} in ${this.signalingState}`);
    for (const [, kind] of sdp.matchAll(/^m=(audio|video)/gm)) {
      if (this.transceivers.some(({ receiver }) => receiver.track.kind === kind)) continue;
      const transceiver = new FakeTransceiver(this, kind);
      transceiver.direction = "recvonly";
      this.transceivers.push(transceiver);
    }
    if (type === "offer") this.#stable = { localDescription: this.localDescription, remoteDescription: this.remoteDescription };
    this.remoteDescription = description;
    this.signalingState = type === "offer" ? "have-remote-offer" : "stable";
    if (type === "answer") this.#stabilize({});
  }

  async addIceCandidate({ candidate }) {
    if (!this.remoteDescription) throw new Error("no remote description");
    this.candidates.push(candidate);
  }

  async getStats() {
    return new Map();
  }

  close() {
    if (this.signalingState === "closed") return;
    this.signalingState = "closed";
    for (const channel of this.channels.values()) {
      const { other } = channel;
      channel.readyState = "closed";
      queueMicrotask(() => other?.close());
    }
  }

  /** The network has changed its mind. */
  become(state) {
    if (this.signalingState === "closed" || this.connectionState === state) return;
    this.connectionState = state;
    this.onconnectionstatechange?.();
  }

  #stabilize(fields) {
    Object.assign(this, { signalingState: "stable" }, fields);
    if (this.#needed) this.need();
    queueMicrotask(() => this.#connect());
  }

  #gather() {
    if (this.signalingState === "closed") return;
    const candidate = { candidate: `candidate ${this.id}`, type: "host", toJSON: () => ({ candidate: `candidate ${this.id}` }) };
    this.onicecandidate?.({ candidate });
    this.onicecandidate?.({ candidate: null });
  }

  /** Both ends have each other's latest description. */
  #connect() {
    const line = (description) => /^i=.*/m.exec(description?.sdp)?.[0];
    const other = FakeConnection.all[line(this.remoteDescription)?.match(/\d+/)[0]];
    const fits = (one, two) => line(one.localDescription) && line(one.localDescription) === line(two.remoteDescription);
    const both = [this, other];
    if (!other || both.some((end) => end.signalingState !== "stable" || end.isAsleep) || !fits(this, other) || !fits(other, this)) return;
    this.peer = other;
    other.peer = this;
    for (const end of both) {
      for (const [id, channel] of end.channels) {
        const opposite = end.peer.channels.get(id);
        if (opposite) channel.open(opposite);
      }
      end.become("connected");
    }
  }
}

/** A stream of tracks of these kinds, for `setMedia`. */
export function stream(...kinds) {
  const tracks = kinds.map((kind) => ({ kind }));
  return { getTracks: () => tracks };
}

Object.assign(globalThis, { RTCPeerConnection: FakeConnection, WebSocket: FakeSocket });

let signals = [];

beforeEach(() => {
  clock = new Clock();
  clock.install();
  server = new FakeServer();
  FakeSocket.all = [];
  FakeConnection.all = [];
});

afterEach(async () => {
  for (const signal of signals) signal.close();
  signals = [];
  await settled();
});

/** Signs in; what the page would hear is in `events`. */
export async function connect(name, options) {
  const signing = Signal.connect({ name, url: "ws://test/", ...options });
  const signal = await signing;
  signals.push(signal);
  signal.events = [];
  for (const type of ["call", "missed", "state", "error"]) {
    signal.addEventListener(type, (event) => signal.events.push(event));
  }
  return signal;
}

/** Two in a call. */
export async function inCall(options) {
  const [alice, bob] = [await connect("alice"), await connect("bob")];
  let theirs;
  bob.addEventListener("call", (event) => (theirs = event.accept(options)));
  const ours = alice.call("bob", options);
  await settled();
  await settled();
  assert.deepEqual([ours.state, theirs?.state], ["connected", "connected"]);
  return { alice, bob, ours, theirs };
}
