// A page of somebody's own that uses PeerJS as npm has it, and the server's ICE servers.

import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import path from "node:path";

const library = path.join(path.dirname(createRequire(import.meta.url).resolve("peerjs")), "peerjs.min.js");

/** Serves the page on a port of its own: to the server under test it is a page from elsewhere. */
export async function servePage() {
  const script = await readFile(library);
  const server = createServer((request, response) => {
    if (request.url === "/peerjs.min.js") {
      response.setHeader("content-type", "text/javascript").end(script);
    } else if (request.url === "/") {
      response.setHeader("content-type", "text/html");
      response.end("<!doctype html><title>peerjs</title><link rel=icon href=data:,><script src=/peerjs.min.js></script>");
    } else {
      response.writeHead(404).end();
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { url: `http://localhost:${server.address().port}/`, close: () => server.close() };
}

/** What runs inside the page: peers by their ids, and what has happened to each. */
export function inPage(port, path) {
  const peers = {};
  globalThis.peers = peers;

  globalThis.meet = async (id, { token, relay = true } = {}) => {
    const iceServers = await (await fetch(`http://localhost:${port}/ice`)).json();
    const options = { host: "localhost", port, path, secure: false };
    const config = { iceServers, iceTransportPolicy: relay ? "relay" : "all" };
    const peer = new Peer(id, { ...options, config, ...(token && { token }) });
    const seen = { peer, errors: [], data: [], opened: 0, closed: 0, calls: [] };
    peer.on("error", ({ type, message }) => seen.errors.push([type, message]));
    peer.on("open", () => seen.opened++);
    peer.on("connection", (connection) => {
      seen.connection = connection;
      connection.on("data", (data) => {
        seen.data.push(data);
        connection.send(`${data}, too`);
      });
      connection.on("close", () => seen.closed++);
    });
    peer.on("call", (call) => {
      seen.call = call;
      call.on("stream", globalThis.show);
      call.answer();
    });
    await new Promise((resolve) => {
      peer.on("open", resolve);
      peer.on("error", resolve);
    });
    peers[peer.id ?? id] = seen;
    return peer.id;
  };

  /** Opens a data connection, says `text`, and waits for the answer. */
  globalThis.talk = (from, to, text) =>
    new Promise((resolve, reject) => {
      const connection = peers[from].peer.connect(to);
      peers[from].connection = connection;
      connection.on("open", () => connection.send(text));
      connection.on("data", resolve);
      connection.on("error", reject);
      peers[from].peer.on("error", reject);
    });

  globalThis.show = (stream) => {
    const video = document.createElement("video");
    Object.assign(video, { srcObject: stream, muted: true, autoplay: true });
    document.body.append(video);
  };

  /** Calls with the (fake) camera. */
  globalThis.call = async (from, to) => {
    const stream = await navigator.mediaDevices.getUserMedia({ video: true });
    peers[from].call = peers[from].peer.call(to, stream);
  };

  globalThis.framesDecoded = async (id) => {
    const stats = await peers[id].call?.peerConnection?.getStats();
    const inbound = [...(stats?.values() ?? [])].find(({ type, kind }) => type === "inbound-rtp" && kind === "video");
    return inbound?.framesDecoded ?? 0;
  };
}
