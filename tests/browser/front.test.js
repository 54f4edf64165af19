// The front page in real Chromium: its links lead somewhere, and what it hands out to copy works as it stands.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { launch, open } from "./pages.js";
import { Server } from "./server.js";

let server;
let browser;
let people = [];

before(async () => {
  browser = await launch("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream");
});

after(() => browser?.close());

// Each its own: the server keeps the place of a page that went without a word, and so its name, for half a minute.
beforeEach(async () => (server = await Server.start()));

afterEach(async () => {
  const complaints = people.flatMap(({ complaints }) => complaints);
  await Promise.all(people.map(({ context }) => context.close()));
  people = [];
  await server.stop();
  assert.deepEqual(complaints, [], "a page complained");
});

const http = (path) => `http://localhost:${server.ports.http}${path}`;

async function visit(url) {
  const person = await open(browser, "about:blank");
  people.push(person);
  Object.assign(person, { said: [], told: () => {} });
  person.page.on("console", (message) => {
    person.said.push(message.text());
    person.told();
  });
  await person.page.goto(url);
  return person;
}

/** What the front page has to copy, by its id. */
async function snippet(id) {
  const front = await visit(http("/"));
  return front.page.$eval(`#snippet-${id}`, ({ textContent }) => textContent);
}

/** Serves pages of somebody else's, and visits one for each text of HTML. */
async function elsewhere(t, ...texts) {
  const site = createServer((request, response) => {
    response.setHeader("content-type", "text/html; charset=utf-8");
    response.end(`<!doctype html><title>t</title><link rel="icon" href="data:,"><body>${texts[Number(request.url.slice(1))]}`);
  });
  site.listen(0, "127.0.0.1");
  await once(site, "listening");
  t.after(() => {
    site.closeAllConnections();
    site.close();
  });
  const visited = [];
  for (const n of texts.keys()) visited.push(await visit(`http://localhost:${site.address().port}/${n}`));
  return visited;
}

/** Waits until a page has written that to its console. */
function says(person, text) {
  return new Promise((resolve, reject) => {
    const heard = () => person.said.includes(text) && resolve();
    const silent = () => reject(new Error(`never said ${JSON.stringify(text)}, but ${JSON.stringify(person.said)}`));
    person.told = heard;
    AbortSignal.timeout(20_000).addEventListener("abort", silent);
    heard();
  });
}

/** A page that says when its script has come to its end. */
const telling = (page) => page.replace(/(?=<\/script>$)/, 'console.log("ready");\n');

/** Waits until two pictures of a video differ. */
const moves = ({ page }, selector) =>
  page.waitForFunction(
    (selector) => {
      const video = document.querySelector(selector);
      if (!video?.videoWidth) return false;
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [64, 36];
      canvas.getContext("2d").drawImage(video, 0, 0, 64, 36);
      const picture = canvas.toDataURL();
      const moved = globalThis.earlier !== undefined && globalThis.earlier !== picture;
      globalThis.earlier = picture;
      return moved;
    },
    { timeout: 20_000, polling: 100 },
    selector,
  );

test("every link leads to a page of this server, or to a place on the same page", async () => {
  const front = await visit(http("/"));
  const links = await front.page.$$eval("a", (all) => all.map(({ href }) => href));

  for (const path of ["/chat", "/call", "/room", "/check"]) assert.ok(links.includes(http(path)), `no link to ${path}`);
  for (const link of new Set(links)) {
    const { status } = await fetch(link);
    assert.equal(status, 200, link);
    const { hash } = new URL(link);
    if (hash) assert.ok(await front.page.$(hash), `nothing is called ${hash}`);
  }
});

for (const [protocol, socket, secure] of [["http", "ws", false], ["https", "wss", true]]) {
  test(`the snippets carry the addresses of the ${protocol} server they came from`, async () => {
    const port = server.ports[protocol];
    const front = await visit(`${protocol}://localhost:${port}/`);
    await front.sees("#others h2", /Clients/);
    const texts = await front.page.$$eval("code[id]", (all) => all.map(({ textContent }) => textContent).join("\n"));

    for (const path of ["/throughway.js", "/ice", "/socket.io/socket.io.js"]) {
      assert.ok(texts.includes(`"${protocol}://localhost:${port}${path}"`), path);
    }
    for (const path of ["/ws", "/pubsub", "/signaling"]) assert.ok(texts.includes(`"${socket}://localhost:${port}${path}"`), path);
    assert.match(texts, new RegExp(`host: "localhost",\\s+port: ${port},\\s+secure: ${secure},`));
    assert.doesNotMatch(texts, /your-server/);
  });
}

test("a client whose gateway is off is not offered", async () => {
  const other = await Server.start({ more: "[signaling.gateways]\npeerjs = false\npubsub = false\n" });
  try {
    const front = await visit(`http://localhost:${other.ports.http}/`);
    await front.sees("#others h2", /Clients/);

    const offered = await front.page.$$eval("[data-gateway]:not([hidden])", (all) => all.map(({ dataset }) => dataset.gateway));

    assert.deepEqual(offered, ["socketio", "ayame"]);
  } finally {
    await other.stop();
  }
});

