// One script for any PeerServer: scenes, each with what its clients see, as lines of text.
//
// Nothing waits for time to pass: a client knows that everything sent to it so far has come when a message that it sends
// itself is back.

import { once } from "node:events";
import { WebSocket } from "ws";

class Client {
  #lines = [];
  #markers = 0;
  #wakers = [];

  constructor(port, query, path = "/peerjs") {
    this.socket = new WebSocket(`ws://127.0.0.1:${port}${path}?${query}`);
    this.id = new URLSearchParams(query).get("id");
    this.closed = once(this.socket, "close").then(([code]) => {
      this.#lines.push("closed");
      this.#wakers.splice(0).forEach((wake) => wake());
      return code;
    });
    this.socket.on("message", (data) => {
      this.#lines.push(canonical(JSON.parse(data)));
      this.#wakers.splice(0).forEach((wake) => wake());
    });
  }

  /** One that is signed in. */
  static async open(port, id, token = `token-of-${id}`) {
    const client = new Client(port, `key=peerjs&id=${encodeURIComponent(id)}&token=${token}&version=1.5.5`);
    await client.#next();
    return client;
  }

  send(frame) {
    this.socket.send(typeof frame === "object" && !Buffer.isBuffer(frame) ? JSON.stringify(frame) : frame);
  }

