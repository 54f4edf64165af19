// What happens to a call after it is connected: networks change, the server restarts, credentials run out, lids are closed.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { Browsers } from "./browser.js";
import { Meeting } from "./cell.js";
import { Lab } from "./net.js";

const FULL = process.env.THROUGHWAY_LAB_FULL === "1";
const LONG = FULL ? false : "it takes minutes, and is run with THROUGHWAY_LAB_FULL=1";

const RELAYED_BACK_MS = 10_000;

let lab;
let browsers;
let meetings = [];

before(async () => {
  lab = await Lab.open({ delay: 30, loss: 0 });
  browsers = new Browsers(lab);
});

after(async () => {
  await browsers?.close();
  await lab?.close();
});

afterEach(async () => {
  await Promise.all(meetings.map((meeting) => meeting.close()));
  meetings = [];
});

/** A call between a host of the first kind, who calls, and one of the second, connected. */
async function inCall([caller, callee], media = "video") {
  const hosts = await Promise.all([lab.host(caller, "a"), lab.host(callee, "b")]);
  const meeting = await Meeting.open(lab, browsers, hosts, media);
  meetings.push(meeting);
  try {
    await meeting.connect();
    if (media === "video") await meeting.flows();
  } catch (error) {
    throw new Error(`${error.message}\n${await meeting.report()}`);
  }
  return meeting;
}

/** What a test does with a call; what both sides know of it is told if it fails. */
async function during(meeting, act) {
  try {
    await act(meeting);
  } catch (error) {
    throw new Error(`${error.message}\n${await meeting.report()}`, { cause: error });
  }
}

const signedIn = ({ people }) => Promise.all(people.map((person) => person.sees("#status", /Signed in as/)));
const reconnecting = ({ people }) => Promise.all(people.map((person) => person.sees("#status", /Reconnecting/)));
const connected = ({ people }) => Promise.all(people.map((person) => person.sees("#call-state", /Connected/)));

async function back(meeting, text) {
  await meeting.flows();
  await connected(meeting);
  await signedIn(meeting);
  await meeting.talk(text);
}

for (const kinds of [["port-restricted", "open"], ["symmetric", "symmetric"]]) {
  test(`a call goes on when its caller comes into another network (${kinds.join(" and ")})`, async (context) => {
    await during(await inCall(kinds), async (meeting) => {
      const [host] = meeting.hosts;
      const before = await meeting.path();
      await meeting.forgetPauses();

      await host.changeAddress();

      await back(meeting, "from elsewhere");
      context.diagnostic(`longest pause of the picture: ${await meeting.pauses()} ms`);
      assert.equal((await meeting.settles(({ relayed }) => relayed === before.relayed)).relayed, before.relayed);
    });
  });
}

test("a direct call does not notice that the server is away, and both sign in again by themselves", async () => {
  await during(await inCall(["port-restricted", "full-cone"]), async (meeting) => {
    assert.equal((await meeting.path()).relayed, false);

    await lab.server.stop();
    await reconnecting(meeting);
    await meeting.flows();
    await meeting.talk("without a server");
    await lab.server.start();
    await signedIn(meeting);
    await back(meeting, "with the server again");

    assert.deepEqual(await meeting.states(), [["connecting", "connected"], ["connecting", "connected"]]);
  });
});

test("a relayed call is back within 10 s of the server's restart", async (context) => {
  await during(await inCall(["symmetric", "udp-blocked"]), async (meeting) => {
    assert.equal((await meeting.path()).relayed, true);
    await meeting.forgetPauses();

    await lab.server.restart();

    await back(meeting, "relayed again");
    const pauses = await meeting.pauses();
    context.diagnostic(`longest pause of the picture: ${pauses} ms`);
    assert.ok(Math.max(...pauses) < RELAYED_BACK_MS, `the picture stood still for ${pauses} ms`);
    assert.equal((await meeting.path()).relayed, true);
  });
});

for (const [seconds, skip] of [[8, false], [60, LONG]]) {
  test(`a call goes on after a lid was closed for ${seconds} s`, { skip }, async (context) => {
    await during(await inCall(["port-restricted", "open"]), async (meeting) => {
      const [sleeper] = meeting.people;
      const [host] = meeting.hosts;

      sleeper.browser.freeze();
      await host.cut();
      await setTimeout(seconds * 1000);
      await host.mend();
      sleeper.browser.thaw();

      const woken = Date.now();
      await back(meeting, "awake");
      context.diagnostic(`the picture is back and has moved for a while ${Date.now() - woken} ms after waking`);
    });
  });
}

test("a call that says nothing for 45 s outlives a NAT that forgets after 30 s", { skip: LONG }, async () => {
  await during(await inCall(["forgetful", "port-restricted"], "data"), async (meeting) => {
    assert.equal((await meeting.path()).relayed, false);

    await setTimeout(45_000);

    await meeting.talk("still here");
    assert.deepEqual(await meeting.states(), [["connecting", "connected"], ["connecting", "connected"]]);
  });
});

test("a relayed call of 5 minutes outlives its credentials of 60 s, and restarts with fresh ones", { skip: LONG }, async () => {
  await lab.server.stop();
  await lab.server.start('[turn]\ncredential_life = "60s"\n');
  try {
    await during(await inCall(["symmetric", "symmetric"]), async (meeting) => {
      for (let minute = 1; minute <= 5; minute += 1) {
        await setTimeout(60_000);
        await meeting.flows();
      }
      const states = await meeting.states();
      const relayed = await meeting.addresses();

      // As when a cable is plugged in: the module restarts ICE.
      await meeting.people[0].page.evaluate(() => dispatchEvent(new Event("online")));

      await meeting.settles((path) => path.ends.every(({ port }) => port !== undefined)
        && path.relayed && path.ends.map(({ address, port }) => `${address}:${port}`).join() !== relayed.join());
      await back(meeting, "with fresh credentials");
      assert.notDeepEqual(await meeting.addresses(), relayed, "the relay is the one it began with");
      assert.equal((await meeting.path()).relayed, true);
      assert.deepEqual(states, [["connecting", "connected"], ["connecting", "connected"]]);
    });
  } finally {
    await lab.server.stop();
    await lab.server.start("");
  }
});
