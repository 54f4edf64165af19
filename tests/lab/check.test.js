// The network check in each of the laboratory's networks: what it says is what was set up.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Browsers } from "./browser.js";
import { KINDS, PAIRS } from "./net-home.js";
import { Lab } from "./net.js";

/** Each way has its 12 s, again for data once granted, and they are tried side by side; a machine may be busy. */
const CHECK_MS = 90_000;

let lab;
let browsers;

before(async () => {
  lab = await Lab.open({ delay: 30, loss: 0 });
  browsers = new Browsers(lab);
});

after(async () => {
  await browsers?.close();
  await lab?.close();
});

// Most of a check is waiting for what does not come.
describe("the network check tells the truth", { concurrency: 4 }, () => {
  for (const [kind, { expected }] of Object.entries({ ...KINDS, ...PAIRS })) {
    test(`${kind}: ${verdict(kind, expected)}`, () => compare(kind, expected, { camera: false }));

    // Browsers hide the machine's own addresses from whoever may not use its camera.
    if (expected.nat !== "none") continue;
    test(`${kind}, its own addresses in sight: no NAT`, () => compare(kind, expected, { camera: true }));
  }
});

async function compare(kind, expected, { camera }) {
  const host = Object.hasOwn(PAIRS, kind) ? (await lab.pair(kind))[0] : await lab.host(kind, "a");
  const browser = await browsers.on(host);
  const person = await browser.visit(`${lab.server.origin}/check`, { camera });
  try {
    let [found, text] = await finding(person);
    // Where packets are lost a way may take too long once; the page has a button for that.
    for (let more = 2; kind === "lossy" && more > 0 && carrying(found).length < 3; more -= 1) {
      await person.clicks("#again");
      [found, text] = await finding(person);
    }

    assert.equal(found.verdict, verdict(kind, expected), text);
    assert.deepEqual({ v4: found.nat.v4, v6: found.nat.v6 }, nat(expected, camera), text);
    assert.deepEqual(carrying(found), relays(kind, expected), text);
    assert.equal(found.nat.hidden, !camera, text);
  } finally {
    await browser.leave(person);
  }
}

/** What the report says, by its part for programs and as a whole, once the check is through. */
async function finding({ page }) {
  await page.waitForSelector("#main:not([data-verdict=checking])", { timeout: CHECK_MS });
  const text = await page.$eval("#report", ({ textContent }) => textContent);
  return [JSON.parse(text.split("```json\n")[1].split("\n```")[0]), text];
}

/** The code of the verdict that is true of a network. */
function verdict(kind, { udp, nat }) {
  if (udp) return nat === "symmetric" ? "relay-udp" : "direct";
  return `relay-${relays(kind, { udp })[0]}`;
}

/** What a page can tell of a network's NAT: not whom it lets in, and only beside the machine's addresses that there is none. */
function nat({ udp, nat, v4, v6 }, seesAddresses) {
  const none = seesAddresses ? "none" : "alike";
  const told = { none, cone: "alike", restricted: "alike", symmetric: "differs" }[nat];
  return { v4: udp && v4 ? told : "silent", v6: udp && v6 ? none : "silent" };
}

/** The ways to the relay that are open, the best one first. */
function relays(kind, { udp }) {
  return ["udp", "tcp", "tls"].filter((way) => way === "tls" || (way === "tcp" ? kind !== "only-443" : udp));
}

function carrying({ lines }) {
  return lines.filter(({ id, state }) => id.startsWith("relay-") && state !== "bad").map(({ id }) => id.replace("relay-", ""));
}
