// y-webrtc as it comes, in real Chromium: documents that meet through /pubsub.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Stage } from "./stage.js";

const WAIT = { timeout: 60_000, polling: 50 };

const stage = new Stage(`export * as Y from "yjs"; export { WebrtcProvider } from "y-webrtc";`, import.meta.url);

/** A page with an open document. Each has a profile of its own, so that no BroadcastChannel joins two. */
async function editor(room, options = {}) {
  const person = await stage.enter();
  await person.page.evaluate(
    async (room, options) => {
      const { Y, WebrtcProvider } = globalThis.clients;
      const iceServers = await (await fetch("/ice")).json();
      const signaling = [`ws://${location.host}/pubsub`];
      const peerOpts = { config: { iceServers, iceTransportPolicy: "relay" } };
      const doc = new Y.Doc();
      globalThis.text = doc.getText("text");
      globalThis.provider = new WebrtcProvider(room, doc, { signaling, peerOpts, ...options });
    },
    room,
    options,
  );
  return person;
}

const writes = ({ page }, words) => page.evaluate((words) => globalThis.text.insert(globalThis.text.length, words), words);

async function reads({ page, complaints }, words) {
  const matches = (words) => globalThis.text.toString() === words;
  await page.waitForFunction(matches, WAIT, words).catch(async () => {
    const text = await page.evaluate(() => globalThis.text.toString());
    assert.fail(`${JSON.stringify(text)} did not become ${JSON.stringify(words)}\n${complaints.join("\n")}`);
  });
}

for (const [what, room, options] of [
  ["a document", "document", {}],
  ["a document whose signaling is encrypted", "secret document", { password: "correct horse" }],
  ["a document with a long name", `${"named at length, ".repeat(20)}\u200b`, {}],
]) {
  test(`${what} is the same for three who come one after the other`, async () => {
    const alice = await editor(room, options);
    await writes(alice, "alice ");

    const bob = await editor(room, options);
    await reads(bob, "alice ");
    await writes(bob, "bob ");
    await reads(alice, "alice bob ");
    const carol = await editor(room, options);
    await reads(carol, "alice bob ");
    await writes(carol, "carol");

    await Promise.all([alice, bob, carol].map((person) => reads(person, "alice bob carol")));
    assert.deepEqual(await alice.path(), ["relay", "relay"]);
    assert.deepEqual(stage.complaints, [], "nobody complains");
  });
}

test("documents of different names don't meet", async () => {
  const [alice, bob, carol] = await Promise.all(["one", "another", "one"].map((room) => editor(room)));
  await writes(alice, "alice");
  await writes(bob, "bob");

  await reads(carol, "alice");

  await reads(bob, "bob");
  assert.equal(await bob.page.evaluate(() => globalThis.connections.length), 0);
});

test("after a restart of the server others still come in, and who is there stays", async () => {
  const direct = { peerOpts: { config: { iceServers: [] } } };
  const [alice, bob] = await Promise.all(["restarted", "restarted"].map((room) => editor(room, direct)));
  await writes(alice, "before ");
  await reads(bob, "before ");

  await stage.server.restart();
  const carol = await editor("restarted", direct);

  await reads(carol, "before ");
  await writes(bob, "after");
  await Promise.all([alice, carol].map((person) => reads(person, "before after")));
});
