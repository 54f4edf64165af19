// The real pages of the real server in real Firefox, and calls between Firefox and Chromium.
//
// Who calls matters: the caller's browser writes the offer, the other one the answer.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { launchFirefox, openWindow } from "./firefox.js";
import { launch, open } from "./pages.js";
import { Server } from "./server.js";

const PAIRS = [["Firefox", "Firefox"], ["Firefox", "Chromium"], ["Chromium", "Firefox"]];
const MIXED = PAIRS.slice(1);

let server;
const browsers = {};
let people = [];

before(async () => {
  [server, browsers.Firefox, browsers.Chromium] = await Promise.all([Server.start(), launchFirefox(), launch()]);
});

after(async () => {
  await Promise.all([browsers.Firefox?.close(), browsers.Chromium?.close(), server?.stop()]);
});

afterEach(async () => {
  const complaints = people.flatMap(({ complaints }) => complaints);
  await Promise.all(people.map(({ context }) => context.close()));
  people = [];
  assert.deepEqual(complaints, [], "a page complained");
});

async function visit(kind, path, at = server) {
  const url = `http://localhost:${at.ports.http}${path}`;
  const person = await (kind === "Firefox" ? openWindow : open)(browsers[kind], url);
  people.push(person);
  return person;
}

async function signedIn(kind, name, { relay = false, at = server } = {}) {
  const person = await visit(kind, `/chat?name=${name}${relay ? "&relay=1" : ""}`, at);
  await person.sees("#status", new RegExp(`Signed in as ${name}`));
  return person;
}

async function twoSignedIn([caller, called], options) {
  return Promise.all([signedIn(caller, "alice", options), signedIn(called, "bob", options)]);
}

async function inCall(pair, options) {
  const [alice, bob] = await twoSignedIn(pair, options);
  await alice.writes("#to", "bob");
  await bob.sees("#incoming", /alice is calling you/);
  await bob.clicks("#accept");
  await Promise.all([alice, bob].map((person) => person.sees("#call-state", /Connected/)));
  return [alice, bob];
}

async function talks(from, to, text) {
  await from.writes("#text", text);
  await to.sees("#log .theirs", new RegExp(text));
}

async function talkBothWays(alice, bob, when) {
  await talks(alice, bob, `${when} from alice`);
  await talks(bob, alice, `${when} from bob`);
}

/** What the browser itself says about ways that were lost on purpose is no fault of the page. */
function forgive(person, pattern) {
  person.complaints.splice(0, Infinity, ...person.complaints.filter((text) => !pattern.test(text)));
}

for (const pair of PAIRS) {
  const [caller, called] = pair;

  test(`${caller} calls ${called}: they find a direct way, and both pages say so`, async () => {
    const [alice, bob] = await inCall(pair);

    await talkBothWays(alice, bob, "hello");

    for (const person of [alice, bob]) {
      await person.sees("#path", /^direct, (under 1|\d+) ms$/);
      assert.doesNotMatch((await person.path()).join(), /relay/);
    }
  });

  test(`${caller} calls ${called}: they keep to the relay, and both pages say how they reach it`, async () => {
    const [alice, bob] = await inCall(pair, { relay: true });

    await talkBothWays(alice, bob, "hello");

    for (const person of [alice, bob]) {
      assert.deepEqual(await person.path(), ["relay", "relay"]);
      await person.sees("#path", /^relayed over (UDP|TCP), (under 1|\d+) ms$/);
    }
  });

  test(`${caller} called ${called}: hung up by one, called again by the other`, async () => {
    const [alice, bob] = await inCall(pair);
    await alice.clicks("#hang-up");
    await bob.sees("#after-reason, #call-error", /alice hung up/);

    await bob.clicks("#again");
    await alice.clicks("#accept");

    await talkBothWays(alice, bob, "again");
  });
}

