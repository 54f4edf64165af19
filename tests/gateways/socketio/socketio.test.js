// Unmodified clients of three major versions against one server.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { Server } from "../../browser/server.js";
import { Clients, VERSIONS, asked, heard, transport, upgraded } from "./clients.js";

const TRANSPORTS = { upgraded: ["polling", "websocket"], polling: ["polling"], websocket: ["websocket"] };
const CANDIDATE = { candidate: "candidate:1 1 UDP 1 192.0.2.1 9 typ host", text: "€ 😀 \u2028" };
const LONG = 30_000;

let server;
let url;

before(async () => {
  server = await Server.start();
  url = `http://127.0.0.1:${server.ports.http}`;
});
after(() => server.stop());

/** One client of each version by each transport. */
async function everyone(clients) {
  const sockets = [];
  for (const version of Object.keys(VERSIONS)) {
    for (const [way, transports] of Object.entries(TRANSPORTS)) {
      const socket = await clients.connect(version, url, { transports });
      if (way === "upgraded") await upgraded(socket);
      sockets.push(Object.assign(socket, { called: `${version} ${way}` }));
    }
  }
  return sockets;
}

test("offers, answers and candidates reach everybody else, whatever versions and transports", { timeout: LONG }, async (t) => {
  const sockets = await everyone(new Clients(t));
  assert.deepEqual(sockets.map(transport), Array(3).fill(["websocket", "polling", "websocket"]).flat());

  for (const event of ["offer", "answer", "onicecandidate"]) {
    for (const from of sockets) {
      const others = sockets.filter((other) => other !== from);
      const strangers = [];
      from.on(event, (...rest) => strangers.push(rest));
      const arrived = others.map((other) => heard(other, event));
      from.emit(event, { from: from.called, ...CANDIDATE }, 7);
      for (const told of await Promise.all(arrived)) {
        assert.deepEqual(told, [{ from: from.called, ...CANDIDATE }, 7]);
      }
      assert.deepEqual(strangers, []);
      from.removeAllListeners(event);
    }
  }
});

test("who joins a room signals inside it, and is acknowledged", { timeout: LONG }, async (t) => {
  const sockets = await everyone(new Clients(t));
  const [red, blue] = [sockets.filter((_, n) => n % 2), sockets.filter((_, n) => !(n % 2))];
  for (const [room, members] of [["red", red], ["blue", blue]]) {
    for (const member of members) assert.deepEqual(await asked(member, "join", room), []);
  }
  const strays = [];
  for (const socket of blue) socket.on("offer", (offer) => strays.push(offer));

  const arrived = red.slice(1).map((member) => heard(member, "offer"));
  red[0].emit("offer", "for red");
  assert.deepEqual(await Promise.all(arrived), red.slice(1).map(() => ["for red"]));
  const channelled = red.map((member) => heard(member, "message"));
  blue[0].emit("message", { channel: "red", message: CANDIDATE });
  assert.deepEqual(await Promise.all(channelled), red.map(() => [CANDIDATE]));

  await asked(red[0], "leave", "red");
  await asked(red[0], "join", "blue");
  const moved = blue.map((member) => heard(member, "ready"));
  red[0].emit("ready");
  await Promise.all(moved);
  assert.deepEqual(strays, [], "and nothing came into the other room before");
});

