// What of throughway.js can be told without a browser: order, crossing offers, late frames, back-off, reading statistics.
//
// The two fakes keep to the parts of the standards that matter here: signaling states, and frames in order.

import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { readFile } from "node:fs/promises";
import { afterEach, mock, test } from "node:test";

globalThis.crypto ??= webcrypto;
const source = await readFile(new URL("../../static/throughway.js", import.meta.url), "utf8");
const { Signal, ThroughwayError, readPath } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

class FakeConnection {
  static all = [];
  signalingState = "stable";
  connectionState = "new";
  remoteDescription = null;
  localDescription = null;
  candidates = [];

  constructor(configuration) {
    this.configuration = configuration;
    FakeConnection.all.push(this);
  }

  createDataChannel() {
    // An offer of theirs has room for it already.
    if (!this.remoteDescription) queueMicrotask(() => this.onnegotiationneeded?.());
    return (this.channel = new EventTarget());
  }

  async setLocalDescription() {
    const type = this.signalingState === "have-remote-offer" ? "answer" : "offer";
    this.localDescription = { type, sdp: type };
    this.signalingState = type === "offer" ? "have-local-offer" : "stable";
  }

  async setRemoteDescription(description) {
    const wanted = description.type === "offer" ? "stable" : "have-local-offer";
    if (this.signalingState !== wanted) throw new Error(`${description.type} in ${this.signalingState}`);
    this.remoteDescription = description;
    this.signalingState = description.type === "offer" ? "have-remote-offer" : "stable";
  }

  async addIceCandidate(candidate) {
    if (!this.remoteDescription) throw new Error("no remote description");
    this.candidates.push(candidate.candidate);
  }

  getTransceivers() {
    return [];
  }

  setConfiguration(configuration) {
    this.configuration = configuration;
  }

  restartIce() {
    this.restarts = (this.restarts ?? 0) + 1;
  }

  close() {
    this.signalingState = "closed";
  }
}

class FakeSocket {
  static OPEN = 1;
  static all = [];
  /** What the server answers to a sign-in. */
  static login = (name) => ({ type: "login", success: true, name, iceServers: [{ urls: ["stun:s"] }], iceTtl: 600 });
  static refuse = false;
  readyState = 0;
  sent = [];

  constructor() {
    FakeSocket.all.push(this);
    queueMicrotask(() => (FakeSocket.refuse ? this.drop(1006) : this.open()));
  }

  open() {
    this.readyState = 1;
    this.onopen();
  }

  send(text) {
    const frame = JSON.parse(text);
    if (frame.type === "login") return this.say(FakeSocket.login(frame.name));
    const { id, ...rest } = frame;
    if (!["ping", "ack", "bye"].includes(rest.type)) this.sent.push(rest);
  }

