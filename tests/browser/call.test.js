// The call page of the real server in real Chromium, whose cameras, microphones and screens are Chromium's own fakes.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, afterEach, before, test } from "node:test";
import { launch, open } from "./pages.js";
import { Server } from "./server.js";

const WAIT = { timeout: 20_000, polling: 50 };

let server;
let browser;
let people = [];
let others = [];
let directory;

before(async () => {
  // One test opens the page by a name that is not the server's own.
  process.env.THROUGHWAY__HTTP__ALLOWED_ORIGINS = '["*"]';
  server = await Server.start();
  directory = await mkdtemp(path.join(tmpdir(), "throughway-call-"));
  browser = await launch(
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--auto-select-desktop-capture-source=Entire screen",
  );
});

after(async () => {
  await browser?.close();
  await server?.stop();
  if (directory) await rm(directory, { recursive: true, force: true });
});

afterEach(async () => {
  const complaints = people.flatMap(({ complaints }) => complaints);
  await Promise.all(people.map((person) => person.leaves()));
  await Promise.all(others.map((other) => other.close()));
  people = [];
  others = [];
  assert.deepEqual(complaints, [], "a page complained");
});

const address = (query) => `http://localhost:${server.ports.http}/call?${query}`;

async function visit(url, where = browser) {
  const person = await open(where, url);
  people.push(person);
  return person;
}

/** Another Chromium, whose person lacks something. */
async function without(...flags) {
  const other = await launch(...flags);
  others.push(other);
  return other;
}

async function signedIn(name, { relay = false, where = browser } = {}) {
  const person = await visit(address(`name=${name}${relay ? "&relay=1" : ""}`), where);
  await person.sees("#status", new RegExp(`Signed in as ${name}`));
  return person;
}

/** Waits until the person's page says so of itself. */
async function until({ page }, condition, ...given) {
  await page.waitForFunction(condition, WAIT, ...given);
}

async function ready(person) {
  await until(person, () => document.querySelector("#preview").videoWidth > 0);
  return person;
}

async function inCall({ accept = "#accept", relay } = {}) {
  const [alice, bob] = await Promise.all(["alice", "bob"].map(async (name) => ready(await signedIn(name, { relay }))));
  await alice.writes("#to", "bob");
  await bob.sees("#incoming", /alice is calling you/);
  await bob.clicks(accept);
  await connected(alice, bob);
  return [alice, bob];
}

async function connected(...both) {
  await Promise.all(both.map((person) => person.sees("#call-state", /Connected/)));
}

/** What the newest connection receives of a kind, as the browser counts it. */
function received({ page }, kind) {
  return page.evaluate(async (kind) => {
    const stats = await globalThis.connections.at(-1).getStats();
    return [...stats.values()].find((entry) => entry.type === "inbound-rtp" && entry.kind === kind);
  }, kind);
}

/** Waits until a count of what is received is above `floor`. */
async function receives(person, kind, count, floor = 0) {
  const rises = async (kind, count, floor) => {
    const stats = await globalThis.connections.at(-1).getStats();
    const streams = [...stats.values()].filter(({ type }) => type === "inbound-rtp");
    return streams.some((stream) => stream.kind === kind && stream[count] > floor);
  };
  await until(person, rises, kind, count, floor);
}

/** Waits until the other side's picture is there and moves: more frames, and other pixels. */
async function seesMovement(person) {
  await receives(person, "video", "framesDecoded");
  const { framesDecoded } = await received(person, "video");
  await moves(person, "#theirs");
  await receives(person, "video", "framesDecoded", framesDecoded);
}

/** Waits until two samples of a picture differ. */
async function moves(person, selector) {
  await until(person, (selector) => document.querySelector(selector).videoWidth > 0, selector);
  await person.page.evaluate((selector) => {
    globalThis.pixels = () => {
      const canvas = new OffscreenCanvas(160, 120).getContext("2d");
      canvas.drawImage(document.querySelector(selector), 0, 0, 160, 120);
      return canvas.getImageData(0, 0, 160, 120).data.join();
    };
    globalThis.firstSample = globalThis.pixels();
  }, selector);
  await until(person, () => globalThis.pixels() !== globalThis.firstSample);
}

