// Calls: crossing offers, late frames, reordering, restarts, and what is said when one is over.

import assert from "node:assert/strict";
import { test } from "node:test";
import { clock, connect, FakeConnection, inCall, readPath, seeded, server, settled, stream } from "./fakes.js";

const sent = (name) => server.heard.filter(({ from }) => from === name).map(({ frame }) => frame);
const offer = (name, call, more) => ({ type: "offer", name, offer: { type: "offer", sdp: "v=0\ni=99 1\n", call }, ...more });
const answer = (name, body) => ({ type: "answer", name, answer: { type: "answer", sdp: "v=0\ni=99 1\n", ...body } });
const candidate = (name, text, call) => ({ type: "candidate", name, candidate: { candidate: text, call } });

/** Alice, and a tutorial's client at the other end of whatever the test says. */
async function alone() {
  const alice = await connect("alice");
  server.sessions.set("bob", { socket: undefined, kept: [], partners: new Set(), order: 0 });
  const hears = async (...frames) => {
    for (const frame of frames) server.tell("alice", frame);
    await settled();
    await settled();
  };
  return { alice, hears };
}

test("of two that call each other at once, whoever joined later gives way, and one call is left", async () => {
  const [first, second] = [await connect("zoe"), await connect("adam")];
  server.prompt = false;
  const calls = [first.call("adam"), second.call("zoe")];
  await settled();

  server.prompt = true;
  for (const socket of server.sockets) while (socket.ways.up.length > 0) socket.deliver("up");
  await settled();
  await settled();

  assert.deepEqual(calls.map(({ state }) => state), ["connected", "connected"]);
  assert.deepEqual([first, second].map(({ events }) => events.length), [0, 0], "it rings nowhere");
  assert.equal(FakeConnection.open.length, 2);
  assert.equal(sent("adam").filter(({ type }) => type === "answer").length, 1);
});

test("without a word of the server's the side whose name comes first gives way", async () => {
  const { alice, hears } = await alone();
  const call = alice.call("bob");
  server.sessions.set("aaron", { kept: [], partners: new Set(), order: 0 });
  const other = alice.call("aaron");
  await settled();

  await hears(offer("bob", "theirs"), offer("aaron", "theirs"));

  assert.deepEqual([call.state, other.state], ["connecting", "calling"]);
  assert.deepEqual(sent("alice").filter(({ type }) => type === "answer").map(({ name }) => name), ["bob"]);
});

test("candidates that come before the answer wait for it, in order", async () => {
  const { alice, hears } = await alone();
  alice.call("bob");
  await settled();
  const { call } = sent("alice")[0].offer;

  await hears(candidate("bob", "one", call), candidate("bob", "two", call), answer("bob", { call }), candidate("bob", "", call));

  assert.deepEqual(FakeConnection.all.at(-1).candidates, ["one", "two", ""]);
});

test("candidates that come while it rings are there once the call is accepted", async () => {
  const { alice, hears } = await alone();
  await hears(offer("bob", "x"), candidate("bob", "early", "x"));

  alice.events[0].accept();
  await settled();

  assert.deepEqual(server.types("alice").slice(0, 1), ["answer"]);
  assert.deepEqual(FakeConnection.all.at(-1).candidates, ["early"]);
});

test("a caller whose leave-taking was lost rings no more after 75 seconds", async () => {
  const { alice, hears } = await alone();
  await hears(offer("bob", "x"));
  await clock.pass(74_000);
  assert.deepEqual(alice.events.map(({ type }) => type), ["call"]);

  await clock.pass(1_000);

  assert.deepEqual(alice.events.map(({ type }) => type), ["call", "missed"]);
  assert.throws(() => alice.events[0].accept(), { code: "gone" });
});

test("a later offer of the call before does not take the place of a call that begins", async () => {
  const { alice, hears } = await alone();
  const call = alice.call("bob");
  await settled();

  await hears(offer("bob", "earlier", { polite: true, offer: { type: "offer", sdp: "v=0\ni=99 1\n", call: "earlier", n: 2 } }));

  assert.deepEqual([call.state, sent("alice").map(({ type }) => type).includes("answer")], ["calling", false]);
});

