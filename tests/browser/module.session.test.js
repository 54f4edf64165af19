// The session behind the connection: sequence numbers, receipts, resumes, and noticing that the server is gone.

import assert from "node:assert/strict";
import { test } from "node:test";
import { clock, connect, FakeConnection, FakeSocket, inCall, server, settled, ThroughwayError } from "./fakes.js";

const sent = (name) => server.heard.filter(({ from }) => from === name);
const states = (signal) => signal.events.filter(({ type }) => type === "state").map(({ state }) => state);

test("a break is over with a resume, and frames of both sides come exactly once and in order", async () => {
  const alice = await connect("alice");
  await connect("bob");
  const socket = server.socketOf("alice");
  server.tell("alice", { type: "offer", name: "bob", offer: { type: "offer", sdp: "v=0", call: "x" } });
  await settled();

  // Nothing that is said from here on arrives over this connection.
  socket.deaf = true;
  alice.events[0].reject();
  for (const n of [1, 2, 3]) server.tell("alice", { type: "offer", name: `caller ${n}`, offer: { type: "offer", sdp: "v=0" } });
  socket.drop(1006);
  await clock.pass(400);

  assert.deepEqual(states(alice), ["reconnecting", "online"]);
  assert.deepEqual(sent("alice").map(({ frame, id }) => [frame.type, id]), [["leave", 1]]);
  const callers = alice.events.filter(({ type }) => type === "call").map(({ name }) => name);
  assert.deepEqual(callers, ["bob", "caller 1", "caller 2", "caller 3"]);
});

test("what the server has twice to say is heard once", async () => {
  const alice = await connect("alice");
  const frame = { type: "offer", name: "bob", offer: { type: "offer", sdp: "v=0", call: "x" }, seq: 1 };
  const socket = server.socketOf("alice");

  for (let times = 0; times < 3; times += 1) {
    socket.down(frame);
    await settled();
    if (times === 0) alice.events[0].reject();
  }

  assert.equal(alice.events.length, 1);
});

test("frames are acknowledged after 16 of them, after 64 KiB, and after 5 seconds", async () => {
  await connect("alice");
  const { acks } = server.sessions.get("alice");
  const tell = (length) => server.tell("alice", { type: "pad", pad: "x".repeat(length) });

  for (let frames = 0; frames < 17; frames += 1) tell(1);
  await settled();
  assert.deepEqual(acks, [16]);
  await clock.pass(4_900);
  assert.deepEqual(acks, [16]);
  await clock.pass(200);
  assert.deepEqual(acks, [16, 17]);
  for (let frames = 0; frames < 3; frames += 1) tell(30_000);
  await settled();

  assert.deepEqual(acks, [16, 17, 20]);
});

test("a session that is gone is signed in anew at once, over the same connection", async () => {
  const alice = await connect("alice");
  server.sessions.clear();

  server.sockets[0].drop(1006);
  await clock.pass(400);

  assert.equal(alice.state, "online");
  assert.equal(FakeSocket.all.length, 2);
  assert.equal(server.sessions.get("alice").order, 2);
});

test("our own name is waited for while our dead session has it", async () => {
  const alice = await connect("alice");
  const stale = server.sessions.get("alice");
  stale.secret = "another";

  server.sockets[0].drop(1006);
  await clock.pass(25_000);
  assert.equal(alice.state, "reconnecting");
  await clock.pass(20_000);

  assert.equal(alice.state, "online");
});

test("at most 150 frames wait for the server, what is more is refused, and no call suffers", async () => {
  const { alice, ours } = await inCall();
  await clock.pass(2_000);
  server.socketOf("alice").deaf = true;
  const before = sent("alice").length;

  for (let times = 0; times < 300; times += 1) alice.call(`member ${times}`, { chat: false }).hangUp();
  server.socketOf("alice").drop(1006);
  await clock.pass(1_000);

  assert.equal(sent("alice").length - before, 150);
  assert.equal(ours.state, "connected");
});