/** Presses a key until the control with this name has the keyboard. */
async function reaches({ page }, name) {
  const focused = () => document.activeElement.ariaLabel ?? document.activeElement.textContent;
  for (let presses = 0; presses < 40; presses += 1) {
    if ((await page.evaluate(focused)) === name) return;
    await page.keyboard.press("Tab");
  }
  throw new Error(`the keyboard does not reach ${name}`);
}

/** What the person's own camera and microphone give: nothing when their lights are off. */
function lights({ page }) {
  return page.$eval("#mine", ({ srcObject }) => srcObject.getTracks().map(({ kind }) => kind).sort());
}

/** Which kind of screen the person shares, if the picture they send is one. */
function surface({ page }) {
  return page.$eval("#mine", ({ srcObject }) => srcObject.getVideoTracks()[0].getSettings().displaySurface);
}

test("moving pictures and sound travel both ways", async () => {
  const [alice, bob] = await inCall();

  for (const person of [alice, bob]) {
    await seesMovement(person);
    await receives(person, "audio", "totalAudioEnergy");
    assert.equal(await person.page.$eval("#theirs", ({ muted, paused }) => muted || paused), false);
    await person.sees("#path", /direct/);
  }
});

test("pages that keep to the relay see each other by the relay alone", async () => {
  const [alice, bob] = await inCall({ relay: true });

  for (const person of [alice, bob]) {
    await seesMovement(person);
    assert.deepEqual(await person.path(), ["relay", "relay"]);
    await person.sees("#path", /^relayed over/);
  }
});

test("a muted microphone falls silent and comes back", async () => {
  const [alice, bob] = await inCall();
  await receives(bob, "audio", "totalAudioEnergy");

  await alice.clicks("#mic");

  await alice.sees("#mic[aria-label=Unmute]", /Unmute/);
  await until(bob, async () => {
    const stats = await globalThis.connections.at(-1).getStats();
    const sound = [...stats.values()].find(({ type, kind }) => type === "inbound-rtp" && kind === "audio");
    return sound.audioLevel < 0.001;
  });
  const { totalAudioEnergy } = await received(bob, "audio");

  await alice.clicks("#mic");

  await receives(bob, "audio", "totalAudioEnergy", totalAudioEnergy);
});

test("a camera that is switched off goes dark for both, and comes back", async () => {
  const [alice, bob] = await inCall();
  await seesMovement(bob);

  await alice.clicks("#camera");

  await bob.sees("#nobody-note", /alice sends no picture/);
  assert.deepEqual(await lights(alice), ["audio"]);
  await seesMovement(alice);

  await alice.clicks("#camera");

  await until(bob, () => document.querySelector("#stage").dataset.picture !== undefined);
  await seesMovement(bob);
  await moves(alice, "#mine");
});

test("a call that is accepted with audio only has one picture, until the camera is switched on", async () => {
  const [alice, bob] = await inCall({ accept: "#accept-audio" });

  await seesMovement(bob);
  await receives(alice, "audio", "totalAudioEnergy");
  await alice.sees("#nobody-note", /bob sends no picture/);
  assert.deepEqual(await lights(bob), ["audio"]);

  await bob.clicks("#camera");

  await seesMovement(alice);
});

test("a shared screen takes the camera's place and gives it back", async () => {
  const [alice, bob] = await inCall();
  await seesMovement(bob);
  const camera = await bob.page.$eval("#theirs", ({ videoWidth, videoHeight }) => `${videoWidth}x${videoHeight}`);

  await alice.clicks("#share");

  await alice.sees("#share[data-on]", /Stop/);
  assert.equal(await surface(alice), "monitor");
  await until(bob, (camera) => {
    const { videoWidth, videoHeight } = document.querySelector("#theirs");
    return videoWidth > 0 && `${videoWidth}x${videoHeight}` !== camera;
  }, camera);

  await alice.clicks("#share");

  await alice.sees("#share:not([data-on])", /Share/);
  await until(alice, () => document.querySelector("#mine").srcObject.getVideoTracks().length === 1);
  assert.equal(await surface(alice), undefined);
  await seesMovement(bob);
});