test("a client without call ids gives way itself, whatever the server says", async () => {
  const { alice, hears } = await alone();
  const call = alice.call("bob");
  await settled();

  await hears(offer("bob", undefined, { polite: true }));
  assert.equal(sent("alice").filter(({ type }) => type === "answer").length, 0);
  await hears(answer("bob"));

  assert.equal(call.state, "connecting");
});

test("late frames of an earlier call don't touch the next one", async () => {
  const { alice, hears } = await alone();
  alice.call("bob").hangUp();
  const second = alice.call("bob");
  await settled();

  await hears(answer("bob", { call: "an earlier one" }), candidate("bob", "late", "an earlier one"));

  assert.equal(second.state, "calling");
  assert.deepEqual(FakeConnection.all.at(-1).candidates, []);
});

test("an answer to a call that was given up is answered with leave", async () => {
  const { hears } = await alone();

  await hears(answer("bob"));

  assert.deepEqual(sent("alice"), [{ type: "leave", name: "bob" }]);
});

test("an offer of another call replaces the call that the other side has lost", async () => {
  const { alice, hears } = await alone();
  await hears(offer("bob", "first"));
  const first = alice.events[0].accept();
  await settled();

  await hears(offer("bob", "second"));

  assert.equal(first.state, "closed");
  assert.equal(alice.events.length, 2);
});

test("a later offer of a call that is over here does not ring again, whichever side it is of", async () => {
  const { alice, bob, ours, theirs } = await inCall();
  await Promise.all([ours.setMedia(stream("audio")), settled()]);
  await Promise.all([theirs.setMedia(stream("video")), settled()]);
  const last = (name) => sent(name).filter(({ type }) => type === "offer").at(-1).offer;
  const late = { alice: last("bob"), bob: last("alice") };
  theirs.hangUp();
  await settled();

  for (const [name, offer] of Object.entries(late)) {
    server.tell(name, { type: "offer", name: name === "bob" ? "alice" : "bob", offer });
  }
  await settled();

  assert.deepEqual([late.alice.n, late.bob.n], [2, 2]);
  assert.deepEqual([alice.events.length, bob.events.length], [0, 1]);
  assert.deepEqual(["alice", "bob"].map((name) => sent(name).at(-1).type), ["leave", "leave"]);
});

test("a tutorial's client, which knows no call ids, may offer again and again in one call", async () => {
  const { alice, hears } = await alone();
  await hears(offer("bob"));
  const call = alice.events[0].accept();

  for (const round of [2, 3]) await hears(offer("bob", undefined, { round }));

  assert.equal(server.types("alice").filter((type) => type === "answer").length, 3);
  assert.equal(call.state, "connecting");
});

test("at most 16 callers ring at once, the next is declined", async () => {
  const { alice, hears } = await alone();
  const callers = Array.from({ length: 17 }, (_, n) => offer(`caller ${n}`, "x"));

  await hears(...callers);

  assert.equal(alice.events.length, 16);
  assert.deepEqual(sent("alice"), [{ type: "leave", name: "caller 16" }]);
});

test("at most 64 candidates wait for their description", async () => {
  const { alice, hears } = await alone();
  alice.call("bob");
  await settled();
  const { call } = sent("alice")[0].offer;

  for (let n = 0; n < 300; n += 1) server.tell("alice", candidate("bob", `${n}`, call));
  await hears(answer("bob", { call }));

  assert.equal(FakeConnection.all.at(-1).candidates.length, 64);
});

test("frames that mean nothing are passed over", async () => {
  const { alice } = await alone();
  const call = alice.call("bob");
  await settled();
  const junk = ["not json", "null", "[]", "42", '{"type":"answer","name":"bob","answer":7}', '{"type":"offer"}'];

  for (const text of [...junk, '{"type":"candidate","name":"__proto__"}', '{"type":"join","room":"x"}']) {
    server.socketOf("alice").down(text);
  }
  await settled();

  assert.equal(call.state, "calling");
});

