// Real Chromium that reaches the relay by TCP and by TLS on the port that serves the pages.

import assert from "node:assert/strict";
import { test } from "node:test";
import { launch, open } from "./pages.js";
import { Server } from "./server.js";

for (const [scheme, protocol] of [["turn", "tcp"], ["turns", "tls"]]) {
  test(`two pages that know nothing but ${scheme} over TCP, on the web port, exchange text`, async () => {
    const iceServers = ({ https }) => `[{ urls = ["${scheme}:127.0.0.1:${https}?transport=tcp"] }]`;
    const server = await Server.start({ iceServers });
    const browser = await launch();
    try {
      const visit = async (name) => {
        const person = await open(browser, `http://localhost:${server.ports.http}/chat?relay=1&name=${name}`);
        await person.sees("#status", new RegExp(`Signed in as ${name}`));
        return person;
      };
      const [alice, bob] = await Promise.all([visit("alice"), visit("bob")]);
      await alice.writes("#to", "bob");
      await bob.clicks("#accept");
      await Promise.all([alice, bob].map((person) => person.sees("#call-state", /Connected/)));

      for (const [from, to] of [[alice, bob], [bob, alice]]) {
        await from.writes("#text", "hello");
        await to.sees("#log .theirs", /hello/);
        assert.deepEqual(await from.path(), ["relay", "relay"]);
        assert.equal(await from.relayProtocol(), protocol);
        await from.sees("#path", /^relayed/);
        assert.deepEqual(from.complaints, []);
      }
    } finally {
      await browser.close();
      await server.stop();
    }
  });
}
