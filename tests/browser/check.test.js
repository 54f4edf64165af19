// The network check in real Chromium against the real server: what it finds is what was set up.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { launch, open } from "./pages.js";
import { Server } from "./server.js";

const TOKEN = "twenty+two%letters/and=more";

let browser;
let servers = [];
let people = [];

before(async () => {
  browser = await launch();
});

after(async () => {
  await browser?.close();
});

afterEach(async () => {
  const complaints = people.flatMap(({ complaints }) => complaints);
  await Promise.all(people.map(({ context }) => context.close()));
  await Promise.all(servers.map((server) => server.stop()));
  people = [];
  servers = [];
  assert.deepEqual(complaints, [], "a page complained");
});

async function start(options) {
  const server = await Server.start(options);
  servers.push(server);
  return server;
}

/** Visits the check and waits until it is through. */
async function check({ ports }, query = "", from = browser) {
  const person = await open(from, `http://localhost:${ports.http}/check${query}`);
  people.push(person);
  await done(person);
  return person;
}

async function done(person) {
  await person.page.waitForSelector("#main:not([data-verdict=checking])", { timeout: 60_000 });
}

/** The report's machine-readable part. */
async function reported(person) {
  const text = await person.page.$eval("#report", ({ textContent }) => textContent);
  return JSON.parse(text.split("```json\n")[1].split("\n```")[0]);
}

async function states(person) {
  return Object.fromEntries((await reported(person)).lines.map(({ id, state }) => [id, state]));
}

const verdict = ({ page }) => page.$eval("#main", ({ dataset }) => dataset.verdict);

/** The whole list: STUN on two ports, of which the second is another server's, and a relay by each way. */
const list = (second, { udp, http, https }, more = {}) => {
  const turn = (urls, extra = "") => `{ urls = ["${urls}"]${extra} }`;
  const ways = {
    udp: `turn:127.0.0.1:${udp}?transport=udp`,
    tcp: `turn:127.0.0.1:${http}?transport=tcp`,
    tls: `turns:localhost:${https}?transport=tcp`,
    ...more.ways,
  };
  const relays = Object.entries(ways).filter(([, url]) => url);
  const stun = `{ urls = ["stun:127.0.0.1:${udp}", "stun:127.0.0.1:${second.ports.udp}"] }`;
  return `[${[stun, ...relays.map(([way, url]) => turn(url, more.extra?.[way]))].join(", ")}]`;
};

test("in a good network every step is green, and calls will connect directly", async () => {
  const second = await start();
  const server = await start({ iceServers: (ports) => list(second, ports) });

  const person = await check(server);

  assert.deepEqual(await states(person), {
    "sign-in": "good",
    stun: "good",
    family: "good",
    nat: "good",
    "relay-udp": "good",
    "relay-tcp": "good",
    "relay-tls": "good",
  });
  assert.equal(await verdict(person), "direct");
  await person.sees("#verdict", /will connect directly, and by relay over UDP/);
  await person.sees("[data-id=nat]", /^.*None: the server sees an address of this very machine/s);
  for (const way of ["udp", "tcp", "tls"])
    await person.sees(`[data-id=relay-${way}]`, /Carries data: .* to the relay and back, .*bit\/s/);
  await person.sees("#candidates td", /srflx/);
  await person.sees("#candidates td", /turns:localhost/);
  assert.equal((await reported(person)).nat.v4, "alike");
});

test("the server's second UDP port is asked, too, and a self-signed certificate is why there is no relay over TLS", async () => {
  process.env.THROUGHWAY__TURN__LISTEN_UDP = '["127.0.0.1:0", "127.0.0.1:0"]';
  const server = await start().finally(() => delete process.env.THROUGHWAY__TURN__LISTEN_UDP);

  const person = await check(server);

  const { stun, nat } = await reported(person);
  assert.deepEqual(
    stun.servers.map(({ answered }) => answered),
    [true, true],
  );
  assert.equal(nat.v4, "alike");
  await person.sees("[data-id=relay-tls][data-state=warn]", /certificate is self-signed/);
});