test("text is written beside the picture, and counted while it is out of sight", async () => {
  const [alice, bob] = await inCall();
  await Promise.all([alice.clicks("#chat"), until(alice, () => !document.querySelector("#text").disabled)]);

  await alice.writes("#text", "<i>hello</i> bob");
  await bob.sees("#chat", /Chat/);
  await until(bob, () => document.querySelector("#chat").dataset.unread === "1");
  await bob.clicks("#chat");

  await bob.sees("#log .theirs", /hello.* bob/);
  assert.equal(await bob.page.$eval("#chat", ({ dataset }) => dataset.unread), undefined);
  assert.equal(await bob.page.$("#log i"), null, "words are shown as text");
});

test("a declined call says so, and both cameras stay where they were", async () => {
  const [alice, bob] = await Promise.all([signedIn("alice").then(ready), signedIn("bob").then(ready)]);
  await alice.writes("#to", "bob");

  await bob.clicks("#reject");

  await alice.sees("#call-error", /bob declined/);
  for (const person of [alice, bob]) await moves(person, "#preview");
});

test("hanging up ends camera and microphone; calling again brings both back", async () => {
  const [alice, bob] = await inCall();
  await seesMovement(alice);

  await alice.clicks("#hang-up");

  await bob.sees("#after-reason", /alice hung up/);
  for (const person of [alice, bob]) assert.deepEqual(await lights(person), []);

  await bob.clicks("#again");
  await alice.clicks("#accept");

  await connected(alice, bob);
  for (const person of [alice, bob]) {
    await seesMovement(person);
    await moves(person, "#mine");
  }
});

test("an invitation signs in and calls, with picture", async () => {
  const alice = await ready(await signedIn("alice"));
  const guest = await visit(await alice.page.$eval("#invite", ({ value }) => value));
  await guest.sees("#sign-in-title", /Call alice/);

  await guest.writes("#name", "guest");

  await alice.clicks("#accept");
  await connected(alice, guest);
  await seesMovement(alice);
  await seesMovement(guest);
});

test("a link that names both calls nobody by itself: it takes a press", async () => {
  const alice = await ready(await signedIn("alice"));

  const bob = await ready(await visit(address("name=bob&to=alice")));

  await bob.sees("#lobby-title", /Call someone/);
  assert.equal(await bob.page.$eval("#to", ({ value }) => value), "alice");
  assert.equal(await bob.page.evaluate(() => document.activeElement.id), "call-button");
  assert.equal(await bob.page.evaluate(() => globalThis.connections.length), 0);
  await bob.page.keyboard.press("Enter");
  await alice.clicks("#accept");
  await connected(alice, bob);
  await seesMovement(alice);
});

test("ringing after a call switches nothing on, and who gave up is told of", async () => {
  const [alice, bob] = await inCall();
  await alice.clicks("#hang-up");
  await bob.sees("#after-reason", /alice hung up/);
  await alice.page.evaluate(() => {
    const devices = navigator.mediaDevices;
    const borrow = devices.getUserMedia.bind(devices);
    globalThis.borrowed = 0;
    devices.getUserMedia = (wanted) => ((globalThis.borrowed += 1), borrow(wanted));
  });

  await bob.clicks("#again");
  await alice.sees("#incoming", /bob is calling you/);
  await bob.clicks("#hang-up");

  await alice.sees("#after-reason", /bob called and hung up before you answered/);
  assert.equal(await alice.page.evaluate(() => globalThis.borrowed), 0);
  assert.deepEqual(await lights(alice), []);
});