test("a connection that is dead without a word is noticed within seconds of a frame, and the frame arrives", async () => {
  const alice = await connect("alice");
  await connect("bob");
  server.socketOf("alice").deaf = true;
  alice.call("bob");
  await settled();

  await clock.pass(5_000);
  assert.deepEqual(states(alice), ["reconnecting"]);
  await clock.pass(400);

  assert.deepEqual(states(alice), ["reconnecting", "online"]);
  assert.equal(sent("alice").filter(({ frame }) => frame.type === "offer").length, 1);
});

test("a connection that nobody uses is asked for now and then", async () => {
  const alice = await connect("alice");
  await clock.pass(60_000);
  assert.deepEqual(states(alice), []);
  server.socketOf("alice").deaf = true;

  await clock.pass(24_100);

  assert.deepEqual(states(alice), ["reconnecting"]);
});

test("attempts to reconnect grow further apart, each jittered", async (t) => {
  t.mock.method(Math, "random", () => 0);
  await connect("alice");
  const before = FakeSocket.all.length;
  server.accepts = false;

  server.sockets[0].drop(1006);
  const attempts = [];
  // Half as long again each time, up to 7 s, each a quarter less at the least.
  for (const milliseconds of [197, 296, 445, 666, 1_000, 1_500, 2_250, 3_375, 5_063, 5_250, 5_250]) {
    await clock.pass(milliseconds);
    attempts.push(FakeSocket.all.length - before);
  }
  await clock.pass(5);

  assert.deepEqual([...attempts, FakeSocket.all.length - before], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
});

test("whoever looks for the server while an attempt hangs waits no longer than that one", async (t) => {
  const { alice, ours } = await inCall();
  t.mock.method(Math, "random", () => 1);
  server.cutOff.add("alice");
  server.socketOf("alice").drop(1006);
  await clock.pass(45_000);
  while (server.sockets.some(({ readyState }) => readyState === 1) === false) await clock.pass(100);

  ours.connection.become("failed");
  server.cutOff.clear();
  await clock.pass(10_500);

  assert.equal(alice.state, "online");
});

test("signing out is told once, also to who signs out upon that", async () => {
  const { alice, ours } = await inCall();
  ours.addEventListener("closed", () => alice.close());

  alice.close();

  assert.deepEqual(states(alice), ["closed"]);
});

test("close codes 4000 to 4009 are final, and their reason is said", async () => {
  for (const code of [4000, 4002, 4009]) {
    const alice = await connect("alice");
    const socket = server.socketOf("alice");
    server.end("alice");
    socket.drop(code, "for a reason");
    assert.deepEqual([alice.state, alice.events.at(-1).reason], ["closed", "for a reason"]);
  }
});

test("a refused sign-in is a typed error in plain words", async () => {
  await connect("alice");

  const failure = await connect("alice").catch((error) => error);

  assert.ok(failure instanceof ThroughwayError);
  assert.deepEqual([failure.code, failure.message], ["name-taken", "the name alice is taken"]);
});

test("the token is shown at each sign-in", async () => {
  const logins = [];
  const receive = server.receive.bind(server);
  server.receive = (socket, frame) => (frame.type === "login" && logins.push(frame), receive(socket, frame));
  await connect("alice", { token: "secret" });
  server.sockets[0].drop(1006);

  await clock.pass(400);

  assert.deepEqual(logins.map(({ token, v, seq }) => [token, v, seq]), [["secret", 2, undefined], ["secret", 2, 0]]);
});

test("aborting signs out, ends the calls and frees the name", async () => {
  const controller = new AbortController();
  const alice = await connect("alice", { signal: controller.signal });
  await connect("bob");
  const call = alice.call("bob");
  await settled();

  controller.abort();
  await settled();

  assert.deepEqual([alice.state, call.state, server.sessions.has("alice")], ["closed", "closed", false]);
  assert.deepEqual(FakeConnection.open.map(({ signalingState }) => signalingState), []);
});
