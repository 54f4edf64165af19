// The room page in real Chromium: three people and more, with moving pictures, words, comings and goings.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { launch, open } from "./pages.js";
import { Server } from "./server.js";

const WAIT = { timeout: 30_000, polling: 100 };

let server;
let browser;
let people = [];
let others = [];

before(async () => {
  browser = await launch("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream");
});

after(() => browser?.close());

// Each its own: the server keeps the place of a page that went without a word, and so its name, for half a minute.
beforeEach(async () => (server = await Server.start({ more: '[signaling.limits]\nsign_ins = "50/s"\n' })));

afterEach(async () => {
  const complaints = people.flatMap(({ complaints }) => complaints);
  await Promise.all(people.map(({ context }) => context.close()));
  await Promise.all(others.map((other) => other.close()));
  [people, others] = [[], []];
  await server.stop();
  assert.deepEqual(complaints, [], "a page complained");
});

const address = (query, port = server.ports.http) => `http://localhost:${port}/room?name=standup${query}`;

async function visit(url, from = browser) {
  const person = await open(from, "about:blank");
  people.push(person);
  // Wide enough for the words to stand beside the pictures.
  await person.page.setViewport({ width: 1280, height: 800 });
  await person.page.goto(url);
  return person;
}

/** Another browser, for one test. */
async function another(...flags) {
  others.push(await launch(...flags));
  return others.at(-1);
}

/** Comes into the room under that name. */
async function comes(name, port) {
  const person = await visit(address("", port));
  person.name = name;
  await person.writes("#name", name);
  await person.sees("#room-title", /^standup$/);
  return person;
}

async function meeting(...names) {
  const all = [];
  for (const name of names) all.push(await comes(name));
  for (const person of all) await person.sees("#count", new RegExp(`^${names.length} people$`));
  return all;
}

const but = (all, person) => all.filter((other) => other !== person);

/** What has been decoded of somebody's pictures, and the one that is shown: read in the page. */
async function pictureOf(name) {
  const video = document.querySelector(`.tile[data-name="${name}"][data-picture="true"] video`);
  const track = video?.srcObject?.getVideoTracks()[0];
  if (!video?.videoWidth || !track) return undefined;
  const reports = await Promise.all(globalThis.connections.map((connection) => connection.getStats()));
  const stats = reports.flatMap((report) => [...report.values()]);
  const { framesDecoded = 0 } = stats.find(({ type, trackIdentifier }) => type === "inbound-rtp" && trackIdentifier === track.id) ?? {};
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [64, 36];
  canvas.getContext("2d").drawImage(video, 0, 0, 64, 36);
  return { framesDecoded, shown: canvas.toDataURL() };
}

/** Waits until more pictures of `name` than there were have been decoded, and another one is shown. */
async function seesMoving(person, name) {
  const first = await person.page.waitForFunction(pictureOf, WAIT, name).catch(() => undefined);
  assert.ok(first, `${person.name} sees no picture of ${name}\n${await person.page.evaluate(() => document.body.innerText)}`);
  const before = await first.jsonValue();
  const moves = `async (name, before) => {
    const now = await (${pictureOf})(name);
    return now !== undefined && now.framesDecoded > before.framesDecoded && now.shown !== before.shown;
  }`;
  const watch = new Function(`return ${moves}`)();
  await person.page
    .waitForFunction(watch, WAIT, name, before)
    .catch(() => assert.fail(`the picture of ${name} that ${person.name} sees does not move`));
}

async function allSeeAll(all) {
  await Promise.all(all.map(async (person) => {
    for (const { name } of but(all, person)) await seesMoving(person, name);
  }));
}

const says = (person, text) => person.writes("#text", text);
const hears = (person, name, text) => person.sees("#log .theirs", new RegExp(`^${name}: ${text}$`));

test("three people see each other move, and how they are connected", async () => {
  const all = await meeting("alice", "bob", "carol");

  await allSeeAll(all);

  for (const person of all) {
    const names = await person.page.$$eval(".tile .name", (all) => all.map(({ textContent }) => textContent));
    const expected = [`${person.name} (you)`, ...but(all, person).map(({ name }) => name)];
    assert.deepEqual(names.sort(), expected.sort());
    for (const { name } of but(all, person)) await person.sees(`.tile[data-name="${name}"] .pill`, /^(direct|relayed)/);
  }
});