test("who has neither camera nor microphone is told, and sees, hears and writes all the same", async () => {
  const nothing = await without();
  const [alice, bob] = await Promise.all([signedIn("alice").then(ready), signedIn("bob", { where: nothing })]);
  await bob.sees("#preview-notice", /No microphone and no camera was found\. You can call/);

  await bob.writes("#to", "alice");
  await alice.sees("#incoming-kind", /without camera or microphone/);
  await alice.clicks("#accept");

  await connected(alice, bob);
  await seesMovement(bob);
  await receives(bob, "audio", "totalAudioEnergy");
  await alice.sees("#nobody-note", /bob sends no picture/);
});

test("who refuses the camera is told, and sees all the same", async () => {
  const refusing = await without("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream=deny");
  const [alice, bob] = await Promise.all([signedIn("alice").then(ready), signedIn("bob", { where: refusing })]);
  await bob.sees("#preview-notice", /The browser keeps the microphone and camera from this page/);

  await alice.writes("#to", "bob");
  await bob.clicks("#accept");

  await connected(alice, bob);
  await seesMovement(bob);
});

test("by plain http the page says why there is no camera, and calls all the same", async () => {
  const plain = await without("--host-resolver-rules=MAP plain.example 127.0.0.1");
  const alice = await ready(await signedIn("alice"));
  const bob = await visit(address("name=bob").replace("localhost", "plain.example"), plain);
  await bob.sees("#preview-notice", /By plain http browsers give neither camera nor microphone/);

  await bob.writes("#to", "alice");
  await alice.clicks("#accept");

  await connected(alice, bob);
  await seesMovement(bob);
});

test("sound that the browser holds back is offered by a button", async () => {
  const untouched = await without("--autoplay-policy=document-user-activation-required");
  const alice = await ready(await signedIn("alice"));
  const bob = await visit(address("name=bob&to=alice"), untouched);
  // What puppeteer evaluates counts as a person's touch: look, and press, without it.
  const session = await bob.page.createCDPSession();
  const looks = async (expression) => {
    const { result } = await session.send("Runtime.evaluate", { expression, returnByValue: true });
    return result.value;
  };
  const turns = (expression) => new Promise((resolve, reject) => {
    const deadline = setTimeout(() => reject(new Error(`never true: ${expression}`)), WAIT.timeout);
    const look = async () => {
      if (!(await looks(expression))) return setTimeout(look, WAIT.polling);
      clearTimeout(deadline);
      resolve();
    };
    look().catch(reject);
  });
  await turns("document.activeElement.id === 'call-button'");
  await looks("document.activeElement.click()");
  await alice.clicks("#accept");
  await connected(alice);
  await turns("document.querySelector('#hear').checkVisibility()");
  assert.equal(await looks("document.querySelector('#theirs').paused"), false, "the picture plays meanwhile");

  await bob.page.click("#hear");

  await until(bob, () => !document.querySelector("#theirs").muted && !document.querySelector("#theirs").paused);
  assert.equal(await bob.page.$eval("#hear", ({ hidden }) => hidden), true);
});

test("a file arrives as it was sent, and one that is declined does not", async () => {
  const [alice, bob] = await inCall();
  const content = randomBytes(1_000_003);
  const [first, second] = ["holiday.bin", "later.txt"].map((name) => path.join(directory, name));
  await Promise.all([writeFile(first, content), writeFile(second, "not wanted")]);
  await Promise.all([alice, bob].map((person) => person.clicks("#chat")));
  await until(alice, () => !document.querySelector("#attach").disabled);
  const session = await browser.target().createCDPSession();
  const saved = path.join(directory, "saved");
  await session.send("Browser.setDownloadBehavior", {
    behavior: "allowAndName",
    downloadPath: saved,
    eventsEnabled: true,
    browserContextId: bob.context.id,
  });
  const download = new Promise((resolve) => {
    session.on("Browser.downloadProgress", ({ guid, state }) => state === "completed" && resolve(guid));
  });

  const input = await alice.page.$("#files");
  await input.uploadFile(first, second);
  await bob.sees("#log .file", /holiday\.bin \(1\.0 MB\)/);
  await bob.clicks("#log .file .actions button:first-child");
  await bob.sees("#log .file a[download]", /Save/);
  await bob.clicks("#log .file a[download]");

  assert.ok(content.equals(await readFile(path.join(saved, await download))), "the content is the same");
  await alice.sees("#log .file", /holiday.*Sent/);
  await bob.sees("#log .file", /later\.txt \(10 bytes\)/);
  await bob.clicks("#log .file:last-child .actions button:last-child");
  await alice.sees("#log .file", /later.*declined/);
});

