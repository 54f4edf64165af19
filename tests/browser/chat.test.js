// The real pages of the real server in real Chromium.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, afterEach, before, test } from "node:test";
import { launch, open } from "./pages.js";
import { Server } from "./server.js";

let server;
let browser;
let people = [];

before(async () => {
  server = await Server.start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

afterEach(async () => {
  const complaints = people.flatMap(({ complaints }) => complaints);
  await Promise.all(people.map((person) => person.leaves()));
  people = [];
  assert.deepEqual(complaints, [], "a page complained");
});

const http = (path) => `http://localhost:${server.ports.http}${path}`;

async function visit(url) {
  const person = await open(browser, url);
  people.push(person);
  return person;
}

async function signedIn(name, { relay = true } = {}) {
  const person = await visit(http(`/chat?name=${name}${relay ? "&relay=1" : ""}`));
  await person.sees("#status", new RegExp(`Signed in as ${name}`));
  return person;
}

async function calls(caller, name) {
  await caller.writes("#to", name);
}

async function talks(from, to, text) {
  await from.writes("#text", text);
  await to.sees("#log .theirs", new RegExp(text));
}

/** Drops a text file of this size on the log, once files can be sent. */
async function dropsFile(person, bytes) {
  await person.sees("#attach:not(:disabled)", /(?:)/);
  await person.page.$eval(
    "#log",
    (log, bytes) => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File(["a".repeat(bytes)], "notes.txt", { type: "text/plain" }));
      log.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    },
    bytes,
  );
}

async function inCall(options) {
  const [alice, bob] = await Promise.all([signedIn("alice", options), signedIn("bob", options)]);
  await calls(alice, "bob");
  await bob.sees("#incoming", /alice is calling you/);
  await bob.clicks("#accept");
  await Promise.all([alice, bob].map((person) => person.sees("#call-state", /Connected/)));
  return [alice, bob];
}

test("two pages that keep to the relay exchange text both ways, and both see relay on both sides", async () => {
  const [alice, bob] = await inCall();

  await talks(alice, bob, "hello bob");
  await talks(bob, alice, "<b>hello</b> alice");

  for (const person of [alice, bob]) {
    assert.deepEqual(await person.path(), ["relay", "relay"]);
    // Whichever was there first: the called side of Chromium stays with it as long as nobody talks.
    await person.sees("#path", /^relayed over (UDP|TCP)/);
  }
  assert.equal(await alice.page.$("#log b"), null, "words are shown as text");
});

test("two pages that may connect directly exchange text", async () => {
  const [alice, bob] = await inCall({ relay: false });

  await talks(alice, bob, "hello bob");

  await alice.sees("#path", /^(direct|relayed)/);
});

test("after hanging up, either side calls again", async () => {
  const [alice, bob] = await inCall();
  await bob.clicks("#hang-up");
  await bob.sees("#after-reason", /You hung up/);
  await alice.sees("#after-reason", /bob hung up/);

  await alice.clicks("#again");
  await bob.clicks("#accept");
  await talks(bob, alice, "here again");

  await alice.clicks("#hang-up");
  await bob.clicks("#again");
  await alice.clicks("#accept");
  await talks(alice, bob, "and once more");
});

test("a declined call says so and can be tried again", async () => {
  const [alice, bob] = await Promise.all([signedIn("alice"), signedIn("bob")]);
  await calls(alice, "bob");

  await bob.clicks("#reject");

  await alice.sees("#call-error", /bob declined/);
  await alice.clicks("#call-button");
  await bob.sees("#incoming", /alice is calling you/);
});

test("a caller who gives up takes the ringing along", async () => {
  const [alice, bob] = await Promise.all([signedIn("alice"), signedIn("bob")]);
  await calls(alice, "bob");
  await bob.sees("#incoming", /alice/);

  await alice.clicks("#hang-up");

  await bob.sees("#call-error", /alice called and hung up/);
  assert.equal(await bob.page.$eval("#incoming", (banner) => banner.hidden), true);
});

test("calls that cross each other become one call", async () => {
  const [alice, bob] = await Promise.all([signedIn("alice"), signedIn("bob")]);
  await Promise.all([alice.page.type("#to", "bob"), bob.page.type("#to", "alice")]);

  await Promise.all([alice, bob].map(({ page }) => page.$eval("#call-form", (form) => form.requestSubmit())));

  // Whichever of the two rang first, somebody may have to accept.
  for (const person of [alice, bob]) {
    await person.sees("#call-name, #accept", /(?:)/);
    if (await person.page.$("#incoming:not([hidden])")) await person.clicks("#accept");
  }
  await talks(alice, bob, "from alice");
  await talks(bob, alice, "from bob");
});

