// PeerJS as npm has it, in real Chromium, with this server in the place of PeerServer.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { launch, open } from "../../browser/pages.js";
import { Server } from "../../browser/server.js";
import { inPage, servePage } from "./page.js";

const WAIT = { timeout: 60_000, polling: 50 };

let server;
let site;
let browser;
let people = [];

before(async () => {
  server = await Server.start();
  site = await servePage();
  browser = await launch("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream");
});

after(async () => {
  await browser?.close();
  site?.close();
  await server?.stop();
});

afterEach(async () => {
  await Promise.all(people.map(({ context }) => context.close()));
  people = [];
});

/** A page that knows the server at `path`. */
async function visit(path = "/", to = server) {
  const person = await open(browser, site.url);
  people.push(person);
  await person.page.evaluate(inPage, to.ports.http, path);
  return person;
}

/** A page with one peer. */
async function meets(id, options, path) {
  const person = await visit(path);
  await person.page.evaluate((id, options) => meet(id, options), id, options ?? {});
  assert.equal(await person.page.evaluate((id) => peers[id].opened, id), 1);
  return person;
}

const talk = (person, from, to, text) => person.page.evaluate((...said) => talk(...said), from, to, text);
const errors = (person, id) => person.page.evaluate((id) => peers[id].errors, id);

async function becomes(person, description, holds, ...rest) {
  await person.page.waitForFunction(holds, WAIT, ...rest).catch(() => assert.fail(`it never was so: ${description}`));
}

function unblemished() {
  assert.deepEqual(people.flatMap(({ complaints }) => complaints), [], "a page complained");
}

for (const path of ["/", "/peerjs-server/"]) {
  test(`two peers at ${path} exchange data through the relay, either way`, async () => {
    const [alice, bob] = [await meets("alice", {}, path), await meets("bob-2_b", {}, path)];

    assert.equal(await talk(alice, "alice", "bob-2_b", "hello"), "hello, too");
    assert.equal(await talk(bob, "bob-2_b", "alice", "hi"), "hi, too");

    assert.deepEqual(await bob.page.evaluate(() => peers["bob-2_b"].data), ["hello"]);
    for (const person of [alice, bob]) assert.deepEqual(await person.path(), ["relay", "relay"]);
    unblemished();
  });
}

test("a peer without an id of its own gets one, and is found by it", async () => {
  const [alice, bob] = [await visit(), await meets("bob")];

  const id = await alice.page.evaluate(() => meet());

  assert.match(id, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  assert.equal(await talk(bob, "bob", id, "hello"), "hello, too");
  unblemished();
});

test("a call brings moving pictures", async () => {
  const [alice, bob] = [await meets("alice"), await meets("bob")];

  await alice.page.evaluate(() => call("alice", "bob"));

  await becomes(bob, "frames are decoded", async () => (await framesDecoded("bob")) > 0);
  const decoded = await bob.page.evaluate(() => framesDecoded("bob"));
  await becomes(bob, "more are decoded", async (before) => (await framesDecoded("bob")) > before + 10, decoded);
  assert.deepEqual(await bob.path(), ["relay", "relay"]);
  unblemished();
});

test("an id that is in use is not given to somebody else", async () => {
  const [alice, eve] = [await meets("alice"), await visit()];

  await eve.page.evaluate(() => meet("alice"));

  assert.deepEqual(await errors(eve, "alice"), [["unavailable-id", 'ID "alice" is taken']]);
  const bob = await meets("bob");
  assert.equal(await talk(bob, "bob", "alice", "still you?"), "still you?, too");
  assert.deepEqual(await alice.page.evaluate(() => peers.alice.data), ["still you?"]);
});

test("a peer that disconnects keeps its connections and comes back with its id and token", async () => {
  const [alice, bob] = [await meets("alice"), await meets("bob")];
  await talk(alice, "alice", "bob", "before");

  await alice.page.evaluate(() => {
    peers.alice.peer.disconnect();
    peers.alice.peer.reconnect();
  });

  await becomes(alice, "it is open again", () => peers.alice.opened === 2);
  assert.equal(await alice.page.evaluate(() => peers.alice.connection.open), true);
  await alice.page.evaluate(() => peers.alice.connection.send("over what there was"));
  await becomes(bob, "it still hears", () => peers.bob.data.includes("over what there was"));
  const carol = await meets("carol");
  assert.equal(await talk(carol, "carol", "alice", "anew"), "anew, too");
  assert.deepEqual(await errors(alice, "alice"), []);
  assert.equal(await bob.page.evaluate(() => peers.bob.closed), 0);
  unblemished();
});

test("the same token takes an id over from a page that is still connected", async () => {
  const [before, bob] = [await meets("alice", { token: "mine" }), await meets("bob")];

  const after = await meets("alice", { token: "mine" });

  await becomes(before, "it lost its server", () => peers.alice.peer.disconnected);
  assert.deepEqual(await errors(before, "alice"), [["network", "Lost connection to server."]]);
  assert.equal(await talk(bob, "bob", "alice", "which?"), "which?, too");
  assert.deepEqual(await after.page.evaluate(() => peers.alice.data), ["which?"]);
  unblemished();
});

test("who calls somebody absent learns that, unless it comes in time", async () => {
  const [alice, late] = [await meets("alice"), await visit()];

  await alice.page.evaluate(() => void peers.alice.peer.connect("nobody"));
  await becomes(alice, "it is told", () => peers.alice.errors.length > 0);
  assert.deepEqual(await errors(alice, "alice"), [["peer-unavailable", "Could not connect to peer nobody"]]);

  const answer = talk(alice, "alice", "latecomer", "are you there?");
  await becomes(alice, "it calls", () => connections.at(-1).localDescription !== null);
  await late.page.evaluate(() => meet("latecomer"));
  assert.equal(await answer, "are you there?, too");
});

test("peers list each other only where they may", async () => {
  const open = await Server.start({ more: "[signaling.gateways]\npeerjs_discovery = true\n" });
  try {
    const [shy, known] = [await meets("alice"), await visit("/", open)];
    await known.page.evaluate(async () => {
      await meet("alice");
      await meet("bob");
    });

    const listed = await known.page.evaluate(() => new Promise((resolve) => peers.alice.peer.listAllPeers(resolve)));
    assert.deepEqual(listed.sort(), ["alice", "bob"]);
    await shy.page.evaluate(() => peers.alice.peer.listAllPeers());
    await becomes(shy, "it is told that it may not", () => peers.alice.errors.length > 0);
    const [[kind]] = await errors(shy, "alice");
    assert.equal(kind, "server-error");
  } finally {
    await open.stop();
  }
});