test("one's own server of the usual make is fine by every line, also where the browser shows its addresses", async (t) => {
  const server = await start();
  const granting = await launch("--use-fake-ui-for-media-stream");
  t.after(() => granting.close());

  const hidden = await check(server);
  const shown = await check(server, "", granting);

  for (const person of [hidden, shown]) {
    const { "relay-tls": tls, ...others } = await states(person);
    assert.equal(tls, "warn");
    for (const [id, state] of Object.entries(others)) assert.equal(state, "good", id);
    assert.equal(await verdict(person), "direct");
    await person.sees("[data-id=stun]", /Answered/);
    await person.sees("[data-id=nat]", /None: the server sees an address of this very/);
    await person.sees("#verdict", /directly, and by relay over UDP .* on the server’s own machine/);
  }
});

test("a wrong password is named on the relay that it is for, and the others work", async () => {
  const second = await start();
  const extra = { udp: ', username = "x", credential = "wrong"' };
  const server = await start({ iceServers: (ports) => list(second, ports, { extra }) });

  const person = await check(server);

  await person.sees("[data-id=relay-udp][data-state=bad]", /refused the credential \(401\)/);
  await person.sees("#verdict", /directly, and by relay over TCP/);
  const { relays } = await reported(person);
  assert.deepEqual(
    relays.map(({ state, code }) => [state, code]),
    [
      ["refused", 401],
      ["carried", undefined],
      ["carried", undefined],
    ],
  );
  const text = await person.page.$eval("#report", ({ textContent }) => textContent);
  assert.doesNotMatch(text, /wrong"|credential"|username/, "no credential leaves the page");
});

test("ports where nobody answers are named, and a UDP relay that isn't offered", async () => {
  const closed = await start();
  const second = await start();
  const ways = { udp: "", tcp: `turn:127.0.0.1:${closed.ports.http}?transport=tcp` };
  const server = await start({ iceServers: (ports) => list(second, ports, { ways }) });
  await servers.splice(servers.indexOf(closed), 1)[0].stop();

  const person = await check(server);

  await person.sees("[data-id=relay-udp][data-state=warn]", /Not offered/);
  await person.sees(
    "[data-id=relay-tcp][data-state=bad]",
    new RegExp(`TCP port ${closed.ports.http} cannot be reached`),
  );
  await person.sees("#verdict", /directly, and by relay over TLS on port/);
});

test("silence over UDP is told from a NAT, within its time, and the relay over TCP is what is left", async () => {
  const closed = await start();
  const { udp: port } = closed.ports;
  const iceServers = ({ http }) =>
    `[{ urls = ["stun:127.0.0.1:${port}"] }, { urls = ["turn:127.0.0.1:${port}?transport=udp", "turn:127.0.0.1:${http}?transport=tcp"] }]`;
  const server = await start({ iceServers });
  await servers.splice(servers.indexOf(closed), 1)[0].stop();

  const person = await check(server);

  await person.sees("[data-id=stun][data-state=bad]", new RegExp(`No answer in 6.s: 127.0.0.1:${port}`));
  await person.sees("[data-id=relay-udp][data-state=bad]", new RegExp(`No answer from UDP port ${port} in 12.s`));
  assert.equal(await verdict(person), "relay-tcp");
  await person.sees("#verdict", /by relay over TCP. Not directly, because STUN/);
});

test("a browser without WebRTC is told so", async () => {
  const server = await start();
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  await page.evaluateOnNewDocument(() => delete globalThis.RTCPeerConnection);

  await page.goto(`http://localhost:${server.ports.http}/check`);
  await page.waitForSelector("#main:not([data-verdict=checking])");

  assert.match(await page.$eval("#verdict", ({ textContent }) => textContent), /this browser has no WebRTC/);
  await context.close();
});