test("calling someone who is not here says so", async () => {
  const alice = await signedIn("alice");

  await calls(alice, "nobody");

  await alice.sees("#call-error", /No member called nobody is here/);
});

test("a name that is taken is said to be taken, and another one works", async () => {
  await signedIn("alice");
  const other = await visit(http("/chat?name=alice"));

  await other.sees("#sign-in-error", /The name alice is taken/);

  await other.writes("#name", "alice2");
  await other.sees("#status", /Signed in as alice2/);
});

test("an invitation signs in and calls", async () => {
  const alice = await signedIn("alice");
  const link = await alice.page.$eval("#invite", ({ value }) => value);
  const guest = await visit(link);

  await guest.writes("#name", "guest");

  await alice.sees("#incoming", /guest is calling you/);
  await guest.clicks("#sign-out");
  await guest.sees("#sign-in-title", /^Chat$/);
  await guest.sees("#sign-in-button", /^Sign in$/);
});

test("a server with accounts lets in by a token, which leaves the address and is in no invitation", async () => {
  const other = await Server.start({ more: '[signaling.accounts]\nmode = "token"\ntoken = "opensesameopensesame"\n' });
  try {
    const at = (query) => `http://localhost:${other.ports.http}/chat?${query}`;
    const stranger = await visit(at("name=alice"));
    await stranger.sees("#sign-in-error", /did not accept this sign-in/);
    const alice = await visit(at("name=alice&token=opensesameopensesame"));

    await alice.sees("#status", /Signed in as alice/);

    assert.equal(alice.page.url(), at("name=alice"));
    assert.equal(await alice.page.$eval("#invite", ({ value }) => value), at("to=alice"));
    await alice.page.reload();
    await alice.sees("#status", /Signed in as alice/);
    await Promise.all([stranger, alice].map(({ page }) => page.goto("about:blank")));
  } finally {
    await other.stop();
  }
});

test("a page whose partner vanishes is told", async () => {
  const [alice, bob] = await inCall();

  await bob.page.goto("about:blank");

  await alice.sees("#after-reason", /bob hung up/);
});

test("a member who is in a call is not disturbed by a third", async () => {
  const [alice, bob] = await inCall();
  const carol = await signedIn("carol");

  await calls(carol, "alice");

  await carol.sees("#call-error", /alice declined/);
  await talks(alice, bob, "still here");
  await carol.clicks("#call-button");
  await alice.sees("#log .event", /^carol called meanwhile and was declined \(2 times\)$/);
  assert.equal(await alice.page.$$eval("#log [data-caller]", ({ length }) => length), 1);
});

test("a full log keeps what was said and lets go of what happened", async () => {
  const [alice, bob] = await inCall();
  await talks(alice, bob, "do not lose this");

  await bob.page.evaluate(async () => {
    const { say } = await import("/lobby.js");
    for (let n = 0; n < 600; n += 1) say(`somebody came and went ${n}`);
  });

  assert.equal(await bob.page.$eval("#log", ({ childElementCount }) => childElementCount), 500);
  await bob.sees("#log .theirs", /do not lose this/);
  await bob.sees("#log .event", /came and went 599/);
});

test("a message beyond 16 KiB is refused and stays in the field", async () => {
  const [alice] = await inCall();
  await alice.page.$eval("#text", (field) => (field.value = "x".repeat(16 * 1024 + 1)));

  await alice.page.focus("#text");
  await alice.page.keyboard.press("Enter");

  await alice.sees("#text-error", /16 KiB at most/);
  assert.equal(await alice.page.$eval("#text", ({ value }) => value.length), 16 * 1024 + 1);
});

test("whoever calls with a picture is said to, and that here it is words", async () => {
  const alice = await signedIn("alice");
  const bob = await visit(http("/chat?name=bob"));
  await bob.page.evaluate(async () => {
    const { Signal } = await import("/throughway.js");
    const signal = await Signal.connect({ name: "painter" });
    const media = Object.assign(document.createElement("canvas"), { width: 64, height: 36 });
    media.getContext("2d").fillRect(0, 0, 9, 9);
    signal.call("alice", { media: media.captureStream(5) }).addEventListener("message", ({ text }) => (document.title = text));
  });

  await alice.sees("#incoming", /painter is calling you with voice or video. This page takes words and files/);
  await alice.clicks("#accept");
  await alice.writes("#text:not(:disabled)", "words will do");

  await bob.page.waitForFunction(() => document.title === "words will do", { timeout: 20_000, polling: 50 });
});