  say(frame) {
    this.onmessage({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
  }

  drop(code) {
    this.readyState = 3;
    this.onclose({ code });
  }

  close() {
    if (this.readyState < 2) queueMicrotask(() => this.drop(1000));
  }
}

Object.assign(globalThis, { RTCPeerConnection: FakeConnection, WebSocket: FakeSocket });

let signals = [];
afterEach(() => {
  for (const signal of signals) signal.close();
  signals = [];
  mock.timers.reset();
  FakeSocket.refuse = false;
});

async function connect(name) {
  const signal = await Signal.connect({ name, url: "ws://test/" });
  signals.push(signal);
  return [signal, FakeSocket.all.at(-1)];
}

const settled = () => new Promise((resolve) => setImmediate(resolve));
const types = (socket) => socket.sent.map(({ type }) => type);
const offer = (name, call = "theirs") => ({ type: "offer", name, offer: { type: "offer", sdp: "offer", call } });

test("the side whose name comes first gives way to a crossing offer", async () => {
  const [alice, socket] = await connect("alice");
  const call = alice.call("bob");
  await settled();

  socket.say(offer("bob"));
  await settled();

  assert.deepEqual(types(socket), ["offer", "answer"]);
  assert.equal(socket.sent[1].answer.call, "theirs");
  assert.equal(call.state, "connecting");
});

test("the side whose name comes last keeps its own offer", async () => {
  const [bob, socket] = await connect("bob");
  const call = bob.call("alice");
  await settled();

  socket.say(offer("alice"));
  await settled();

  assert.deepEqual(types(socket), ["offer"]);
  assert.equal(call.state, "calling");
});

test("candidates that come before the answer wait for it, in order", async () => {
  const [alice, socket] = await connect("alice");
  alice.call("bob");
  await settled();
  const { call } = socket.sent[0].offer;

  for (const candidate of ["one", "two"]) socket.say({ type: "candidate", name: "bob", candidate: { candidate, call } });
  socket.say({ type: "answer", name: "bob", answer: { type: "answer", sdp: "answer", call } });
  socket.say({ type: "candidate", name: "bob", candidate: { candidate: "", call } });
  await settled();

  assert.deepEqual(FakeConnection.all.at(-1).candidates, ["one", "two", ""]);
});

test("candidates that come while it rings are there once the call is accepted", async () => {
  const [alice, socket] = await connect("alice");
  alice.addEventListener("call", (event) => setImmediate(() => event.accept()));
  socket.say(offer("bob"));
  socket.say({ type: "candidate", name: "bob", candidate: { candidate: "early", call: "theirs" } });

  await settled();
  await settled();

  assert.deepEqual(types(socket), ["answer"]);
  assert.deepEqual(FakeConnection.all.at(-1).candidates, ["early"]);
});

test("late frames of an earlier call don't touch the next one", async () => {
  const [alice, socket] = await connect("alice");
  alice.call("bob").hangUp();
  const second = alice.call("bob");
  await settled();

  socket.say({ type: "answer", name: "bob", answer: { type: "answer", sdp: "late", call: "an earlier one" } });
  await settled();

  assert.equal(second.state, "calling");
});

test("an answer to a call that was given up is answered with leave", async () => {
  const [, socket] = await connect("alice");

  socket.say({ type: "answer", name: "bob", answer: { type: "answer", sdp: "late" } });

  assert.deepEqual(socket.sent, [{ type: "leave", name: "bob" }]);
});

test("an offer of another call replaces the call that the other side has lost", async () => {
  const [alice, socket] = await connect("alice");
  const rung = [];
  alice.addEventListener("call", (event) => rung.push(event));
  socket.say(offer("bob", "first"));
  const first = rung[0].accept();
  await settled();

  socket.say(offer("bob", "second"));

  assert.equal(first.state, "closed");
  assert.equal(rung.length, 2);
});

test("a tutorial's client, which knows no call ids, may offer again and again in one call", async () => {
  const [alice, socket] = await connect("alice");
  let call;
  alice.addEventListener("call", (event) => (call = event.accept()));

  for (const round of [1, 2, 3]) {
    socket.say({ type: "offer", name: "bob", offer: { type: "offer", sdp: `offer ${round}` } });
    await settled();
  }

  assert.deepEqual(types(socket), ["answer", "answer", "answer"]);
  assert.equal(call.state, "connecting");
});

test("at most 16 callers ring at once, the next is declined", async () => {
  const [alice, socket] = await connect("alice");
  let rung = 0;
  alice.addEventListener("call", () => (rung += 1));

  for (let caller = 0; caller < 17; caller += 1) socket.say(offer(`caller ${caller}`));

  assert.equal(rung, 16);
  assert.deepEqual(socket.sent, [{ type: "leave", name: "caller 16" }]);
});

test("frames that mean nothing are passed over", async () => {
  const [alice, socket] = await connect("alice");
  const call = alice.call("bob");
  await settled();

  for (const junk of ["not json", "null", "[]", "42", '{"type":"answer","name":"bob","answer":7}', '{"type":"offer"}', '{"type":"candidate","name":"__proto__"}']) {
    socket.say(junk);
  }
  await settled();

  assert.equal(call.state, "calling");
});

test("a refused sign-in is a typed error in plain words", async () => {
  const login = FakeSocket.login;
  FakeSocket.login = () => ({ type: "login", success: false, reason: "name-taken" });

  const failure = await connect("alice").catch((error) => error);
  FakeSocket.login = login;

  assert.ok(failure instanceof ThroughwayError);
  assert.deepEqual([failure.code, failure.message], ["name-taken", "the name alice is taken"]);
});

test("a lost connection signs in again with a growing pause, and a live call goes on", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const [alice, socket] = await connect("alice");
  let call;
  alice.addEventListener("call", (event) => (call = event.accept()));
  socket.say(offer("bob"));
  await settled();
  const before = FakeSocket.all.length;
  FakeSocket.refuse = true;

  socket.drop(1006);
  const attempts = [];
  for (const milliseconds of [200, 200, 700, 800, 1700, 1700]) {
    mock.timers.tick(milliseconds);
    await settled();
    attempts.push(FakeSocket.all.length - before);
  }
  FakeSocket.refuse = false;
  mock.timers.tick(8000);
  await settled();

  // 0.3, 1.2 and 2.7 s, each a quarter more or less.
  assert.deepEqual(attempts, [0, 1, 1, 2, 2, 3]);
  assert.equal(alice.state, "online");
  assert.equal(call.state, "connecting");
});

test("close codes 4000 to 4009 are final", async () => {
  for (const code of [4000, 4002, 4009]) {
    const [alice, socket] = await connect("alice");
    socket.drop(code);
    assert.equal(alice.state, "closed");
  }
});

test("fresh servers reach live calls", async () => {
  const [alice, socket] = await connect("alice");
  alice.call("bob");

  socket.say({ type: "ice", iceServers: [{ urls: ["stun:fresh"] }], iceTtl: 600 });

  assert.deepEqual(FakeConnection.all.at(-1).configuration.iceServers, [{ urls: ["stun:fresh"] }]);
  assert.equal(FakeConnection.all.at(-1).configuration.bundlePolicy, "max-bundle");
});

test("aborting signs out, ends the calls and frees the name", async () => {
  const controller = new AbortController();
  const alice = await Signal.connect({ name: "alice", url: "ws://test/", signal: controller.signal });
  const socket = FakeSocket.all.at(-1);
  const call = alice.call("bob");

  controller.abort();
  await settled();

  assert.deepEqual([alice.state, call.state, socket.readyState], ["closed", "closed", 3]);
});

test("the path is read from Chromium's and from Firefox's statistics", () => {
  const relay = { id: "l", type: "local-candidate", candidateType: "relay", protocol: "udp", relayProtocol: "tls" };
  const host = { id: "r", type: "remote-candidate", candidateType: "host", protocol: "udp" };
  const pair = { id: "p", type: "candidate-pair", localCandidateId: "l", remoteCandidateId: "r" };
  const report = (...entries) => new Map(entries.map((entry) => [entry.id, entry]));

  const chromium = readPath(report(relay, host, { ...pair, currentRoundTripTime: 0.0031 }, { id: "t", type: "transport", selectedCandidatePairId: "p" }));
  const firefox = readPath(report({ ...relay, candidateType: "srflx", relayProtocol: undefined }, host, { ...pair, selected: true }));

  assert.deepEqual(chromium, { relayed: true, protocol: "tls", local: "relay", remote: "host", rtt: 3 });
  assert.deepEqual(firefox, { relayed: false, protocol: "udp", local: "srflx", remote: "host", rtt: undefined });
  assert.equal(readPath(report(relay, host)), undefined);
});