test("the front page tells nothing of who is here", async () => {
  const alice = await visit(http("/chat?name=quite-a-name"));
  await alice.sees("#status", /Signed in as quite-a-name/);

  const front = await visit(http("/"));
  await front.sees("#others h2", /Clients/);

  assert.doesNotMatch(await front.page.content(), /quite-a-name/);
});

test("a snippet is copied by its button", async () => {
  const front = await visit(http("/"));
  await front.context.overridePermissions(new URL(http("/")).origin, ["clipboard-read", "clipboard-sanitized-write"]);
  await front.page.bringToFront();

  await front.clicks('[data-copy="snippet-get-ice"]');

  await front.sees('[data-copy="snippet-get-ice"]', /Copied/);
  assert.match(await front.page.evaluate(() => navigator.clipboard.readText()), /^const response = await fetch\("http:/);
});

test("the snippet of a call is a whole page that calls another one, with words and moving pictures", async (t) => {
  const called = await snippet("module");
  const calling = called.replace('"carol"', '"dave"').replace('// talk(signal.call("dave"', 'talk(signal.call("carol"');

  const [carol] = await elsewhere(t, telling(called));
  await says(carol, "ready");
  const [dave] = await elsewhere(t, calling);

  await says(carol, "dave hello");
  await says(dave, "carol hello");
  for (const person of [carol, dave]) await moves(person, "#far");
});

test("the snippet of a room is a whole page that meets others, with words and moving pictures", async (t) => {
  const first = await snippet("room");
  const second = first
    .replace('"carol"', '"dave"')
    .replace("// room.send(", 'room.calls.get("carol").addEventListener("open", () => room.send(')
    .replace('everybody");', 'everybody"));');

  const [carol] = await elsewhere(t, telling(first));
  await says(carol, "ready");
  const [dave] = await elsewhere(t, second);

  await says(carol, "dave came");
  await says(carol, "dave hello everybody");
  await moves(carol, "#dave");
  await moves(dave, "#carol");
  await dave.page.goto("about:blank");
  await carol.page.waitForFunction(() => !document.getElementById("dave"), { timeout: 20_000, polling: 50 });
});

for (const id of ["get-ice", "ice"]) {
  test(`the snippet ${id} gives a connection that gathers a relayed candidate`, async (t) => {
    const code = await snippet(id);
    const script = `<script type="module">const start = () => {};\n${code}</script>`;
    const [page] = await elsewhere(t, script);

    await page.page.waitForFunction(() => globalThis.connections.length === 1, { timeout: 20_000, polling: 50 });
    const candidate = await page.page.evaluate(
      () =>
        new Promise((resolve) => {
          const [connection] = globalThis.connections;
          connection.createDataChannel("any");
          connection.onicecandidate = ({ candidate }) => candidate?.type === "relay" && resolve(candidate.type);
          void connection.setLocalDescription();
        }),
    );

    assert.equal(candidate, "relay");
  });
}

test("two pages made of the snippet for Socket.IO hear each other", async (t) => {
  const code = await snippet("socketio");

  const [one, other] = await elsewhere(t, code, code);

  await says(one, "hello");
  await says(other, "hello");
});

const read = (path) => readFileSync(new URL(`../../static/${path}`, import.meta.url), "utf8");
const blocks = (language) => [...read("README.md").matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, "gms"))].map(([, code]) => code);

test("every example of the module's README is a module that parses, and uses nothing that the module lacks", () => {
  const constants = [...read("throughway.js").matchAll(/^const ([A-Z]+) = (".*");$/gm)];
  const module = constants.reduce((text, [, name, value]) => text.replaceAll(name, value), read("throughway.js"));
  const examples = blocks("js");

  assert.ok(examples.length >= 7, `${examples.length} examples`);
  for (const code of examples) {
    const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "--check"], { input: code });
    assert.equal(status, 0, `${code}\n${stderr}`);
    for (const [, member] of code.matchAll(/\b(?:signal|call|room|incoming|Signal)\.(\w+)/g)) {
      const isOurs = new RegExp(`^  (?:static |async |get )*${member}\\b|\\bthis\\.${member}\\b`, "m").test(module);
      assert.ok(isOurs || member in EventTarget.prototype, `the module has no ${member}`);
    }
    for (const [, type] of code.matchAll(/addEventListener\("(\w+)"/g)) {
      assert.match(module, new RegExp(`(?:\\[emit\\]|super)\\("${type}"`), `the module has no event ${type}`);
    }
  }
});

test("the module's README lists every code of an error that the module makes", () => {
  const module = read("throughway.js");
  const [, table] = read("README.md").match(/^### Errors\n(.*?)^###/ms);
  const listed = [...table.matchAll(/`([a-z]+(?:-[a-z0-9]+)*)`/g)].map(([, code]) => code);

  for (const [, code] of module.matchAll(/(?:new ThroughwayError|\[end\]|finish|giveUp)\("([a-z-]+)"/g)) {
    assert.ok(listed.includes(code), `${code} is not listed`);
  }
});

test("the whole page of the module's README is called and hears", async (t) => {
  const [page] = blocks("html").map((code) => code.replace("https://calls.example.org", http("")).trim());
  const [carol] = await elsewhere(t, telling(page));
  await says(carol, "ready");

  const dave = await visit(http("/chat?name=dave&to=carol"));
  await dave.sees("#log .theirs", /hello/);
  await dave.writes("#text", "hello carol");

  await says(carol, "dave hello carol");
});