test("an interruption is shown over the picture until it is over", async () => {
  const [alice, bob] = await inCall({ relay: true });
  await seesMovement(alice);

  await server.restart(() => alice.sees(".veil", /Reconnecting/));

  await connected(alice, bob);
  for (const person of [alice, bob]) {
    // Refused attempts while the server was away are the browser's own complaint.
    person.complaints.splice(0, Infinity, ...person.complaints.filter((text) => !/WebSocket connection to .* failed/.test(text)));
    await seesMovement(person);
  }
});

test("a call is made, steered and ended by the keyboard alone", async () => {
  const [alice, bob] = await Promise.all([signedIn("alice").then(ready), signedIn("bob").then(ready)]);
  await alice.page.keyboard.type("bob");
  await alice.page.keyboard.press("Enter");
  await bob.sees("#incoming", /alice/);
  assert.equal(await bob.page.evaluate(() => document.activeElement.id), "to", "ringing takes the keyboard from nobody");
  await reaches(bob, "Accept with video");
  await bob.page.keyboard.press("Enter");
  await connected(alice, bob);

  await alice.page.keyboard.press("m");
  await alice.sees("#mic[data-off]", /Unmute/);
  await alice.page.keyboard.press("v");
  await bob.sees("#nobody-note", /alice sends no picture/);
  await until(alice, () => !document.querySelector("#text").disabled);
  await alice.page.keyboard.press("c");
  await until(alice, () => document.activeElement.id === "text");
  await alice.page.keyboard.type("come, my vet");
  await alice.page.keyboard.press("Enter");
  await bob.page.keyboard.press("c");
  await bob.sees("#log .theirs", /come, my vet/);
  await alice.sees("#mic[data-off]", /Unmute/);
  await alice.page.keyboard.press("Escape");
  await reaches(alice, "Hang up");
  await alice.page.keyboard.press("Enter");

  await bob.sees("#after-reason", /alice hung up/);
});

test("devices are chosen by name, and another camera takes over without a new call", async () => {
  // The second of Chromium's fakes gives depth, which nothing can encode: the fourth is another camera.
  const many = await without("--use-fake-device-for-media-stream=device-count=4", "--use-fake-ui-for-media-stream");
  const [alice, bob] = await Promise.all([signedIn("alice", { where: many }).then(ready), signedIn("bob").then(ready)]);
  await alice.writes("#to", "bob");
  await bob.clicks("#accept");
  await connected(alice, bob);
  await seesMovement(bob);
  const camera = () => alice.page.$eval("#mine", ({ srcObject }) => srcObject.getVideoTracks()[0]?.label);
  const before = await camera();

  await alice.clicks("#call [data-do=devices]");
  await until(alice, () => document.querySelector("#videoinput").options.length === 4);
  const other = await alice.page.$eval("#videoinput option:last-child", ({ value }) => value);
  await alice.page.select("#videoinput", other);

  await until(alice, (before) => {
    const label = document.querySelector("#mine").srcObject.getVideoTracks()[0]?.label;
    return label !== undefined && label !== before;
  }, before);
  await seesMovement(bob);
  assert.equal(await bob.page.evaluate(() => globalThis.connections.length), 1, "it is the same call");
});
