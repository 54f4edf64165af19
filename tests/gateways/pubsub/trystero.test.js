// Trystero's core with a relay of one's own, as its README has it, in real Chromium: peers that meet through /pubsub.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Stage } from "./stage.js";

// On a busy machine the first try may fail, and Trystero takes 23 s to try again.
const WAIT = { timeout: 150_000, polling: 50 };

const stage = new Stage(`export * from "@trystero-p2p/core";`, import.meta.url);

/** A page of a peer that is in `rooms`. `asObjects` has its relay publish payloads as objects and not as the texts they are. */
async function peer(rooms, { asObjects = false, ...options } = {}) {
  const person = await stage.enter();
  await person.page.evaluate(
    async (rooms, asObjects, options) => {
      const { createTopicStrategy, selfId, toJson } = globalThis.clients;
      const joinRoom = createTopicStrategy({
        init: ({ relayConfig }) =>
          new Promise((resolve, reject) => {
            const socket = new WebSocket(relayConfig.urls[0]);
            socket.addEventListener("open", () => resolve(socket), { once: true });
            socket.addEventListener("error", reject, { once: true });
          }),
        subscribeTopic: (socket, topic, onMessage) => {
          const hear = ({ data }) => {
            const message = JSON.parse(data);
            if (message.topic === topic) onMessage(message.topic, message.payload);
          };
          socket.addEventListener("message", hear);
          socket.send(toJson({ type: "subscribe", topic }));
          return () => {
            socket.send(toJson({ type: "unsubscribe", topic }));
            socket.removeEventListener("message", hear);
          };
        },
        publishTopic: (socket, topic, text) => {
          const payload = asObjects ? JSON.parse(text) : text;
          socket.send(toJson({ type: "publish", topic, payload }));
        },
      });
      // It keeps 20 offers ready: one relayed candidate for each is enough.
      const relay = (await (await fetch("/ice")).json()).find(({ username }) => username);
      const iceServers = [{ ...relay, urls: relay.urls[0] }];
      const rtcConfig = { iceServers, iceTransportPolicy: "relay" };
      const config = { appId: "throughway", relayConfig: { urls: [`ws://${location.host}/pubsub`] }, rtcConfig, ...options };
      globalThis.selfId = selfId;
      globalThis.rooms = {};
      globalThis.heard = [];
      for (const name of rooms) {
        const room = joinRoom(config, name, { onJoinError: ({ error }) => console.error(error) });
        const words = room.makeAction("words");
        words.onMessage = (text, { peerId }) => globalThis.heard.push([name, peerId, text]);
        globalThis.rooms[name] = { room, words };
      }
    },
    rooms,
    asObjects,
    options,
  );
  person.id = await person.page.evaluate(() => globalThis.selfId);
  return person;
}

async function meets({ page, complaints }, room, others) {
  const matches = (name, ids) => {
    const peers = Object.keys(globalThis.rooms[name].room.getPeers()).sort();
    return peers.join() === ids;
  };
  const ids = others.map(({ id }) => id).sort().join();
  await page.waitForFunction(matches, WAIT, room, ids).catch(() => assert.fail(`nobody came\n${complaints.join("\n")}`));
}

const says = ({ page }, room, text) => page.evaluate((name, text) => globalThis.rooms[name].words.send(text), room, text);

async function hears({ page }, ...what) {
  await page.waitForFunction((what) => JSON.stringify(globalThis.heard) === what, WAIT, JSON.stringify(what));
}

for (const [what, options] of [
  ["texts", {}],
  ["objects", { asObjects: true }],
  ["texts, with a password", { password: "correct horse" }],
]) {
  test(`peers whose relay publishes ${what} meet and talk`, async () => {
    const alice = await peer(["room"], options);
    const bob = await peer(["room"], options);
    await Promise.all([meets(alice, "room", [bob]), meets(bob, "room", [alice])]);

    await says(alice, "room", "hello bob");
    await says(bob, "room", "hello alice");

    await hears(bob, ["room", alice.id, "hello bob"]);
    await hears(alice, ["room", bob.id, "hello alice"]);
    assert.deepEqual(stage.complaints, [], "nobody complains");
  });
}

test("a peer in many rooms meets in each who is there, and no more once it has left", async () => {
  const names = Array.from({ length: 12 }, (_, n) => `room ${n}`);
  const alice = await peer(names);
  const bob = await peer(names.slice(-1));
  await Promise.all([meets(alice, names.at(-1), [bob]), meets(bob, names.at(-1), [alice])]);

  await alice.page.evaluate((name) => globalThis.rooms[name].room.leave(), names.at(-1));

  await meets(bob, names.at(-1), []);
  await meets(alice, names[0], []);
});
