// The dashboard in real Chromium against the real server: who gets in, and what it shows of what happens.

import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { after, afterEach, before, test } from "node:test";
import { launch, open } from "./pages.js";
import { Server } from "./server.js";

const TOKEN = "0123456789abcdef0123456789abcdef";
const ADMIN = `[turn.peers]\nallow = ["127.0.0.0/8"]\n[turn.limits]\nbytes_per_month = "1MiB"\n[admin]\ntoken = "${TOKEN}"\n`;

let browser;
let server;
let people = [];

before(async () => {
  browser = await launch();
});

after(async () => {
  await browser?.close();
});

afterEach(async () => {
  // Chromium itself complains of each refused request.
  const complaints = people.flatMap(({ complaints }) => complaints).filter((text) => !text.startsWith("Failed to load"));
  await Promise.all(people.map(({ context }) => context.close()));
  await server.stop();
  people = [];
  assert.deepEqual(complaints, [], "a page complained");
});

async function visit(path) {
  const person = await open(browser, `http://localhost:${server.ports.http}${path}`);
  people.push(person);
  return person;
}

async function letIn() {
  const person = await visit("/dashboard");
  await person.writes("#token", TOKEN);
  await person.sees("#board", /Running for/);
  return person;
}

/** The newest value that a chart's legend says of a series. */
const legend = (chart, series) => `.chart:nth-of-type(${chart}) .chart-legend .series-${series} dd`;

/** Somebody in a tab of its own who is signed in. */
async function member(name) {
  const person = await visit("/chat");
  // Not by the module: that would come back by itself.
  await person.page.evaluate(async (name) => {
    const socket = new WebSocket(`${location.origin.replace("http", "ws")}/ws`);
    const next = (event) => new Promise((resolve) => socket.addEventListener(event, resolve, { once: true }));
    globalThis.ended = next("close").then(({ code }) => code);
    await next("open");
    socket.send(JSON.stringify({ type: "login", name }));
    globalThis.iceServers = JSON.parse((await next("message")).data).iceServers;
  }, name);
  return person;
}

/** Has data relayed for a member to a peer that doesn't care. */
async function relayed(person, peer) {
  await person.page.evaluate(async (port) => {
    const connection = new RTCPeerConnection({ iceServers: globalThis.iceServers, iceTransportPolicy: "relay" });
    globalThis.relayed = connection;
    connection.createDataChannel("x");
    const gathered = new Promise((resolve) => {
      connection.addEventListener("icecandidate", ({ candidate }) => candidate?.candidate && resolve());
    });
    await connection.setLocalDescription();
    await gathered;
    // Its checks of the candidate are data to the relay.
    const sdp = connection.localDescription.sdp.replace(/a=candidate:.*\r\n/g, "").replace("a=setup:actpass", "a=setup:active");
    await connection.setRemoteDescription({ type: "answer", sdp });
    await connection.addIceCandidate({ candidate: `candidate:1 1 udp 1 127.0.0.1 ${port} typ host`, sdpMid: "0" });
  }, peer.address().port);
  await once(peer, "message");
}

test("who has the token is let in, stays so over a reload, and is out after signing out", async () => {
  server = await Server.start({ more: ADMIN });
  const person = await visit("/dashboard");
  await person.writes("#token", "not the token at all");
  await person.sees("#error", /isn’t the token/);
  await person.writes("#token", "nor’ is this, which no header can carry");
  await person.sees("#error", /isn’t the token/);

  await person.writes("#token", TOKEN);
  await person.sees("#state", /Running/);
  await person.page.reload();
  await person.sees("#state", /Running/);

  assert.ok(!person.page.url().includes(TOKEN));
  await person.clicks("#forget");
  await person.sees("#entry", /Admin token/);
  await person.page.reload();
  await person.sees("#entry", /Admin token/);
  assert.equal(await person.page.evaluate(() => sessionStorage.length + localStorage.length), 0);
});

test("without a token in its configuration the server's dashboard says how to set one", async () => {
  server = await Server.start();
  const person = await visit("/dashboard");

  await person.writes("#token", TOKEN);

  await person.sees("#error", /no admin\.token/);
  await person.sees("#how", /\[admin\]\s+token =/);
});

test("it shows who is there and what is relayed, and throws out whom it is told to", async () => {
  server = await Server.start({ more: ADMIN });
  const peer = createSocket("udp4").bind(0, "127.0.0.1");
  await once(peer, "listening");
  const person = await letIn();
  await person.sees(".facts [data-state=good]", /^until \d{4}-\d\d-\d\d, 39\d d/);
  await person.sees(".facts small", /^self-signed, for \S+/);
  await person.sees(legend(1, 0), /^0$/);
  const carol = await member("carol");
  await person.sees(legend(1, 0), /^1$/);
  await person.sees(legend(1, 1), /^1$/);

  await relayed(carol, peer);
  peer.close();

  await person.sees(legend(2, 0), /^1$/);
  await person.sees("#talkers tbody", /carol\s*json/);
  await person.sees("#volume", /This month.* of 1\.0 MiB/);
  const points = await person.page.$eval(".chart:nth-of-type(1) .chart-line", (line) => line.getAttribute("points"));
  assert.ok(points.split(" ").length > 1, points);
  await person.clicks("#talkers button");
  await person.sees("#talkers button", /Sure/);
  await person.clicks("#talkers button");
  await person.sees("#talkers-note", /carol was kicked/);
  assert.equal(await carol.page.evaluate(() => globalThis.ended), 4000);
  await person.sees(legend(1, 0), /^0$/);
  await person.sees("#no-talkers", /Nothing is relayed/);
});

test("a server that is away for a while is asked again, and counts from zero", async () => {
  server = await Server.start({ more: ADMIN });
  const person = await letIn();

  await server.restart(() => person.sees("#state", /trying again/));

  await person.sees("#state", /Running/);
  await person.sees("#board", /Running for/);
});
