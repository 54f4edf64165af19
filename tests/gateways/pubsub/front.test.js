// What the front page has to copy for clients of others, with their packages from npm, in real Chromium.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { launch, open } from "../../browser/pages.js";
import { Server } from "../../browser/server.js";

// On a busy machine the first try may fail, and Trystero takes 23 s to try again.
const WAIT = { timeout: 150_000, polling: 50 };

let server;
let browser;
let people = [];

before(async () => {
  server = await Server.start();
  browser = await launch("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream");
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

afterEach(async () => {
  await Promise.all(people.map(({ context }) => context.close()));
  people = [];
});

/** A page that has run the front page's snippet with packages of that directory, as `change` makes it. */
async function runs(id, directory, change = (code) => code) {
  const person = await open(browser, `http://localhost:${server.ports.http}/`);
  people.push(person);
  const snippet = await person.page.$eval(`#snippet-${id}`, ({ textContent }) => textContent);
  const { outputFiles } = await build({
    stdin: { contents: change(snippet), resolveDir: fileURLToPath(new URL(`../${directory}`, import.meta.url)) },
    bundle: true,
    format: "esm",
    define: { "process.env.NODE_ENV": '"production"', global: "globalThis" },
    write: false,
  });
  await person.page.evaluate(`
    document.body.append(Object.assign(document.createElement("video"), { autoplay: true, muted: true }));
    globalThis.said = [];
    console.log = (...words) => said.push(words.join(" "));
    (async () => { ${outputFiles[0].text} })()`);
  return person;
}

const until = ({ page, complaints }, condition, ...rest) =>
  page.waitForFunction(condition, WAIT, ...rest).catch(() => assert.fail(`it never was so\n${complaints.join("\n")}`));
const says = (person, pattern) =>
  until(person, (source) => globalThis.said.some((text) => new RegExp(source).test(text)), pattern.source);

test("the snippet for PeerJS has one page call another", async () => {
  const called = await runs("peerjs", "peerjs", (code) => `${code}\npeer.on("open", () => console.log("ready"));`);
  await says(called, /^ready$/);

  const calling = (code) => code.replace('"carol"', '"dave"').replaceAll("// ", "").replace('connect("dave")', 'connect("carol")');
  await runs("peerjs", "peerjs", calling);

  await says(called, /^hello$/);
});

test("the snippet for y-webrtc makes one document of two", async () => {
  const exposed = (code) => `${code}\nglobalThis.text = doc.getText("text");`;
  const [one, other] = [await runs("y-webrtc", "pubsub", exposed), await runs("y-webrtc", "pubsub", exposed)];

  await one.page.evaluate(() => globalThis.text.insert(0, "hello"));

  await until(other, () => globalThis.text.toString() === "hello");
});

test("two pages made of the snippet for Trystero meet", async () => {
  const [one, other] = [await runs("trystero", "pubsub"), await runs("trystero", "pubsub")];

  for (const person of [one, other]) await says(person, / came$/);
});

test("two pages made of the snippet for Ayame see each other", async () => {
  const [one, other] = [await runs("ayame", "ayame"), await runs("ayame", "ayame")];

  for (const person of [one, other]) await until(person, () => document.querySelector("video").videoWidth > 0);
});