test("words reach everybody, as text, under the name of who wrote them", async () => {
  const [alice, bob, carol] = await meeting("alice", "bob", "carol");
  for (const person of [alice, bob, carol]) {
    for (const { name } of but([alice, bob, carol], person)) await person.sees(`.tile[data-name="${name}"] .pill`, /^(direct|relayed)/);
  }

  await says(alice, "hello <b>all</b>");
  await says(carol, "hello alice");

  for (const person of [bob, carol]) await hears(person, "alice", "hello <b>all</b>");
  for (const person of [alice, bob]) await hears(person, "carol", "hello alice");
});

test("who leaves is gone for the others, and who comes late meets all", async () => {
  const [alice, bob, carol] = await meeting("alice", "bob", "carol");

  await bob.clicks("#sign-out");

  await bob.sees("#sign-in-title", /Join standup/);
  for (const person of [alice, carol]) {
    await person.sees("#count", /^2 people$/);
    await person.sees("#log .event", /^bob left$/);
    assert.equal(await person.page.$('.tile[data-name="bob"]'), null);
  }
  const dave = await comes("dave");
  for (const person of [alice, carol]) await person.sees("#log .event", /^dave joined$/);
  await allSeeAll([alice, carol, dave]);
});

test("who closes the page is gone for the others", async () => {
  const [alice, bob] = await meeting("alice", "bob");

  await bob.page.goto("about:blank");

  await alice.sees("#alone", /Nobody else is here/);
});

test("a restart of the server leaves the pictures alone, and everybody is in the room again afterwards", async () => {
  const all = await meeting("alice", "bob", "carol");
  await allSeeAll(all);

  await server.restart(async () => {
    for (const person of all) await person.sees("#status", /Reconnecting/);
    await allSeeAll(all);
  });

  for (const person of all) await person.sees("#status", /Signed in as/);
  const dave = await comes("dave");
  for (const person of all) {
    // Refused attempts while the server was away are the browser's own complaint.
    person.complaints.splice(0, Infinity, ...person.complaints.filter((text) => !/WebSocket connection to .* failed/.test(text)));
    await person.sees("#count", /^4 people$/);
  }
  await allSeeAll([...all, dave]);
});

test("a camera that is switched off is off for the others, and back when it is on again", async () => {
  const [alice, bob] = await meeting("alice", "bob");
  await allSeeAll([alice, bob]);

  await alice.clicks("#camera");

  await bob.sees('.tile[data-name="alice"][data-picture="false"] .avatar', /^A$/);
  assert.equal(await alice.page.$eval("#camera", (button) => button.getAttribute("aria-pressed")), "false");
  await seesMoving(alice, "bob");
  await alice.clicks("#camera");
  await seesMoving(bob, "alice");
});

/** What has been heard, in all: read in the page. */
async function heard() {
  const stats = await globalThis.connections.at(-1).getStats();
  const sound = [...stats.values()].find(({ type, kind }) => type === "inbound-rtp" && kind === "audio");
  return { energy: sound?.totalAudioEnergy ?? 0, seconds: sound?.totalSamplesDuration ?? 0 };
}

test("who speaks is marked, a muted microphone is silent, and one's own tile says so", async () => {
  const [alice, bob] = await meeting("alice", "bob");
  // Chromium's microphone beeps.
  await bob.sees('.tile[data-name="alice"][data-speaking="true"]', /(?:)/);

  await alice.clicks("#microphone");

  await alice.sees('.tile[data-own="true"][data-muted="true"]', /(?:)/);
  await bob.sees('.tile[data-name="alice"][data-speaking="false"]', /(?:)/);
  const before = await bob.page.evaluate(heard);
  const later = new Function(`return async (seconds) => (await (${heard})()).seconds > seconds + 3`)();
  await bob.page.waitForFunction(later, WAIT, before.seconds);
  const { energy } = await bob.page.evaluate(heard);
  assert.ok(energy - before.energy < 1e-4, `${energy - before.energy} was heard`);
  await alice.clicks("#microphone");
  await bob.sees('.tile[data-name="alice"][data-speaking="true"]', /(?:)/);
});