  /** What it has seen up to here, or all that it ever sees if it is closed. */
  async sees() {
    const marker = { type: "OFFER", src: this.id, dst: this.id, payload: { marker: ++this.#markers } };
    this.send(marker);
    const last = canonical(marker);
    while (!this.#lines.includes(last) && !this.#lines.includes("closed")) await this.#next(this.#lines.length);
    return this.#lines.splice(0).filter((line) => line !== last);
  }

  /** All that it sees until the server closes. */
  async seesOut() {
    await this.closed;
    return this.#lines.splice(0);
  }

  /** What comes next, however long it takes. */
  async hears() {
    await this.#next();
    return this.#lines.shift();
  }

  /** Whether the server still answers. */
  fate() {
    this.socket.ping();
    return Promise.race([this.closed.then(() => "is closed"), once(this.socket, "pong").then(() => "stays connected")]);
  }

  async leaves() {
    this.socket.close();
    await this.closed;
  }

  async #next(known = 0) {
    while (this.#lines.length <= known) await new Promise((wake) => this.#wakers.push(wake));
  }
}

/** A frame with its fields in one order. */
function canonical({ type, src, dst, payload, ...rest }) {
  return JSON.stringify({ type, src, dst, payload, ...rest });
}

const labelled = (who, lines) => lines.map((line) => `${who}: ${line}`);

async function get(port, path, headers = {}, method = "GET") {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers, method });
  return { response, body: await response.text() };
}

const PAGE = { Origin: "http://localhost:12345" };

/** By what each shows; each gets the port of a server that has nobody on it. */
export const scenes = {
  async "without id, token or key"(port) {
    const seen = [];
    for (const query of ["", "id=a&token=t", "key=peerjs&token=t", "key=peerjs&id=a", "key=peerjs&id=&token=t"]) {
      seen.push(...labelled(query, await new Client(port, query).seesOut()));
    }
    return seen;
  },

  async "another key"(port) {
    return new Client(port, "key=other&id=a&token=t").seesOut();
  },

  async "signing in"(port) {
    const [spaced, bare] = [await Client.open(port, "a b-c_d"), new Client(port, "key=peerjs&id=x&token=t")];
    return [...labelled("spaced", await spaced.sees()), ...labelled("bare", [await bare.hears()])];
  },

  async "an id in use, with another token"(port) {
    const alice = await Client.open(port, "alice");
    const eve = new Client(port, "key=peerjs&id=alice&token=eve");
    return [...labelled("eve", await eve.seesOut()), ...labelled("alice", await alice.sees())];
  },

  async "every kind of frame from one to the other"(port) {
    const [alice, bob] = [await Client.open(port, "alice"), await Client.open(port, "bob")];
    for (const type of ["OFFER", "ANSWER", "CANDIDATE", "EXPIRE"]) {
      alice.send({ type, dst: "bob", payload: { sdp: { sdp: "v=0\r\n\u2028\"" }, type: "data", n: [1, 2.5, {}] } });
      alice.send({ type, dst: "bob", payload: "text", src: "eve", extra: 1 });
      alice.send({ type, dst: "bob" });
    }
    alice.send({ type: "LEAVE", dst: "bob" });
    return [...labelled("alice", await alice.sees()), ...labelled("bob", await bob.sees())];
  },

  async "a payload that is null"(port) {
    const alice = await Client.open(port, "alice");
    alice.send({ type: "OFFER", dst: "alice", payload: null });
    return alice.sees();
  },

  async "LEAVE with a payload"(port) {
    const [alice, bob] = [await Client.open(port, "alice"), await Client.open(port, "bob")];
    alice.send({ type: "LEAVE", dst: "bob", payload: "why" });
    return [...labelled("alice", await alice.sees()), ...labelled("bob", await bob.sees())];
  },

  async "what is passed over in silence"(port) {
    const [alice, bob] = [await Client.open(port, "alice"), await Client.open(port, "bob")];
    for (const type of ["HEARTBEAT", "OPEN", "ERROR", "ID-TAKEN", "offer", "constructor", "__proto__", ""]) {
      alice.send({ type });
      alice.send({ type, dst: "bob", payload: {} });
    }
    for (const type of ["OFFER", "ANSWER", "CANDIDATE", "EXPIRE"]) alice.send({ type, payload: {} });
    for (const type of ["LEAVE", "EXPIRE"]) alice.send({ type, dst: "nobody", payload: {} });
    alice.send("not json");
    alice.send("[]");
    return [...labelled("alice", await alice.sees()), ...labelled("bob", await bob.sees())];
  },

  async "nonsense without end"(port) {
    const alice = await Client.open(port, "alice");
    for (let n = 0; n < 10; n++) alice.send("not json");
    return alice.sees();
  },

  async "JSON in a binary message"(port) {
    const alice = await Client.open(port, "alice");
    alice.send(Buffer.from('{"type":"OFFER","dst":"alice","payload":{}}'));
    return alice.sees();
  },

  async "a message of 100 KiB"(port) {
    const alice = await Client.open(port, "alice");
    alice.send({ type: "OFFER", dst: "alice", payload: "x".repeat(100 * 1024) });
    return (await alice.sees()).map((line) => line.replace(/x{100,}/, "x..."));
  },

  async "what is sent to somebody who comes a little later"(port) {
    const alice = await Client.open(port, "alice");
    for (const type of ["OFFER", "CANDIDATE", "ANSWER", "LEAVE", "EXPIRE", "HEARTBEAT"]) {
      alice.send({ type, dst: "bob", payload: { for: type } });
    }
    const before = await alice.sees();
    const bob = await Client.open(port, "bob");
    return [...labelled("alice", before), ...labelled("bob", await bob.sees()), ...labelled("alice", await alice.sees())];
  },

  async "what is sent to nobody"(port) {
    const [alice, bob] = [await Client.open(port, "alice"), await Client.open(port, "bob")];
    await Promise.all([alice.sees(), bob.sees()]);
    for (const type of ["OFFER", "CANDIDATE", "CANDIDATE"]) alice.send({ type, dst: "nobody", payload: {} });
    alice.send({ type: "OFFER", dst: "no one", payload: {} });
    bob.send({ type: "OFFER", dst: "nobody", payload: {} });
    const heard = [await alice.hears(), await alice.hears(), ...(await alice.sees())].sort();
    return [...labelled("alice", heard), ...labelled("bob", [await bob.hears(), ...(await bob.sees())])];
  },

  async "the sender has come back when it is told"(port) {
    const before = await Client.open(port, "alice");
    before.send({ type: "OFFER", dst: "nobody", payload: {} });
    await before.sees();
    await before.leaves();
    const alice = await comesBack(port, "alice");
    return [await alice.hears()];
  },

  async "forty messages to nobody"(port) {
    const alice = await Client.open(port, "alice");
    for (let n = 0; n < 40; n++) alice.send({ type: "CANDIDATE", dst: "bob", payload: n });
    const before = await alice.sees();
    const bob = await Client.open(port, "bob");
    const count = (lines) => [...new Set(lines.map((line) => line.replace(/\d+/, "N")))].map(
      (line) => `${line} x ${lines.filter((other) => other.replace(/\d+/, "N") === line).length}`,
    );
    return [...labelled("alice", count(before)), ...labelled("bob", count(await bob.sees()))];
  },

  async "a dst that is a number"(port) {
    const [alice, seven] = [await Client.open(port, "alice"), await Client.open(port, "7")];
    await alice.sees();
    alice.send({ type: "OFFER", dst: 7, payload: {} });
    alice.send({ type: "OFFER", dst: "nobody", payload: {} });
    const heard = [await alice.hears()];
    while (!heard.at(-1).includes("nobody")) heard.push(await alice.hears());
    return [...labelled("alice", heard), ...labelled("seven", await seven.sees())];
  },

  async "a dst that is no name here"(port) {
    const alice = await Client.open(port, "alice");
    await alice.sees();
    alice.send({ type: "OFFER", dst: "\u202e", payload: {} });
    return [await alice.hears()];
  },

  async "an id that is no name here"(port) {
    const client = new Client(port, `key=peerjs&id=${"x".repeat(65)}&token=t`);
    return [await client.hears()];
  },

  async "one goes"(port) {
    const [alice, bob] = [await Client.open(port, "alice"), await Client.open(port, "bob")];
    bob.send({ type: "OFFER", dst: "alice", payload: {} });
    const before = await bob.sees();
    await alice.leaves();
    const heir = await comesBack(port, "alice", "another");
    return [...labelled("bob", [...before, "and then", ...(await bob.sees())]), ...labelled("heir", await heir.sees())];
  },

  async "LEAVE to nobody in particular"(port) {
    const [alice, bob] = [await Client.open(port, "alice"), await Client.open(port, "bob")];
    alice.send({ type: "LEAVE" });
    return [`alice: ${await alice.fate()}`, ...labelled("bob", await bob.sees())];
  },

  async "the same id and token once more"(port) {
    const [before, bob] = [await Client.open(port, "alice"), await Client.open(port, "bob")];
    await before.sees();
    const after = new Client(port, "key=peerjs&id=alice&token=token-of-alice&version=1.5.5");
    await once(after.socket, "open");
    const seen = await after.sees();
    bob.send({ type: "OFFER", dst: "alice", payload: {} });
    await bob.sees();
    seen.push(...(await after.sees()));
    return [...labelled("after", seen), `before: ${await before.fate()}`];
  },

  async "with which code it closes"(port) {
    const taken = (await Client.open(port, "alice"), new Client(port, "key=peerjs&id=alice&token=eve"));
    return [`no parameter: ${await new Client(port, "").closed}`, `taken: ${await taken.closed}`];
  },

  async "an id from the server"(port) {
    const { response, body } = await get(port, "/peerjs/id?ts=17&version=1.5.5", PAGE);
    const { headers } = response;
    return [
      `${response.status} ${body.replace(/[0-9a-f]/g, "0")}`,
      `${headers.get("content-type")}, for ${headers.get("access-control-allow-origin")}, ${headers.get("vary")?.toLowerCase()}`,
    ];
  },

  async "an id for another key"(port) {
    return [`${(await get(port, "/other/id")).response.status}`];
  },

  async "an id for a page from anywhere"(port) {
    const { response } = await get(port, "/peerjs/id", { Origin: "https://example.org" });
    return [`${response.status} for ${response.headers.get("access-control-allow-origin")}`];
  },

  async "asking before asking (CORS preflight)"(port) {
    const ask = { ...PAGE, "Access-Control-Request-Method": "GET" };
    return [`${(await get(port, "/peerjs/id", ask, "OPTIONS")).response.status}`];
  },

  async "the path itself"(port) {
    const { response } = await get(port, "/");
    return [`${response.status} ${response.headers.get("content-type")}`];
  },

  async "the list of ids, which is off"(port) {
    const { response } = await get(port, "/peerjs/peers", PAGE);
    return [`${response.status} for ${response.headers.get("access-control-allow-origin")}`];
  },
};

/** The same, for servers whose list is on. */
export const discovery = {
  async "the list of ids, which is on"(port) {
    const [, bob] = [await Client.open(port, "alice"), await Client.open(port, "bob")];
    const { response, body } = await get(port, "/peerjs/peers", PAGE);
    const list = JSON.parse(body).sort();
    await bob.leaves();
    return [`${response.status} ${list} for ${response.headers.get("access-control-allow-origin")}`];
  },
};

/** Signs in by an id that was free a moment ago: the server may hear of that a little later. */
async function comesBack(port, id, token = `token-of-${id}`) {
  for (;;) {
    const client = new Client(port, `key=peerjs&id=${id}&token=${token}`);
    if ((await client.hears()).includes('"OPEN"')) return client;
  }
}