test("whoever has no WebRTC, or gets a list that this browser can't read, is signed in all the same", async () => {
  const person = await visit(http("/chat"));
  await person.page.evaluate(() => {
    globalThis.RTCPeerConnection = class {
      constructor() {
        throw new SyntaxError("not a valid URL");
      }
    };
  });

  await person.writes("#name", "carol");

  await person.sees("#status", /Signed in as carol/);
  await person.sees("#lobby", /(?:)/);
  assert.equal(await person.page.$eval("#lobby", ({ hidden }) => hidden), false);
});

test("a file that is dropped on the chat is offered, accepted and kept for saving", async () => {
  const [alice, bob] = await inCall();

  await dropsFile(alice, 70_000);
  await alice.sees("#log .file", /notes\.txt \(70 kB\)Waiting for bob to accept/);
  await bob.sees("#log .file", /notes\.txt \(70 kB\)/);
  await bob.clicks("#log .file button:first-child");

  await bob.sees("#log .file a[download='notes.txt']", /Save/);
  await alice.sees("#log .file", /Sent/);
});

test("a file that was declined stays so when the call ends, and the keyboard stays where it was", async () => {
  const [alice, bob] = await inCall();
  await dropsFile(alice, 1);
  await bob.sees("#log .file button:last-child", /Decline/);

  await bob.page.focus("#log .file button:last-child");
  await bob.page.keyboard.press("Enter");
  await bob.sees("#log .file [role=status]", /^Declined$/);
  assert.equal(await bob.page.evaluate(() => document.activeElement.id), "log");
  await alice.clicks("#hang-up");

  await bob.sees("#after-reason", /alice hung up/);
  await bob.sees("#log .file [role=status]", /^Declined$/);
});

test("a file that its sender takes back is not sent", async () => {
  const [alice, bob] = await inCall();
  await dropsFile(alice, 1);
  await bob.sees("#log .file", /notes\.txt \(1 byte\)/);

  await alice.clicks("#log .file button");
  await alice.sees("#log .file", /Canceled/);

  await bob.sees("#log .file", /The file was canceled/);
  assert.equal(await bob.page.$("#log .file button"), null, "there is nothing left to accept");
});

test("the first page loads, fills in its own addresses and tells nothing of who is here", async () => {
  await signedIn("alice");
  const visitor = await visit(http("/"));

  await visitor.sees("#snippet-module", new RegExp(`http://localhost:${server.ports.http}/throughway.js`));
  await visitor.sees("#snippet-ice", new RegExp(`ws://localhost:${server.ports.http}/ws`));
});

test("the https page signs in over wss under a strict content security policy", async () => {
  const dora = await visit(`https://localhost:${server.ports.https}/chat?name=dora`);

  await dora.sees("#status", /Signed in as dora/);
  const policy = dora.response.headers()["content-security-policy"];
  assert.match(policy, /default-src 'none'|default-src 'self'/);
  assert.doesNotMatch(policy, /unsafe-inline|unsafe-eval/);
});

test("a page of another origin imports the module and signs in", async () => {
  const page = `<!doctype html><title>foreign</title><link rel="icon" href="data:,"><p id="out"></p><script type="module">
    import { Signal } from "${http("/throughway.js")}";
    const signal = await Signal.connect({ name: "carol" });
    document.getElementById("out").textContent = signal.name + " " + signal.iceServers.length;
  </script>`;
  const foreign = createServer((_, response) => response.setHeader("content-type", "text/html").end(page));
  foreign.listen(0, "127.0.0.1");
  await once(foreign, "listening");

  try {
    const carol = await visit(`http://localhost:${foreign.address().port}/`);
    await carol.sees("#out", /^carol 2$/);
  } finally {
    foreign.closeAllConnections();
    foreign.close();
  }
});

test("after a restart of the server both pages sign in again and their call comes back", async () => {
  const [alice, bob] = await inCall();
  await talks(alice, bob, "before");

  await server.restart(() => alice.sees("#status", /Reconnecting/));

  for (const person of [alice, bob]) await person.sees("#status", /Signed in as/);
  for (const person of [alice, bob]) {
    // Refused attempts while the server was away are the browser's own complaint.
    person.complaints.splice(0, Infinity, ...person.complaints.filter((text) => !/WebSocket connection to .* failed/.test(text)));
  }
  await talks(alice, bob, "after");
});