test("of a long list so many are tried, and the page says that there are more", async () => {
  const many = (count, url) => `{ urls = [${Array(count).fill(`"${url}"`).join(", ")}] }`;
  const stuns = (port) =>
    `{ urls = [${[0, 1, 2, 3, 4].map((number) => `"stun:127.0.0.${number + 1}:${port}"`).join(", ")}] }`;
  const iceServers = ({ udp, http }) => `[${stuns(udp)}, ${many(8, `turn:127.0.0.1:${http}?transport=tcp`)}]`;
  const server = await start({ iceServers });

  const person = await check(server);

  const { relays, stun } = await reported(person);
  assert.deepEqual([relays.length, stun.servers.length], [6, 4]);
  await person.sees("[data-id=relay-more]", /^.*2 more in the list were not tried/s);
});

test("a quota that is used up is named", async () => {
  const server = await start({ more: "[turn.limits]\nallocations_per_member = 1\n" });

  const person = await check(server);

  await person.sees("[data-id=relay-udp], [data-id=relay-tcp]", /quota .* is used up \(486\)/);
});

test("a relay that is granted and passes nothing on doesn't count as one that works", async () => {
  // Enough for the start-up test and the first packets, then dropped: DTLS never gets through.
  const more = '[turn.limits]\nbytes_per_day = "2KiB"\n';
  const server = await start({ more, iceServers: ({ udp }) => `[{ urls = ["turn:127.0.0.1:${udp}?transport=udp"] }]` });

  const person = await check(server);

  await person.sees("[data-id=relay-udp][data-state=bad]", /granted, but no data came through it in 24.s/);
  assert.equal(await verdict(person), "direct-only");
  await person.sees("#verdict", /the relay passes no data on/);
});

test("a relay that lets little through is said to", async () => {
  const server = await start({ more: '[turn.limits]\nbandwidth_per_allocation = "1B/s"\n' });

  const person = await check(server);

  await person.sees("[data-id=relay-udp][data-state=warn]", /Carries data, but little: .* kbit\/s/);
});

test("a server that wants a token says so; with it the check goes on, and the report doesn't hold it", async () => {
  const server = await start({ more: `[signaling.accounts]\nmode = "token"\ntoken = "${TOKEN}"\n` });

  const without = await check(server);
  const wrong = await check(server, "?token=another");
  const right = await check(server, `?token=${encodeURIComponent(TOKEN)}`);

  for (const person of [without, wrong]) {
    assert.equal(await verdict(person), "none");
    assert.deepEqual(await states(person), { "sign-in": "bad" });
  }
  await without.sees("[data-id=sign-in]", /\/check\?token=/);
  await wrong.sees("[data-id=sign-in]", /refused this token/);
  await wrong.sees("#candidates-note", /None were gathered/);
  await right.sees("[data-id=sign-in][data-state=good]", /Signed in over ws/);
  assert.doesNotMatch(await right.page.$eval("#report", ({ textContent }) => textContent), /letters/);
});

test("it can be run again, leaves no connection open, and copies its report", async () => {
  const server = await start();
  const person = await check(server);
  const first = await verdict(person);
  await person.context.overridePermissions(`http://localhost:${server.ports.http}`, [
    "clipboard-read",
    "clipboard-sanitized-write",
  ]);

  await person.clicks("#again");
  await person.sees("#main[data-verdict=checking]", /(?:)/);
  await done(person);
  await person.page.bringToFront();
  await person.clicks("#copy");
  await person.sees("#copy", /Copied/);

  assert.equal(await verdict(person), first);
  const [copied, shown] = await person.page.evaluate(async () => [
    await navigator.clipboard.readText(),
    document.getElementById("report").textContent,
  ]);
  assert.equal(copied, shown);
  const open = await person.page.evaluate(
    () => globalThis.connections.filter((pc) => pc.signalingState !== "closed").length,
  );
  assert.equal(open, 0);
});
