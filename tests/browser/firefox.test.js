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
  const cameras = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];
  const screen = "--auto-select-desktop-capture-source=Entire screen";
  const started = [Server.start(), launchFirefox(), launch(...cameras, screen)];
  [server, browsers.Firefox, browsers.Chromium] = await Promise.all(started);
});

after(async () => {
  await Promise.all([browsers.Firefox?.close(), browsers.Chromium?.close(), server?.stop()]);
});

afterEach(async () => {
  await everybodyLeaves();
});

async function everybodyLeaves() {
  const leaving = people;
  people = [];
  const complaints = leaving.flatMap(({ complaints }) => complaints);
  // Who signs out frees the name for the next test; a page that just goes might come back.
  await Promise.all(leaving.map(({ page }) => page.evaluate(() => document.querySelector("#sign-out")?.click())));
  await Promise.all(leaving.map((person) => person.leaves()));
  assert.deepEqual(complaints, [], "a page complained");
}

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

  test(`${caller} calls ${called}: they keep to the relay, and both pages say so`, async () => {
    const [alice, bob] = await inCall(pair, { relay: true });

    await talkBothWays(alice, bob, "hello");

    for (const person of [alice, bob]) {
      // Of the other side's a browser may say prflx, if its first packet came before its candidate.
      assert.equal((await person.path())[0], "relay");
      await person.sees("#path", /^relayed over (UDP|TCP), (under 1|\d+) ms$/);
    }
  });
}