test("whether a caller wants to be seen or heard is known while it rings", async () => {
  const [alice, bob] = [await connect("alice"), await connect("bob")];
  const wants = async (options) => {
    alice.call("bob", options).addEventListener("state", () => {});
    await settled();
    const { media, reject } = bob.events.filter(({ type }) => type === "call").at(-1);
    reject();
    await settled();
    return media;
  };

  assert.equal(await wants({}), false);
  assert.equal(await wants({ media: stream("audio") }), true);
});

test("fresh servers reach live calls", async () => {
  const { ours } = await inCall();

  server.tell("alice", { type: "ice", iceServers: [{ urls: ["stun:fresh"] }], iceTtl: 600 });
  await settled();

  assert.deepEqual(ours.connection.configuration.iceServers, [{ urls: ["stun:fresh"] }]);
  assert.equal(ours.connection.configuration.bundlePolicy, "max-bundle");
});

test("tracks are swapped without negotiation, and added, dropped and taken up again with it", async () => {
  const { ours, theirs } = await inCall({ media: stream("audio") });
  const offers = () => ours.connection.offers;
  const kinds = () => ours.connection.transceivers.map(({ receiver, direction }) => `${receiver.track.kind} ${direction}`);
  const before = offers();

  await ours.setMedia(stream("audio"));
  await settled();
  assert.deepEqual([offers() - before, ours.connection.transceivers[0].swaps], [0, 1]);
  await ours.setMedia(stream("audio", "video"));
  await settled();
  assert.deepEqual([offers() - before, kinds()], [1, ["audio sendrecv", "video sendrecv"]]);
  await ours.setMedia(undefined);
  await settled();
  assert.deepEqual(kinds(), ["audio recvonly", "video recvonly"]);
  await ours.setMedia(stream("video"));
  await settled();

  assert.deepEqual(kinds(), ["audio recvonly", "video sendrecv"]);
  assert.deepEqual([ours.state, theirs.state], ["connected", "connected"]);
});

test("media that cannot be sent is an error, and the call goes on", async () => {
  const { ours } = await inCall({ media: stream("audio") });
  ours.connection.transceivers[0].sender.replaceTrack = async () => {
    throw new Error("no such track");
  };

  await assert.rejects(ours.setMedia(stream("audio")), /no such track/);

  assert.equal(ours.state, "connected");
});

test("hanging up during a negotiation ends it on both sides and leaves nothing open", async () => {
  const { ours, theirs } = await inCall();

  void ours.setMedia(stream("video"));
  theirs.hangUp();
  await settled();
  await settled();

  assert.deepEqual([ours.state, theirs.state], ["closed", "closed"]);
  assert.deepEqual(FakeConnection.open, []);
});

test("a path that fails is looked for anew, and again while nobody answers", async () => {
  const { ours, theirs } = await inCall();
  server.cutOff.add("bob");
  const { connection } = ours;

  connection.become("failed");
  await clock.pass(100);
  assert.deepEqual([connection.restarts, ours.state], [1, "reconnecting"]);
  await clock.pass(10_000);
  assert.equal(connection.restarts, 2);
  server.cutOff.clear();
  await clock.pass(30_000);

  assert.deepEqual([ours.state, theirs.state, ours.connection.connectionState], ["connected", "connected", "connected"]);
});

test("a call that fails before it ever stood waits for more candidates, and does not restart as fast as it fails", async () => {
  const { ours } = await inCall();
  const { connection } = ours;
  connection.become("disconnected");
  const before = connection.restarts ?? 0;

  for (let round = 0; round < 10; round += 1) {
    connection.become("failed");
    await clock.pass(100);
    connection.become("connecting");
  }
  const hasty = (connection.restarts ?? 0) - before;
  await clock.pass(5_000);

  assert.equal(hasty, 0);
  assert.equal((connection.restarts ?? 0) - before, 1);
});

test("an offer that nobody answers is withdrawn for another one, and a late answer to it changes nothing", async () => {
  const { alice, hears } = await alone();
  const { connection } = alice.call("bob");
  await settled();
  const { call } = sent("alice")[0].offer;
  await hears(answer("bob", { call, n: 1 }));
  connection.become("failed");
  await clock.pass(11_000);
  assert.deepEqual(sent("alice").filter(({ type }) => type === "offer").map(({ offer }) => offer.n), [1, 2, 3]);

  await hears(answer("bob", { call, n: 2 }));
  assert.equal(connection.signalingState, "have-local-offer");
  await hears(answer("bob", { call, n: 3 }));

  assert.equal(connection.signalingState, "stable");
});

