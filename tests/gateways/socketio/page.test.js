// The multi-party tutorial's shape in real Chromium: a page that takes the library from the server and calls.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";
import { launch, open } from "../../browser/pages.js";
import { Server } from "../../browser/server.js";

/** What the page does, given the server's URL: the second to come calls the first. */
function tutorial(url) {
  const socket = globalThis.io.connect(url);
  const pc = new RTCPeerConnection();
  const show = (text) => (document.body.textContent = text);
  const use = (channel) => {
    channel.onopen = () => channel.send(`hello by ${socket.io.engine.transport.name}`);
    channel.onmessage = ({ data }) => show(data);
  };
  pc.ondatachannel = ({ channel }) => use(channel);
  pc.onicecandidate = ({ candidate }) => candidate && socket.emit("onicecandidate", candidate);
  socket.on("offer", async (offer) => {
    await pc.setRemoteDescription(offer);
    await pc.setLocalDescription(await pc.createAnswer());
    socket.emit("answer", pc.localDescription);
  });
  socket.on("answer", (answer) => pc.setRemoteDescription(answer));
  socket.on("onicecandidate", (candidate) => pc.addIceCandidate(candidate));
  socket.io.engine.once("upgrade", () => show("ready"));
  globalThis.call = async () => {
    use(pc.createDataChannel("text"));
    await pc.setLocalDescription(await pc.createOffer());
    socket.emit("offer", pc.localDescription);
  };
}

test("two pages from elsewhere call each other with the library that the server hands out", { timeout: 60_000 }, async (t) => {
  const server = await Server.start();
  t.after(() => server.stop());
  const url = `http://localhost:${server.ports.http}`;
  const script = `(${tutorial})(${JSON.stringify(url)})`;
  const pages = createServer((request, response) => {
    if (request.url !== "/") return response.writeHead(204).end();
    response.setHeader("Content-Type", "text/html; charset=utf-8");
    response.end(`<!doctype html><title>t</title><body><script src="${url}/socket.io/socket.io.js"></script><script>${script}</script>`);
  });
  pages.listen(0, "127.0.0.1");
  await once(pages, "listening");
  t.after(() => pages.close());
  const browser = await launch();
  t.after(() => browser.close());

  const visit = () => open(browser, `http://localhost:${pages.address().port}/`);
  const [alice, bob] = [await visit(), await visit()];
  for (const person of [alice, bob]) await person.sees("body", /^ready$/);
  await alice.page.evaluate(() => globalThis.call());

  for (const person of [alice, bob]) {
    await person.sees("body", /^hello by websocket$/);
    assert.deepEqual(person.complaints, []);
  }
});