for (const pair of MIXED) {
  const [first, second] = pair;

  test(`${first} called ${second}: hung up by one, called again by the other`, async () => {
    const [alice, bob] = await inCall(pair);
    await alice.clicks("#hang-up");
    await bob.sees("#after-reason, #call-error", /alice hung up/);

    await bob.clicks("#again");
    await alice.clicks("#accept");

    await talkBothWays(alice, bob, "again");
  });

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

    test(`an ICE restart of ${kind}, the ${role} in a call from ${first} to ${second}, goes unnoticed`, async () => {
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

    test(`the server restarts while ${pair.join(" is in a ")} call, ${way}, and they talk on`, async () => {
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
      await everybodyLeaves();
    } finally {
      await at.stop();
    }
  });
}

const BROKEN = [
  ["refuses the password", ({ udp }) => `turn:localhost:${udp}`, /No path.*: turn:localhost:\d+ says 401\./],
  ["is not there", () => "turn:localhost:1024?transport=tcp", /No path.*: turn:localhost:1024\S* can't be reached\./],
];
for (const [fault, url, sentence] of BROKEN) {
  test(`Firefox that must keep to a relay which ${fault} says so`, async () => {
    const at = await Server.start({
      iceServers: (ports) => `[{ urls = ["${url(ports)}"], username = "x", credential = "x" }]`,
    });
    try {
      await signedIn("Firefox", "bob", { at });
      const alice = await signedIn("Firefox", "alice", { relay: true, at });

      await alice.writes("#to", "bob");

      await alice.sees("#call-error", sentence);
      await everybodyLeaves();
    } finally {
      await at.stop();
    }
  });
}

for (const pair of MIXED) {
  const [caller, called] = pair;

  test(`${caller} and ${called} see and hear each other, and see when a camera goes off and on`, async () => {
    const both = await inVideoCall(pair);

    for (const [one, other] of [both, [...both].reverse()]) {
      await seesMovement(other);
      await receives(other, "audio", "totalAudioEnergy");
      await other.sees("#path", /^direct/);
      await one.clicks("#camera");
      await other.sees("#nobody-note", /sends no picture/);
      await one.clicks("#camera");
      await until(other, () => document.querySelector("#stage").dataset.picture !== undefined);
      await seesMovement(other);
    }
  });

  test(`${caller} and ${called} who keep to the relay see and hear each other`, async () => {
    const [alice, bob] = await inVideoCall(pair, { relay: true });

    for (const person of [alice, bob]) {
      await seesMovement(person);
      await receives(person, "audio", "totalAudioEnergy");
      // Of the other side's a browser may say prflx, if its first packet came before its candidate.
      assert.equal((await person.path())[0], "relay");
      await person.sees("#path", /^relayed/);
    }
  });

  test(`${called} accepts the call of ${caller} with sound only, and switches its camera on later`, async () => {
    const [alice, bob] = await inVideoCall(pair, { accept: "#accept-audio" });
    await seesMovement(bob);
    await receives(alice, "audio", "totalAudioEnergy");
    await alice.sees("#nobody-note", /bob sends no picture/);

    await bob.clicks("#camera");

    await seesMovement(alice);
  });

  test(`a file of ${caller} arrives in ${called} as it was, and one the other way, too`, async () => {
    const [alice, bob] = await Promise.all([visit(caller, "/"), visit(called, "/")]);
    await signsInToSwap(bob, "bob");
    await signsInToSwap(alice, "alice");

    const [first, second] = await Promise.all([sums(alice, "bob"), sums(bob)]);

    assert.deepEqual(first, { sent: second.arrived, arrived: second.sent });
    assert.notEqual(first.sent, first.arrived);
  });
}

test("Firefox sees the screen that Chromium shares, and its camera afterwards", async () => {
  const [alice, bob] = await inVideoCall(["Firefox", "Chromium"]);
  await seesMovement(alice);
  const size = () => {
    const { videoWidth, videoHeight } = document.querySelector("#theirs");
    return `${videoWidth}x${videoHeight}`;
  };
  const camera = await alice.page.evaluate(size);

  await bob.clicks("#share");

  await until(alice, (camera) => {
    const { videoWidth, videoHeight } = document.querySelector("#theirs");
    return videoWidth > 0 && `${videoWidth}x${videoHeight}` !== camera;
  }, camera);

  await bob.clicks("#share");

  await bob.sees("#share:not([data-on])", /Share/);
  await seesMovement(alice);
});

const CHECKED = [
  ["all is well", "", "good", /Carries data/],
  ["a relay refuses the password", ', username = "x", credential = "wrong"', "bad", /refused the credential \(401\)/],
];
for (const [what, credential, state, words] of CHECKED) {
  test(`the network check in Firefox tells of each relay when ${what}`, async () => {
    const at = await Server.start({
      iceServers: ({ udp, http, https }) => `[
        { urls = ["stun:localhost:${udp}"] },
        { urls = ["turn:localhost:${udp}?transport=udp"]${credential} },
        { urls = ["turn:localhost:${http}?transport=tcp", "turns:localhost:${https}?transport=tcp"] },
      ]`.replaceAll("\n", " "),
    });
    try {
      const alice = await visit("Firefox", "/check", at);

      await alice.sees("#main:not([data-verdict=checking])", /(?:)/);

      await alice.sees(`[data-id=relay-udp][data-state=${state}]`, words);
      for (const way of ["tcp", "tls"]) await alice.sees(`[data-id=relay-${way}][data-state=good]`, /Carries data/);
      await alice.sees("[data-id=sign-in][data-state=good]", /(?:)/);
      await everybodyLeaves();
    } finally {
      await at.stop();
    }
  });
}

async function inVideoCall([caller, called], { relay, accept = "#accept" } = {}) {
  const [alice, bob] = await Promise.all([[caller, "alice"], [called, "bob"]].map(async ([kind, name]) => {
    const person = await visit(kind, `/call?name=${name}${relay ? "&relay=1" : ""}`);
    await person.sees("#status", new RegExp(`Signed in as ${name}`));
    await until(person, () => document.querySelector("#preview").videoWidth > 0);
    return person;
  }));
  await alice.writes("#to", "bob");
  await bob.sees("#incoming", /alice is calling you/);
  await bob.clicks(accept);
  await Promise.all([alice, bob].map((person) => person.sees("#call-state", /Connected/)));
  return [alice, bob];
}

/** Waits until the person's page says so of itself. */
async function until({ page }, condition, ...given) {
  await page.waitForFunction(condition, { timeout: 20_000, polling: 50 }, ...given);
}

/** Waits until a count of what is received is above `floor`, and returns it. */
async function receives({ page }, kind, count, floor = 0) {
  const counted = async (kind, count, floor) => {
    const stats = await globalThis.connections.at(-1).getStats();
    const arriving = [...stats.values()].filter((entry) => entry.type === "inbound-rtp" && entry.kind === kind);
    return arriving.map((entry) => entry[count]).find((found) => found > floor);
  };
  const handle = await page.waitForFunction(counted, { timeout: 20_000, polling: 50 }, kind, count, floor);
  return handle.jsonValue();
}

/** Waits until the other side's picture is there and moves: more frames, and other pixels. */
async function seesMovement(person) {
  const frames = await receives(person, "video", "framesDecoded");
  await until(person, () => document.querySelector("#theirs").videoWidth > 0);
  await person.page.evaluate(() => {
    globalThis.pixels = () => {
      const canvas = new OffscreenCanvas(160, 120).getContext("2d");
      canvas.drawImage(document.querySelector("#theirs"), 0, 0, 160, 120);
      return canvas.getImageData(0, 0, 160, 120).data.join();
    };
    globalThis.firstSample = globalThis.pixels();
  });
  await until(person, () => globalThis.pixels() !== globalThis.firstSample);
  await receives(person, "video", "framesDecoded", frames);
}

/** Signs in by the module itself; whoever is called, or calls by `sums`, sends a file and takes the other's. */
async function signsInToSwap({ page }, name) {
  await page.evaluate(async (name) => {
    const { Signal } = await import("/throughway.js");
    const sum = async (blob) => {
      const hash = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer());
      return `${blob.size}:${new Uint8Array(hash).join()}`;
    };
    const parts = Array.from({ length: 20 }, () => crypto.getRandomValues(new Uint8Array(60_001)));
    const mine = new File(parts, `${name}.bin`);
    globalThis.signal = await Signal.connect({ name });
    globalThis.swap = async (call) => {
      const arrives = new Promise((resolve) => {
        call.addEventListener("file", (event) => resolve(event.accept()), { once: true });
      });
      await new Promise((resolve) => call.addEventListener("open", resolve, { once: true }));
      // The channel for files may open a moment after the one for text.
      const opened = async () => {
        const stats = [...(await call.connection.getStats()).values()];
        return stats.filter(({ type, state }) => type === "data-channel" && state === "open").length === 2;
      };
      while (!(await opened())) continue;
      await call.sendFile(mine);
      return { sent: await sum(mine), arrived: await sum(await arrives) };
    };
    const rings = new Promise((resolve) => globalThis.signal.addEventListener("call", resolve, { once: true }));
    globalThis.called = rings.then((event) => globalThis.swap(event.accept()));
  }, name);
}

/** Calls, or waits to be called, and tells what was sent and what arrived. */
async function sums({ page }, name) {
  return page.evaluate(async (name) => {
    return name ? globalThis.swap(globalThis.signal.call(name)) : globalThis.called;
  }, name);
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
