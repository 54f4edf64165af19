// Rooms: a mesh that ends up whole whatever order things arrive in, and calls that stay out of each other's way.

import assert from "node:assert/strict";
import { test } from "node:test";
import { clock, connect, FakeConnection, seeded, server, settled, stream } from "./fakes.js";

/** Signs these in and has them come into a room one after the other. */
async function roomOf(...names) {
  const signals = [];
  const rooms = [];
  for (const name of names) {
    signals.push(await connect(name));
    rooms.push(await signals.at(-1).join("lobby"));
    await settled();
  }
  return { signals, rooms };
}

/** Each is in one call with each other, over one connection at each end, and no other is open. */
function isWhole(rooms, names, context) {
  const ends = rooms.map((room) => [...room.calls.values()].map(({ name, state }) => `${name} ${state}`).sort());
  const wanted = names.map((me) => names.filter((name) => name !== me).map((name) => `${name} connected`).sort());
  assert.deepEqual(ends, wanted, context);
  assert.equal(FakeConnection.open.length, names.length * (names.length - 1), context);
  for (const [at, room] of rooms.entries()) {
    for (const [name, { connection }] of room.calls) {
      assert.equal(connection.peer, rooms[names.indexOf(name)].calls.get(names[at]).connection, context);
    }
  }
}

test("who comes into a room calls those who are there, and nobody is asked", async () => {
  const names = ["ann", "bob", "cid"];
  const { signals, rooms } = await roomOf(...names);

  isWhole(rooms, names);
  assert.deepEqual(rooms.map(({ members }) => members), [["bob", "cid"], ["ann", "cid"], ["ann", "bob"]]);
  assert.deepEqual(signals.map(({ events }) => events), [[], [], []]);
  const offers = server.heard.filter(({ frame }) => frame.type === "offer").map(({ from, frame }) => [from, frame.name, frame.offer.room]);
  assert.deepEqual(offers, [["bob", "ann", "lobby"], ["cid", "ann", "lobby"], ["cid", "bob", "lobby"]]);
});

test("who leaves is gone for the others, who stay connected", async () => {
  const names = ["ann", "bob", "cid"];
  const { rooms } = await roomOf(...names);
  const seen = [];
  for (const type of ["joined", "left"]) rooms[0].addEventListener(type, ({ name }) => seen.push([type, name]));

  rooms[1].leave();
  rooms[1].leave();
  await settled();

  assert.deepEqual([seen, rooms[0].members, rooms[1].calls.size], [[["left", "bob"]], ["cid"], 0]);
  isWhole([rooms[0], rooms[2]], ["ann", "cid"]);
  assert.equal(server.types("bob").filter((type) => type === "part").length, 1);
});

test("text goes to everybody in the room, with the sender's name", async () => {
  const { rooms } = await roomOf("ann", "bob", "cid");
  const heard = [];
  for (const room of rooms.slice(1)) room.addEventListener("message", ({ name, text }) => heard.push([name, text]));

  const sent = await rooms[0].send("hello");
  await settled();

  assert.equal(sent, 2);
  assert.deepEqual(heard, [["ann", "hello"], ["ann", "hello"]]);
});

test("what we send goes to those who are here and those who come", async () => {
  const { rooms } = await roomOf("ann", "bob");

  await rooms[0].setMedia(stream("video"));
  const cid = await connect("cid");
  await cid.join("lobby");
  await settled();

  const sends = [...rooms[0].calls.values()].map(({ connection }) => connection.transceivers.map(({ direction }) => direction));
  assert.deepEqual(sends, [["sendrecv"], ["sendrecv"]]);
});

test("a room skips a member with whom a call runs, and calls them when that is over", async () => {
  const [ann, bob] = [await connect("ann"), await connect("bob")];
  let theirs;
  bob.addEventListener("call", (event) => (theirs = event.accept()));
  const ours = ann.call("bob");
  await settled();
  const rooms = [await ann.join("lobby"), await bob.join("lobby")];
  await settled();
  assert.deepEqual([ours.state, theirs.state, rooms[0].calls.size, rooms[1].calls.size], ["connected", "connected", 0, 0]);

  ours.hangUp();
  await clock.pass(3_000);

  isWhole(rooms, ["ann", "bob"]);
});

test("two in two rooms have one call, and keep one when they leave the room that it was for", async () => {
  const { signals, rooms } = await roomOf("ann", "bob");
  const other = [await signals[0].join("attic"), await signals[1].join("attic")];
  await settled();
  assert.equal(FakeConnection.open.length, 2);

  rooms[0].leave();
  await clock.pass(3_000);

  isWhole(other, ["ann", "bob"]);
});

test("an offer for a room that we are not in, or of somebody who is not there, is declined", async () => {
  const ann = await connect("ann");
  await ann.join("lobby");
  for (const [name, room] of [["bob", "attic"], ["cid", "lobby"]]) {
    server.tell("ann", { type: "offer", name, offer: { type: "offer", sdp: "v=0", call: "x", room } });
  }

  await settled();

  const said = server.heard.filter(({ from }) => from === "ann").slice(1).map(({ frame }) => frame);
  assert.deepEqual(said, [{ type: "leave", name: "bob" }, { type: "leave", name: "cid" }]);
  assert.deepEqual([ann.events, FakeConnection.open], [[], []]);
});