for (const pair of MIXED) {
  const [first, second] = pair;

  test(`alice in ${first} and bob in ${second} call each other at once: it becomes one call`, async () => {
    const [alice, bob] = await twoSignedIn(pair);
    await Promise.all([alice.page.type("#to", "bob"), bob.page.type("#to", "alice")]);

    await Promise.all([alice, bob].map(({ page }) => page.$eval("#call-form", (form) => form.requestSubmit())));

    // Whichever of the two rang first, somebody may have to accept.
    for (const person of [alice, bob]) {
      await person.sees("#call-name, #accept", /(?:)/);
      if (await person.page.$("#incoming:not([hidden])")) await person.clicks("#accept");
    }
    await talkBothWays(alice, bob, "crossed");
  });

  for (const restarts of ["alice", "bob"]) {
    const [kind, role] = restarts === "alice" ? [first, "caller"] : [second, "called"];

    test(`${kind}, the ${role} of a call from ${first} to ${second}, gathers anew (ICE restart), and the talk goes on`, async () => {
      const [alice, bob] = await inCall(pair);
      await talkBothWays(alice, bob, "before");
      const before = await Promise.all([alice, bob].map(usedFragment));

      const person = restarts === "alice" ? alice : bob;
      await person.page.evaluate(() => globalThis.connections.at(-1).restartIce());

      await Promise.all([alice, bob].map((person, i) => usesAnotherFragment(person, before[i])));
      await talkBothWays(alice, bob, "after");
    });
  }

  test(`${first} reloads in a call with ${second}, who is told, and they can call again`, async () => {
    const [alice, bob] = await inCall(pair);
    await talkBothWays(alice, bob, "before");

    await alice.page.reload();

    await bob.sees("#after-reason", /alice hung up/);
    await alice.sees("#status", /Signed in as alice/);
    await bob.clicks("#again");
    await alice.clicks("#accept");
    await talkBothWays(alice, bob, "after");
  });
}

for (const relay of [false, true]) {
  for (const pair of MIXED) {
    const way = relay ? "relayed" : "direct";

    test(`the server restarts while ${pair.join(" is in a ")} call, ${way}: both sign in again and talk on`, async () => {
      const [alice, bob] = await inCall(pair, { relay });
      await talkBothWays(alice, bob, "before");

      await server.restart(() => Promise.all([alice, bob].map((person) => person.sees("#status", /Reconnecting/))));

      for (const person of [alice, bob]) await person.sees("#status", /Signed in as/);
      await talkBothWays(alice, bob, "after");
      for (const person of [alice, bob]) forgive(person, /WebSocket|can.t establish a connection|ICE failed/);
    });
  }
}

for (const [scheme, protocol] of [["turn", "tcp"], ["turns", "tls"]]) {
  test(`Firefox and Chromium that know nothing but ${scheme} over TCP, on the web port, exchange text`, async () => {
    const at = await Server.start({
      iceServers: ({ https }) => `[{ urls = ["${scheme}:localhost:${https}?transport=tcp"] }]`,
    });
    try {
      const [alice, bob] = await inCall(["Firefox", "Chromium"], { relay: true, at });

      await talkBothWays(alice, bob, "hello");

      for (const person of [alice, bob]) {
        assert.equal(await person.relayProtocol(), protocol);
        await person.sees("#path", new RegExp(`^relayed over ${protocol.toUpperCase()}`));
      }
    } finally {
      await at.stop();
    }
  });
}

const BROKEN = [
  ["refuses the password", ({ udp }) => `turn:localhost:${udp}`, /No path, .* by the relay: turn:localhost:\d+ says 401\./],
  ["is not there", () => "turn:localhost:1024?transport=tcp", /No path, .* by the relay: turn:localhost:1024\S* can't be reached\./],
];
for (const [fault, url, sentence] of BROKEN) {
  test(`Firefox that must keep to a relay which ${fault} says so`, async () => {
    const at = await Server.start({ iceServers: (ports) => `[{ urls = ["${url(ports)}"], username = "x", credential = "x" }]` });
    try {
      const [alice] = await Promise.all([signedIn("Firefox", "alice", { relay: true, at }), signedIn("Firefox", "bob", { at })]);

      await alice.writes("#to", "bob");

      await alice.sees("#call-error", sentence);
    } finally {
      await at.stop();
    }
  });
}

/** The ICE user name of the candidates in use on this side, which each restart changes. */
async function usedFragment({ page }) {
  return page.evaluate(async () => {
    const stats = await globalThis.connections.at(-1).getStats();
    const { selectedCandidatePairId } = [...stats.values()].find(({ type }) => type === "transport");
    return stats.get(stats.get(selectedCandidatePairId).localCandidateId).usernameFragment;
  });
}

async function usesAnotherFragment({ page }, before) {
  const differs = async (before) => {
    const stats = await globalThis.connections.at(-1).getStats();
    const { selectedCandidatePairId } = [...stats.values()].find(({ type }) => type === "transport");
    // While Firefox changes over, it names a pair that it doesn't list any more.
    const used = stats.get(stats.get(selectedCandidatePairId)?.localCandidateId)?.usernameFragment;
    return used && used !== before;
  };
  await page.waitForFunction(differs, { timeout: 20_000, polling: 50 }, before);
}
