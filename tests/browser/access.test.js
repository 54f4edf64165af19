// Every page by keyboard and by screen reader, in real Chromium: what can be operated has a name, can be reached, and shows
// where the keyboard is.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { launch, open } from "./pages.js";
import { Server } from "./server.js";

const OPERABLE = ["button", "checkbox", "combobox", "link", "searchbox", "slider", "spinbutton", "textbox", "Video"];
/** More stops than any page has. */
const MAX_STOPS = 80;
const [DESKTOP, PHONE] = [{ width: 1280, height: 800 }, { width: 390, height: 844 }];

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

async function visit(path, selector = "h1") {
  const person = await open(browser, "about:blank");
  people.push(person);
  await person.page.setViewport(DESKTOP);
  await person.page.goto(`http://localhost:${server.ports.http}${path}`);
  await person.sees(selector, /(?:)/);
  return person;
}

/** By names of its own: the server keeps those of pages that went without a word for half a minute. */
async function calling(page, callee, caller) {
  const one = await visit(`${page}?name=${callee}`, "#lobby-title");
  const other = await visit(`${page}?name=${caller}`, "#lobby-title");
  await other.writes("#to", callee);
  await one.clicks("#accept");
  for (const person of [one, other]) await person.sees("#text:not(:disabled)", /(?:)/);
  return one;
}

async function checked() {
  const person = await visit("/check");
  await person.sees("#main:not([data-verdict=checking])", /(?:)/);
  return person;
}

const PLACES = {
  "the front page": () => visit("/"),
  "the chat's form": () => visit("/chat", "#name"),
  "the call's form": () => visit("/call", "#name"),
  "the room's form": () => visit("/room", "#name"),
  "the chat's lobby": () => visit("/chat?name=chatter", "#lobby-title"),
  "the call's lobby": () => visit("/call?name=caller", "#lobby-title"),
  "a chat": () => calling("/chat", "alice", "bob"),
  "a call": () => calling("/call", "carol", "dave"),
  "a room": () => visit("/room?name=standup&as=member", "#room-title"),
  "the network check": () => checked(),
};

/** All of a tree's nodes that a person operates. */
function operable(node) {
  const found = (node.children ?? []).flatMap(operable);
  return OPERABLE.includes(node.role) ? [node, ...found] : found;
}

/** Where the keyboard comes by, in order: what it is, and whether it can be seen that it is there. */
async function walk({ page }) {
  const stops = [];
  for (let count = 0; count < MAX_STOPS; count += 1) {
    await page.keyboard.press("Tab");
    const stop = await page.evaluate(() => {
      const element = document.activeElement;
      if (!element || element === document.body) return undefined;
      const isAgain = element.dataset.walked !== undefined;
      element.dataset.walked = "";
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      const { width, height } = element.getBoundingClientRect();
      return {
        isAgain,
        what: element.outerHTML.slice(0, 120),
        isShown: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 && width > 0 && height > 0,
      };
    });
    // Behind the last one comes the page itself, and then the first one.
    if (stop?.isAgain) return stops;
    if (stop) stops.push(stop);
  }
  return stops;
}

/** In the page: what is there to operate by pointer, and the keyboard has not come by. */
function missed() {
  const all = document.querySelectorAll("a[href], button, input, textarea, select, summary");
  const isThere = (element) => element.checkVisibility({ visibilityProperty: true }) && !element.disabled;
  return [...all]
    .filter((element) => isThere(element) && element.dataset.walked === undefined)
    .map(({ outerHTML }) => outerHTML.slice(0, 120));
}

/** In the page: what sticks out at the side, and what is too small for a thumb. */
function clumsy() {
  const small = [...document.querySelectorAll("button, input:not([type=checkbox]), textarea, select, .nav a, .button")]
    .filter((element) => element.checkVisibility({ visibilityProperty: true }))
    .filter((element) => element.getBoundingClientRect().height < 43.5 && !element.matches(".hidden, .skip"))
    .map(({ outerHTML }) => outerHTML.slice(0, 120));
  const { scrollWidth, clientWidth } = document.documentElement;
  return { small, over: Math.max(0, scrollWidth - clientWidth) };
}

for (const [place, visiting] of Object.entries(PLACES)) {
  test(`${place} can be operated by name and by keyboard, and by thumb`, async () => {
    const person = await visiting();

    const tree = await person.page.accessibility.snapshot({ interestingOnly: false });
    const named = operable(tree);
    assert.ok(named.length >= 5, `${named.length} to operate`);
    assert.deepEqual(named.filter(({ name }) => !name?.trim()), []);

    await person.page.bringToFront();
    const stops = await walk(person);
    assert.deepEqual(stops.filter(({ isShown }) => !isShown), []);
    assert.deepEqual(await person.page.evaluate(missed), []);

    await person.page.setViewport(PHONE);
    assert.deepEqual(await person.page.evaluate(clumsy), { small: [], over: 0 });
  });
}

test("every page leads to every other, says which it is, and leaves a call alone", async () => {
  for (const path of ["/", "/chat", "/call", "/room", "/check"]) {
    const { page } = await visit(path);
    const links = await page.$$eval(".nav a", (all) => all.map((link) => [new URL(link.href).pathname, link.ariaCurrent]));

    assert.deepEqual(
      links,
      ["/chat", "/call", "/room", "/check"].map((other) => [other, other === path ? "page" : null]),
    );
  }
  const { page } = await calling("/chat", "erin", "frank");
  assert.equal(await page.$eval(".nav", (nav) => nav.checkVisibility()), false);
});