test("a disconnected path has 4 seconds to come back by itself", async () => {
  const { ours } = await inCall();
  ours.connection.become("disconnected");
  await clock.pass(3_900);
  assert.equal(ours.connection.restarts, 0);

  await clock.pass(200);

  assert.equal(ours.connection.restarts, 1);
});

test("one side that sleeps for a minute, and whose connection is gone when it wakes, is still in the call", async () => {
  const { ours, theirs } = await inCall();
  server.cutOff.add("bob");
  theirs.connection.isAsleep = true;
  ours.connection.become("disconnected");

  await clock.pass(60_000);
  assert.equal(ours.state, "reconnecting");
  server.cutOff.clear();
  theirs.connection.isAsleep = false;
  theirs.connection.become("disconnected");
  await clock.pass(25_000);

  assert.deepEqual([ours.state, theirs.state], ["connected", "connected"]);
});

test("a timer that slept with its machine gives nothing up", async () => {
  const alice = await connect("alice");
  await connect("bob");
  const call = alice.call("bob");
  clock.slept = 600_000;

  await clock.pass(61_000);
  assert.equal(call.state, "calling");
  await clock.pass(30_000);

  assert.equal(call.state, "closed");
});

test("nobody answers for a minute: the call is given up and the other side told", async () => {
  const [alice, bob] = [await connect("alice"), await connect("bob")];
  const call = alice.call("bob");
  const codes = [];
  call.addEventListener("closed", ({ code }) => codes.push(code));

  await clock.pass(61_000);

  assert.deepEqual(codes, ["no-answer"]);
  assert.deepEqual(bob.events.map(({ type }) => type), ["call", "missed"]);
});

test("after a restart of the server direct media stays, and a path through its relay is looked for anew", async () => {
  const { alice, ours, theirs } = await inCall();
  ours.path = { relayed: false };
  server.restart();
  await clock.pass(3_000);
  assert.deepEqual([alice.state, ours.state, ours.connection.restarts], ["online", "connected", 0]);
  for (const call of [ours, theirs]) call.path = { relayed: true };

  server.restart();
  await clock.pass(8_000);

  assert.ok(ours.connection.restarts + theirs.connection.restarts > 0);
  assert.deepEqual([ours.state, theirs.state], ["connected", "connected"]);
  assert.deepEqual([ours, theirs].map(({ connection }) => connection.signalingState), ["stable", "stable"]);
});

test("who is back before the other tries again, once for an offer and all its candidates, until the other calls", async () => {
  const { alice, hears } = await alone();
  const call = alice.call("bob");
  await settled();
  const { connection } = call;
  const [{ offer: first }] = sent("alice");
  await hears(answer("bob", { call: first.call }));
  connection.become("connected");
  call.path = { relayed: true };

  server.restart();
  await clock.pass(500);
  assert.deepEqual([alice.state, connection.restarts], ["online", 1]);
  assert.equal(sent("alice").filter(({ type }) => type === "candidate").length, 4, "refused, too");
  await clock.pass(3_000);
  assert.equal(connection.restarts, 2);
  server.sessions.set("bob", { socket: undefined, kept: [], partners: new Set(), order: 0 });
  await hears(offer("bob", first.call, { polite: false }));
  await clock.pass(60_000);

  assert.deepEqual([connection.restarts, connection.signalingState, call.state], [2, "stable", "connected"]);
});

test("a call with pictures goes through a second round once it is connected, and one with text alone does not", async () => {
  for (const [options, offers] of [[{ media: stream("video") }, 2], [{}, 1]]) {
    const { alice, bob, ours, theirs } = await inCall(options);

    await clock.pass(10_000);

    assert.deepEqual([ours.connection.offers, theirs.connection.offers], [offers, 0]);
    for (const signal of [alice, bob]) signal.close();
    await settled();
  }
});