for (const version of Object.keys(VERSIONS)) {
  for (const [way, transports] of Object.entries(TRANSPORTS)) {
    test(`${version} comes back after a restart, ${way}`, { timeout: LONG }, async (t) => {
      const clients = new Clients(t);
      const fast = { transports, reconnectionDelay: 50, reconnectionDelayMax: 100 };
      const [alice, bob] = [await clients.connect(version, url, fast), await clients.connect("4.8.4", url, fast)];
      if (way === "upgraded") await upgraded(alice);

      const back = [alice, bob].map((socket) => heard(socket, "connect"));
      await server.restart();
      await Promise.all(back);

      const arrived = heard(alice, "offer");
      bob.emit("offer", 1);
      assert.deepEqual(await arrived, [1]);
    });
  }

  test(`${version} hears that it sends too much, and that other namespaces aren't there`, { timeout: LONG }, async (t) => {
    const clients = new Clients(t);
    const alice = await clients.connect(version, url);
    await upgraded(alice);
    const told = heard(alice, "exception");
    for (let n = 0; n < 300; n += 1) alice.emit("offer", n);
    assert.match((await told)[0].message, /too many messages/);

    const elsewhere = clients.open(version, `${url}/elsewhere`);
    const [why] = await heard(elsewhere, version === "2.5.0" ? "error" : "connect_error");
    assert.equal(why.message ?? why, "Invalid namespace");
  });

  test(`${version} is cut when it says more than it may, by either transport`, { timeout: LONG }, async (t) => {
    for (const transports of [["polling"], ["websocket"]]) {
      const clients = new Clients(t);
      const socket = await clients.connect(version, url, { transports, reconnection: false });
      const cut = heard(socket, "disconnect");
      socket.emit("offer", "x".repeat(70_000));
      assert.match((await cut)[0], /^transport (error|close)$/);
    }
  });

  test(`${version} of a foreign page is refused by either transport`, { timeout: LONG }, async (t) => {
    const headers = { Origin: "https://evil.example" };
    for (const transports of [["polling"], ["websocket"]]) {
      const options = { transports, reconnection: false, extraHeaders: headers };
      options.transportOptions = { polling: { extraHeaders: headers }, websocket: { extraHeaders: headers } };
      await assert.rejects(new Clients(t).connect(version, url, options), /(xhr poll|websocket) error|timeout/);
    }
  });
}

test("bytes are refused and text goes on", { timeout: LONG }, async (t) => {
  const clients = new Clients(t);
  for (const version of Object.keys(VERSIONS)) {
    const [alice, bob] = [await clients.connect(version, url), await clients.connect("4.8.4", url)];
    await upgraded(alice);
    const told = heard(alice, "exception");
    alice.emit("image", Buffer.from([1, 2, 3]));
    assert.match((await told)[0].message, /send text/);
    const arrived = heard(bob, "offer");
    alice.emit("offer", version);
    assert.deepEqual(await arrived, [version]);
  }
});

test("who comes too fast is let in later, and needn't do anything for it", { timeout: LONG }, async (t) => {
  const busy = await Server.start({ more: '[limits]\nexempt = []\n[signaling.limits]\nsign_ins = "1/s"\n' });
  t.after(() => busy.stop());
  const clients = new Clients(t);
  const fast = { reconnectionDelay: 200, reconnectionDelayMax: 1000 };
  const ends = [];

  const arrived = [];
  for (let n = 0; n < 6; n += 1) {
    for (const version of Object.keys(VERSIONS)) {
      const options = { ...fast, transports: n % 2 ? ["polling", "websocket"] : ["websocket"] };
      const socket = clients.open(version, `http://127.0.0.1:${busy.ports.http}`, options);
      socket.io.on("close", (why) => ends.push(`${version} ${why}`));
      for (const event of ["connect_error", "error"]) socket.on(event, (why) => ends.push(why));
      arrived.push(heard(socket, "connect"));
    }
  }
  await Promise.all(arrived);

  for (const version of Object.keys(VERSIONS)) assert.ok(ends.some((end) => String(end).startsWith(version)), version);
});

test("the library that is served is the one of the package, and is kept by who has it", async () => {
  const file = new URL("node_modules/socket.io-client/dist/socket.io.min.js", import.meta.url);
  const first = await fetch(`${url}/socket.io/socket.io.js`);
  assert.equal(await first.text(), await readFile(file, "utf8"));
  assert.match(first.headers.get("content-type"), /javascript/);

  const minified = await fetch(`${url}/socket.io/socket.io.min.js`);
  assert.equal(minified.headers.get("etag"), first.headers.get("etag"));
  const again = await fetch(`${url}/socket.io/socket.io.js`, { headers: { "If-None-Match": first.headers.get("etag") } });
  assert.equal(again.status, 304);
});