test("a screen takes the camera's place until it is no longer shared", async () => {
  const [alice, bob] = await meeting("alice", "bob");
  await seesMoving(bob, "alice");
  const size = () => {
    const video = document.querySelector('.tile[data-name="alice"] video');
    return `${video.videoWidth} x ${video.videoHeight}`;
  };
  const camera = await bob.page.evaluate(size);

  await alice.clicks("#screen");

  await alice.sees('#screen[aria-pressed="true"]', /(?:)/);
  const isOther = `(camera) => (${size})() !== camera`;
  await bob.page.waitForFunction(new Function(`return ${isOther}`)(), WAIT, camera);
  await alice.clicks("#screen");
  await bob.page.waitForFunction(new Function(`return (camera) => !(${isOther})(camera)`)(), WAIT, camera);
  await seesMoving(bob, "alice");
});

test("who may not use a camera is told why, and sees and writes all the same", async () => {
  const alice = await comes("alice");
  // The other one grants them to everybody.
  const bob = await visit("about:blank", await another("--use-fake-device-for-media-stream"));
  await bob.context.overridePermissions(new URL(address("")).origin, []);
  bob.name = "bob";

  await bob.page.goto(address(""));
  await bob.writes("#name", "bob");

  await bob.sees("#notice", /You have no camera and microphone here: the browser does not let this page have it/);
  await seesMoving(bob, "alice");
  await says(bob, "I can see you");
  await hears(alice, "bob", "I can see you");
  await alice.sees('.tile[data-name="bob"][data-picture="false"] .avatar', /^B$/);
});

test("on plain http the page says what is missing, and words still go both ways", async () => {
  process.env.THROUGHWAY__HTTP__ALLOWED_ORIGINS = '["*"]';
  const other = await Server.start();
  delete process.env.THROUGHWAY__HTTP__ALLOWED_ORIGINS;
  try {
    const alice = await comes("alice", other.ports.http);
    const url = address("", other.ports.http).replace("localhost", "plain.test");
    const bob = await visit(url, await another("--host-resolver-rules=MAP plain.test 127.0.0.1"));
    await bob.writes("#name", "bob");

    await bob.sees("#notice", /You have no camera and microphone here: browsers lend it to pages on https only/);
    await bob.sees('.tile[data-name="alice"] .pill', /^(direct|relayed)/);
    await says(bob, "hello from afar");
    await hears(alice, "bob", "hello from afar");
  } finally {
    // Or they look for their server once it is gone, and complain.
    await Promise.all(people.map(({ page }) => page.goto("about:blank")));
    await other.stop();
  }
});

test("who comes as the seventh comes without a camera, and can switch it on as nobody else has one on", async () => {
  const crowd = await visit(`http://localhost:${server.ports.http}/`);
  await crowd.page.evaluate(async () => {
    const { Signal } = await import("/throughway.js");
    for (const n of [1, 2, 3, 4, 5, 6]) {
      const signal = await Signal.connect({ name: `person ${n}` });
      await signal.join("standup");
    }
  });

  const alice = await comes("alice");

  await alice.sees("#count", /^7 people$/);
  await alice.sees("#notice", /6 others are here, and a room carries about 6 cameras: yours is off/);
  await alice.sees('#camera[aria-pressed="false"]', /(?:)/);
  await alice.sees('#microphone[aria-pressed="true"]', /(?:)/);
  await alice.clicks("#camera");
  await alice.sees('#camera[aria-pressed="true"]', /(?:)/);
});

test("who comes by an address that names them shows and says nothing until they press a button", async () => {
  const alice = await comes("alice");
  const bob = await visit("about:blank");
  await bob.page.evaluateOnNewDocument(() => {
    const devices = navigator.mediaDevices;
    const borrow = devices?.getUserMedia.bind(devices);
    globalThis.borrowed = 0;
    if (devices) devices.getUserMedia = (wanted) => ((globalThis.borrowed += 1), borrow(wanted));
  });
  bob.name = "bob";

  await bob.page.goto(address("&as=bob"));

  await bob.sees("#notice", /You came by a link: your microphone and camera are off/);
  const sent = () => globalThis.connections.flatMap((one) => one.getSenders()).filter(({ track }) => track).length;
  await bob.sees('.tile[data-name="alice"] .pill', /^(direct|relayed)/);
  assert.deepEqual([await bob.page.evaluate(() => globalThis.borrowed), await bob.page.evaluate(sent)], [0, 0]);
  assert.equal(await bob.page.evaluate(() => document.activeElement.id), "room-title");
  // Until then the browser may hold back what comes in, too.
  await bob.page.keyboard.press("Tab");
  await seesMoving(bob, "alice");
  await bob.clicks("#camera");
  await seesMoving(alice, "bob");
});