test("who is called offers nothing before the caller's second round, or for a second without one", async () => {
  for (const settles of [true, false]) {
    const { alice, hears } = await alone();
    const theirs = { ...offer("bob", "x"), offer: { type: "offer", sdp: "v=0\ni=9 1\nm=video 9\n", call: "x", n: 1 } };
    await hears(theirs);
    const call = alice.events[0].accept();
    await settled();

    void call.setMedia(stream("video"));
    await settled();
    call.connection.become("connected");
    await clock.pass(900);
    assert.deepEqual([call.connection.offers, server.types("alice").includes("offer")], [0, false]);
    if (settles) await hears({ ...theirs, offer: { ...theirs.offer, n: 2 } });
    await clock.pass(10_000);

    assert.equal(call.connection.offers, settles ? 0 : 1);
    assert.deepEqual(call.connection.transceivers.map(({ direction }) => direction), ["sendrecv"]);
    alice.close();
    await settled();
  }
});

test("a client that does not number its answers is offered nothing twice", async () => {
  const { alice, hears } = await alone();
  const { connection } = alice.call("bob", { media: stream("video") });
  await settled();

  await hears(answer("bob"));
  connection.become("connected");
  await clock.pass(10_000);

  assert.equal(connection.offers, 1);
});

test("whatever order restarts, media and breaks come in, two stay in one call", async () => {
  for (let seed = 1; seed <= 60; seed += 1) {
    const random = seeded(seed);
    const [alice, bob] = [await connect(`a${seed}`), await connect(`b${seed}`)];
    const calls = [];
    bob.addEventListener("call", (event) => calls.push(event.accept()));
    calls.push(alice.call(bob.name));
    await settled();
    await settled();
    const { prompt } = server;
    server.prompt = false;

    for (let step = 0; step < 60; step += 1) {
      const call = calls[Math.floor(random() * 2)];
      const roll = random();
      if (roll < 0.1) call.connection.become(random() < 0.5 ? "failed" : "disconnected");
      else if (roll < 0.2) void call.setMedia(random() < 0.5 ? stream("audio", "video") : stream("video"));
      else if (roll < 0.25) server.socketOf(call.name)?.drop(1006);
      else if (roll < 0.4) await clock.pass(random() * 3_000);
      for (const socket of server.sockets) for (const way of ["up", "down"]) if (random() < 0.5) socket.deliver(way);
      await settled();
    }
    server.prompt = prompt;
    for (const socket of server.sockets) for (const way of ["up", "down"]) while (socket.ways[way].length > 0) socket.deliver(way);
    for (const call of calls) if (call.connection.connectionState !== "connected") call.connection.become("failed");
    await clock.pass(25_000);

    const ends = calls.map(({ state, connection }) => [state, connection.connectionState, connection.signalingState]);
    assert.deepEqual(ends, [["connected", "connected", "stable"], ["connected", "connected", "stable"]], `seed ${seed}`);
    for (const call of calls) call.hangUp();
    await settled();
  }
});

test("the path is read from Chromium's and from Firefox's statistics", () => {
  const relay = { id: "l", type: "local-candidate", candidateType: "relay", protocol: "udp", relayProtocol: "tls" };
  const host = { id: "r", type: "remote-candidate", candidateType: "host", protocol: "udp" };
  const pair = { id: "p", type: "candidate-pair", localCandidateId: "l", remoteCandidateId: "r" };
  const report = (...entries) => new Map(entries.map((entry) => [entry.id, entry]));

  const chosen = { id: "t", type: "transport", selectedCandidatePairId: "p" };
  const chromium = readPath(report(relay, host, { ...pair, currentRoundTripTime: 0.0031 }, chosen));
  const firefox = readPath(report({ ...relay, candidateType: "srflx", relayProtocol: undefined }, host, { ...pair, selected: true }));

  assert.deepEqual(chromium, { relayed: true, protocol: "tls", local: "relay", remote: "host", rtt: 3 });
  assert.deepEqual(firefox, { relayed: false, protocol: "udp", local: "srflx", remote: "host", rtt: undefined });
  assert.equal(readPath(report(relay, host)), undefined);
});
