// Ayame's Web SDK as it comes, in real Chromium: calls of two by way of /signaling.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Stage } from "../pubsub/stage.js";

const WAIT = { timeout: 60_000, polling: 50 };

// A standalone client says `connected` even when the other was faster and the room is over.
const LATE = "WebSocket is already in CLOSING or CLOSED state.";

const stage = new Stage(`export * from "@open-ayame/ayame-web-sdk";`, import.meta.url, (complaints) => {
  assert.deepEqual(complaints.filter((complaint) => complaint !== LATE), [], "nobody complains");
});

/** A page that can call: it sends a picture that changes, and a tone. */
async function caller() {
  const person = await stage.enter();
  await person.page.evaluate(() => {
    const canvas = document.createElement("canvas");
    const picture = canvas.getContext("2d");
    setInterval(() => {
      picture.fillStyle = `hsl(${performance.now() % 360} 90% 50%)`;
      picture.fillRect(0, 0, canvas.width, canvas.height);
    }, 40);
    const audio = new AudioContext();
    const [tone, out] = [audio.createOscillator(), audio.createMediaStreamDestination()];
    tone.connect(out);
    tone.start();
    globalThis.media = new MediaStream([...canvas.captureStream().getTracks(), ...out.stream.getTracks()]);
  });
  return person;
}

/** Enters a room; "accepted", or why not. */
function enters({ page }, room, options = {}) {
  return page.evaluate(
    async (room, options) => {
      const { createConnection, defaultOptions } = globalThis.clients;
      const url = `ws://${location.host}/signaling`;
      const connection = createConnection(url, room, { ...defaultOptions, ...options }, false, true);
      const talk = (channel) => {
        channel.addEventListener("message", ({ data }) => globalThis.heard.push(data));
        channel.addEventListener("open", () => (globalThis.channel = channel));
        if (channel.readyState === "open") globalThis.channel = channel;
      };
      Object.assign(globalThis, { connection, heard: [], events: [], channel: null });
      // The first of the two is given none: its channel comes from the other.
      connection.on("open", async () => {
        const channel = await connection.createDataChannel("words");
        if (channel) talk(channel);
      });
      connection.on("datachannel", talk);
      connection.on("addstream", ({ stream }) => {
        const player = document.createElement("video");
        Object.assign(player, { autoplay: true, muted: true, srcObject: stream });
        document.body.append(player);
      });
      connection.on("connect", () => globalThis.events.push("connect"));
      connection.on("bye", () => globalThis.events.push("bye"));
      connection.on("disconnect", ({ reason }) => globalThis.events.push(`disconnect ${reason}`));
      return connection.connect(globalThis.media).then(
        () => "accepted",
        (why) => String(why),
      );
    },
    room,
    options,
  );
}

const until = ({ page }, condition, ...rest) => page.waitForFunction(condition, WAIT, ...rest);

const talks = async (from, to, text) => {
  await until(from, () => globalThis.channel?.readyState === "open");
  await from.page.evaluate((text) => globalThis.channel.send(text), text);
  await until(to, (text) => globalThis.heard.at(-1) === text, text);
};

/** Waits until pictures of the other have come, and packets of its tone. */
const sees = (person) =>
  until(person, async () => {
    const stats = [...(await globalThis.connection.peerConnection.getStats()).values()];
    const inbound = (kind) => stats.find((one) => one.type === "inbound-rtp" && one.kind === kind);
    return inbound("video")?.framesDecoded > 5 && inbound("audio")?.packetsReceived > 5;
  });

async function call(room, options) {
  const [alice, bob] = [await caller(), await caller()];
  assert.equal(await enters(alice, room, options), "accepted");
  assert.equal(await enters(bob, room, options), "accepted");
  await talks(alice, bob, "hello bob");
  await talks(bob, alice, "hello alice");
  return [alice, bob];
}

test("two see, hear and write each other, over the relay that they were handed", async () => {
  const pair = await call("room");

  await Promise.all(pair.map(sees));

  for (const person of pair) assert.deepEqual(await person.path(), ["relay", "relay"]);
});

test("a third is rejected, and the two go on", async () => {
  const [alice, bob] = await call("a room of two");
  const carol = await caller();

  assert.equal(await enters(carol, "a room of two"), "REJECTED");

  assert.deepEqual(await carol.page.evaluate(() => globalThis.events), ["disconnect full"]);
  await talks(alice, bob, "still here");
});

test("when one goes the other hears bye, and both can meet there again", async () => {
  const [alice, bob] = await call("again");

  await alice.page.evaluate(() => globalThis.connection.disconnect());

  await until(bob, () => globalThis.events.includes("bye") && globalThis.events.includes("disconnect WS-CLOSED"));
  assert.equal(await enters(bob, "again"), "accepted");
  assert.equal(await enters(alice, "again"), "accepted");
  await talks(alice, bob, "hello again");
});

test("standalone clients go once they have each other, and the call goes on without a server", async () => {
  const [alice, bob] = await call("standalone", { standalone: true });

  for (const person of [alice, bob]) await until(person, () => globalThis.connection.webSocket === null);

  await talks(alice, bob, "on our own");
  await talks(bob, alice, "so we are");
  for (const { page } of [alice, bob]) assert.deepEqual(await page.evaluate(() => globalThis.events), ["connect"]);
});