test("who changes their mind while the browser asks for the camera gets out, and nothing goes on", async () => {
  const alice = await visit(address(""));
  await alice.page.evaluate(() => {
    const devices = navigator.mediaDevices;
    const borrow = devices.getUserMedia.bind(devices);
    const answered = new Promise((resolve) => (globalThis.answer = resolve));
    devices.getUserMedia = async (wanted) => {
      await answered;
      globalThis.lent = await borrow(wanted);
      return globalThis.lent;
    };
  });
  await alice.writes("#name", "alice");

  await alice.clicks("#cancel");
  await alice.sees("#sign-in-title", /Join standup/);
  await alice.page.evaluate(() => globalThis.answer());

  await alice.page.waitForFunction(
    () => globalThis.lent?.getTracks().every(({ readyState }) => readyState === "ended"), WAIT,
  );
  await alice.sees("#sign-in-title", /Join standup/);
});

test("who keeps to the relay still does after reloading, and invites others without it", async () => {
  const alice = await visit(address(""));
  await alice.page.click("#relay");
  await alice.writes("#name", "alice");
  await alice.sees("#room-title", /^standup$/);

  assert.equal(alice.page.url(), address("&relay=1"));
  assert.equal(await alice.page.$eval("#invite", ({ value }) => value), address(""));
  await alice.page.reload();

  await alice.sees("#sign-in-title", /Join standup/);
  assert.equal(await alice.page.$eval("#relay", ({ checked }) => checked), true);
});

test("of more than a room connects, some are said to be left out", async () => {
  const crowd = await visit(`http://localhost:${server.ports.http}/`);
  await crowd.page.evaluate(async () => {
    const joined = (n) =>
      new Promise((resolve) => {
        const socket = new WebSocket("/ws");
        socket.onopen = () => socket.send(JSON.stringify({ type: "login", v: 2, name: `person ${n}`, room: "standup" }));
        socket.onmessage = ({ data }) => JSON.parse(data).success && resolve(socket);
      });
    globalThis.sockets = [];
    for (let n = 1; n <= 13; n += 1) globalThis.sockets.push(await joined(n));
  });

  const alice = await comes("alice");

  await alice.sees("#count", /^14 people$/);
  await alice.sees("#notice", /connects nobody with more than 12 others/);
  const pills = await alice.page.$$eval(".tile[data-own=false] .pill", (all) => all.map(({ textContent }) => textContent));
  assert.ok(pills.includes("Not connected"), pills.join());
});

test("the link to invite others names the room and not who sends it, and asks for a name", async () => {
  const alice = await comes("alice");
  const link = await alice.page.$eval("#invite", ({ value }) => value);
  assert.equal(link, address(""));

  const guest = await visit(link);
  await guest.sees("#sign-in-title", /^Join standup$/);
  await guest.writes("#name", "guest");

  await guest.sees("#count", /^2 people$/);
  await alice.sees('.tile[data-name="guest"] .name', /^guest$/);
});

test("a name that is taken is said to be taken, and another one comes in", async () => {
  await comes("alice");
  const other = await visit(address("&as=alice"));
  await other.sees("#sign-in-error", /The name alice is taken/);

  await other.writes("#name", "alice2");

  await other.sees("#count", /^2 people$/);
});

test("a page without a room's name asks for it, and its address is the room's from then on", async () => {
  const alice = await visit(`http://localhost:${server.ports.http}/room`);
  await alice.page.type("#room-name", "planning");
  await alice.writes("#name", "alice");

  await alice.sees("#room-title", /^planning$/);
  assert.equal(alice.page.url(), `http://localhost:${server.ports.http}/room?name=planning`);
});