test("at most 12 of a room are in a call with us", async () => {
  const ann = await connect("ann");
  server.rooms.set("lobby", new Set(Array.from({ length: 40 }, (_, n) => `member ${n}`)));

  const room = await ann.join("lobby");

  assert.deepEqual([room.members.length, room.calls.size], [40, 12]);
});

test("a room is come into once there is room for the question", async () => {
  const ann = await connect("ann");
  server.socketOf("ann").deaf = true;
  for (let times = 0; times < 200; times += 1) ann.call(`member ${times}`, { chat: false }).hangUp();
  const joining = ann.join("lobby");
  await settled();

  server.socketOf("ann").drop(1006);
  await clock.pass(5_000);

  assert.equal((await joining).name, "lobby");
});

test("a room that takes nobody, or that we are in, is a typed error", async () => {
  const ann = await connect("ann");
  await ann.join("attic");
  server.full = true;

  const codes = [];
  for (const name of ["lobby", "attic"]) await ann.join(name).catch(({ code }) => codes.push(code));

  assert.deepEqual(codes, ["forbidden", "busy"]);
});

test("who missed some of who came and went asks again", async () => {
  const { rooms } = await roomOf("ann", "bob");
  const tell = server.tell.bind(server);
  server.tell = (name, frame) => (name === "ann" && frame.type === "presence" ? true : tell(name, frame));
  const cid = await connect("cid");
  await cid.join("lobby");
  await settled();
  assert.deepEqual(rooms[0].members, ["bob"]);
  server.tell = tell;

  server.tell("ann", { type: "presence", missed: true });
  await clock.pass(5_000);

  assert.deepEqual(rooms[0].members, ["bob", "cid"]);
  assert.equal(rooms[0].calls.get("cid").state, "connected");
});

test("after a restart of the server everybody comes back, and calls that live stay as they are", async () => {
  const names = ["ann", "bob", "cid"];
  const { rooms } = await roomOf(...names);
  const before = rooms.map(({ calls }) => [...calls.values()]);
  const left = [];
  for (const room of rooms) room.addEventListener("left", ({ name }) => left.push(name));

  server.restart();
  await clock.pass(5_000);

  isWhole(rooms, names);
  assert.deepEqual(rooms.map(({ calls }) => [...calls.values()]), before);
  assert.deepEqual(left, []);
  assert.deepEqual(rooms.map(({ members }) => [...members].sort()), [["bob", "cid"], ["ann", "cid"], ["ann", "bob"]]);
});

test("a member who never comes back after a restart is gone once the call is over", async () => {
  const { signals, rooms } = await roomOf("ann", "bob");
  const left = [];
  rooms[0].addEventListener("left", ({ name }) => left.push(name));
  server.restart();
  signals[1].close();
  await clock.pass(3_000);

  assert.deepEqual([left, rooms[0].members, rooms[0].calls.size], [["bob"], [], 0]);
});

test("closing during everything leaves nothing open", async () => {
  const { signals, rooms } = await roomOf("ann", "bob", "cid");
  const closed = [];
  for (const room of rooms) room.addEventListener("closed", ({ reason }) => closed.push(reason));
  void rooms[0].setMedia(stream("video"));
  const joining = signals[0].join("attic").catch(({ code }) => code);

  for (const signal of signals) signal.close();
  await clock.pass(100_000);

  assert.deepEqual([FakeConnection.open, closed, await joining], [[], ["", "", ""], "closed"]);
});

test("whatever order joining, leaving, breaks and restarts come in, all end connected with each other exactly once", async () => {
  for (let seed = 1; seed <= 40; seed += 1) {
    const random = seeded(seed);
    const names = ["x", "y", "z"].map((letter) => `${letter}${seed}`);
    const name = `room ${seed}`;
    const signals = [];
    for (const member of names) signals.push(await connect(member));
    const rooms = new Map();
    server.prompt = false;

    for (let step = 0; step < 80; step += 1) {
      const signal = signals[Math.floor(random() * 3)];
      const roll = random();
      if (roll < 0.15 && !rooms.has(signal) && signal.state === "online") {
        signal.join(name).then((room) => rooms.set(signal, room), () => {});
      } else if (roll < 0.18 && rooms.has(signal)) {
        rooms.get(signal).leave();
        rooms.delete(signal);
      } else if (roll < 0.23) server.socketOf(signal.name)?.drop(1006);
      else if (roll < 0.24) server.restart();
      else if (roll < 0.35) await clock.pass(random() * 2_000);
      for (const socket of server.sockets) for (const way of ["up", "down"]) if (random() < 0.5) socket.deliver(way);
      await settled();
    }
    server.prompt = true;
    for (const socket of server.sockets) for (const way of ["up", "down"]) while (socket.ways[way].length > 0) socket.deliver(way);
    await clock.pass(60_000);
    for (const signal of signals) if (!rooms.has(signal)) rooms.set(signal, await signal.join(name));
    await clock.pass(60_000);

    isWhole(signals.map((signal) => rooms.get(signal)), names, `seed ${seed}`);
    for (const signal of signals) signal.close();
    await settled();
    await settled();
    assert.deepEqual(FakeConnection.open, [], `seed ${seed}`);
  }
});
