// One call between two hosts over the real pages, as people make it, and what can be told of it.

import { setTimeout } from "node:timers/promises";

const WAIT = { timeout: 45_000, polling: 50 };
/** A call may begin over a path that is not the best one yet. */
const SETTLE_MS = 10_000;
const LOOK_MS = 200;
/** Between the keys of somebody who types fast. */
const KEY_MS = 100;

/** Names of members are taken for a while after they left: each is used once. */
let members = 0;

/** Two people on the same page of the server, each on a host of the laboratory, who may call each other. */
export class Meeting {
  /** @param {"data"|"video"} kind */
  static async open(lab, browsers, hosts, kind) {
    const meeting = new Meeting();
    meeting.kind = kind;
    meeting.hosts = hosts;
    meeting.people = [];
    try {
      // One after the other, so that the start of one is not in the way of the other's sign-in.
      for (const host of hosts) meeting.people.push(await arrive(lab, browsers, host, kind));
    } catch (error) {
      await meeting.close();
      throw error;
    }
    return meeting;
  }

  /** The first person calls the second, who accepts as soon as the button is there. */
  async connect() {
    const [caller, callee] = this.people;
    await caller.page.type("#to", callee.name, { delay: KEY_MS });
    this.clicked = await caller.page.$eval("#call-button", (button) => {
      const now = Date.now();
      button.click();
      return now;
    });
    const wanted = this.kind === "video" ? ["text", "frame"] : ["text"];
    await this.#both((person) => person.page.waitForFunction(
      (names) => names.every((name) => globalThis.lab.marks[name] !== undefined), WAIT, wanted,
    ));
  }

  /** Milliseconds from the click to the first text and the first frame of video at either side, and at the later one. */
  async times() {
    const marks = await this.#both(({ page }) => page.evaluate(() => globalThis.lab.marks));
    const after = (name) => marks.map((found) => found[name] - this.clicked);
    const times = { data: Math.max(...after("text")), dataEach: after("text") };
    if (this.kind === "video") Object.assign(times, { frame: Math.max(...after("frame")), frameEach: after("frame") });
    return times;
  }

  /** The way the packets take: what each side says of its own end. */
  async path() {
    const ends = await this.#both(({ page }) => page.evaluate(() => globalThis.lab.end()));
    return new Path(ends);
  }

  /** The path, once it is as wanted; the one that there is if it does not come to that. */
  async settles(wanted) {
    const deadline = Date.now() + SETTLE_MS;
    for (;;) {
      const path = await this.path();
      if (wanted(path) || Date.now() > deadline) return path;
      await setTimeout(LOOK_MS);
    }
  }

  /** Whether what each side shows moves: frames are decoded, and two looks at the picture differ. */
  async moves() {
    return Promise.all(this.people.map(({ page }) => page.evaluate(() => globalThis.lab.moves())));
  }

  /** A text of the first person's reaches the second, and one of the second's the first. */
  async talk(text) {
    for (const person of this.people) {
      if (!(await person.page.$eval("#text", (field) => field.checkVisibility()))) await person.clicks("#chat");
    }
    for (const [from, to] of [this.people, [...this.people].reverse()]) {
      await from.writes("#text", `${text} of ${from.name}`);
      await to.sees("#log .theirs", new RegExp(`${text} of ${from.name}`));
    }
  }

  /** Waits until each side has shown so many more frames of the other's picture: more than can have been under way. */
  async flows(frames = 60) {
    await this.#both(async ({ page, name }) => {
      const wanted = frames + await page.evaluate(() => globalThis.lab.frames);
      await page.waitForFunction((count) => globalThis.lab.frames >= count, WAIT, wanted).catch(() => {
        throw new Error(`no picture comes to ${name}`);
      });
    });
  }

  /** Measures `pauses` from here on. */
  forgetPauses() {
    return this.#both(({ page }) => page.evaluate(() => Object.assign(globalThis.lab, { pause: 0, last: Date.now() })));
  }

  /** The longest time that each side has shown no fresh picture for, in ms. */
  pauses() {
    return this.#both(({ page }) => page.evaluate(() => Math.max(globalThis.lab.pause, Date.now() - globalThis.lab.last)));
  }

  /** What became of the connections at each side: their states, oldest first. */
  states() {
    return this.#both(({ page }) => page.evaluate(() => globalThis.lab.connections.map(({ states }) => states).flat()));
  }

  /** The address that each side's end of the path has. */
  async addresses() {
    return (await this.path()).ends.map(({ address, port }) => `${address}:${port}`);
  }

  /** What both pages say and gathered, for a call that failed. */
  async report() {
    const parts = this.people.map(async (person, index) => {
      const told = await person.page.evaluate(() => globalThis.lab.report()).catch((error) => `no report: ${error.message}`);
      return `${this.hosts[index].kind} (${person.name}): ${told}\n${person.complaints.join("\n")}`;
    });
    return (await Promise.all(parts)).join("\n");
  }

  async close() {
    await Promise.all(this.people.map((person) => person.browser.leave(person)));
  }

  #both(ask) {
    return Promise.all(this.people.map(ask));
  }
}

/** Both ends of a call's selected pair of candidates. */
export class Path {
  constructor(ends) {
    this.ends = ends;
  }

  get relayed() {
    return this.ends.some(({ local }) => local === "relay");
  }

  /** How each end reaches its relay, and undefined for an end that uses none. */
  get relays() {
    return this.ends.map(({ local, protocol }) => (local === "relay" ? protocol : undefined));
  }

  toString() {
    if (!this.relayed) return `direct (${this.ends.map(({ local }) => local).join("–")})`;
    return `relay (${this.relays.map((protocol) => protocol?.toUpperCase() ?? "–").join(" / ")})`;
  }
}

async function arrive(lab, browsers, host, kind) {
  const browser = await browsers.on(host);
  const name = `m${(members += 1)}`;
  const url = new URL(kind === "video" ? "/call" : "/chat", lab.server.origin ?? `https://${lab.server.name}`);
  url.searchParams.set("name", name);
  const person = await browser.visit(url.href, { camera: kind === "video", watch });
  person.name = name;
  try {
    await person.sees("#status", new RegExp(`Signed in as ${name}`));
  } catch (error) {
    await browser.leave(person);
    throw error;
  }
  return person;
}

/** Runs in the page, before its own scripts: a person with quick hands, and a stopwatch. */
function watch() {
  const lab = (globalThis.lab = { marks: {}, connections: [], frames: 0, pause: 0 });
  const mark = (name) => (lab.marks[name] ??= Date.now());

  globalThis.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...rest) {
      super(...rest);
      lab.connections.push(this);
      this.history = [];
      this.states = [];
      const note = (text) => this.history.push(`${Date.now() % 1e6} ${text}`);
      this.addEventListener("icecandidate", ({ candidate }) => note(candidate?.candidate ?? "gathered"));
      this.addEventListener("icecandidateerror", ({ url, errorCode, errorText }) => note(`${url}: ${errorCode} ${errorText}`));
      this.addEventListener("signalingstatechange", () => note(`signaling ${this.signalingState}`));
      this.addEventListener("iceconnectionstatechange", () => note(`ice ${this.iceConnectionState}`));
      this.addEventListener("connectionstatechange", () => {
        this.states.push(this.connectionState);
        note(`connection ${this.connectionState}`);
      });
    }
  };

  let ringing = false;
  const videos = new Set();
  new MutationObserver(() => {
    const accept = document.getElementById("accept");
    const rings = accept !== null && !accept.closest("[hidden]");
    if (rings && !ringing) accept.click();
    ringing = rings;
    const text = document.getElementById("text");
    if (text && !text.disabled && !lab.marks.open) {
      mark("open");
      text.value = "hello";
      document.getElementById("composer").requestSubmit();
    }
    if (document.querySelector("#log .theirs")) mark("text");
    for (const video of document.querySelectorAll("video")) {
      if (!videos.has(video)) awaitFrame(video);
      videos.add(video);
    }
  }).observe(document, { subtree: true, childList: true, attributes: true });

  const remote = (video) => {
    const theirs = lab.connections.flatMap((connection) => connection.getReceivers().map(({ track }) => track));
    return video.srcObject?.getVideoTracks().some((track) => theirs.includes(track)) ?? false;
  };

  function awaitFrame(video) {
    video.requestVideoFrameCallback(() => {
      awaitFrame(video);
      if (!remote(video)) return;
      mark("frame");
      const now = Date.now();
      lab.pause = Math.max(lab.pause, now - (lab.last ?? now));
      lab.last = now;
      lab.frames += 1;
    });
  }

  const statistics = async () => [...(await lab.connections.at(-1).getStats()).values()];

  lab.end = async () => {
    const all = await statistics();
    const find = (id) => all.find((entry) => entry.id === id);
    const transport = all.find(({ type }) => type === "transport");
    const pair = find(transport?.selectedCandidatePairId);
    const local = find(pair?.localCandidateId);
    const there = find(pair?.remoteCandidateId);
    return {
      local: local?.candidateType,
      remote: there?.candidateType,
      protocol: local?.relayProtocol ?? local?.protocol,
      address: local?.address,
      port: local?.port,
    };
  };

  const decoded = async () => {
    return (await statistics()).find(({ type, kind }) => type === "inbound-rtp" && kind === "video")?.framesDecoded ?? 0;
  };

  const look = (video) => {
    const canvas = document.createElement("canvas");
    canvas.width = 64;
    canvas.height = 48;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(video, 0, 0, canvas.width, canvas.height);
    return context.getImageData(0, 0, canvas.width, canvas.height).data.join();
  };

  const frame = (video) => new Promise((resolve) => video.requestVideoFrameCallback(resolve));

  /** The fake camera turns its figure with every frame, and writes the time beside it. */
  lab.moves = async () => {
    const video = [...document.querySelectorAll("video")].find(remote);
    const before = await decoded();
    const first = look(video);
    for (let frames = 0; frames < 60; frames += 1) {
      await frame(video);
      if (look(video) !== first && (await decoded()) > before) return true;
    }
    return false;
  };

  lab.report = async () => {
    const lines = lab.connections.map((connection, index) => {
      return `connection ${index}: ${connection.connectionState}, ice ${connection.iceConnectionState}\n  ${connection.history.join("\n  ")}`;
    });
    const told = {
      "transport": ["dtlsState", "iceState", "packetsSent", "packetsReceived", "selectedCandidatePairChanges", "selectedCandidatePairId"],
      "candidate-pair": ["id", "state", "nominated", "requestsSent", "responsesReceived", "packetsSent", "packetsReceived"],
      "inbound-rtp": ["kind", "packetsReceived", "framesReceived", "framesDecoded", "pliCount"],
      "outbound-rtp": ["kind", "packetsSent", "framesEncoded", "pliCount", "active"],
      "local-candidate": ["id", "candidateType", "protocol", "relayProtocol", "address", "port"],
      "remote-candidate": ["id", "candidateType", "protocol", "address", "port"],
    };
    for (const entry of lab.connections.length === 0 ? [] : await statistics()) {
      if (told[entry.type]) lines.push(`  ${entry.type} ${told[entry.type].map((name) => `${name} ${entry[name]}`).join(", ")}`);
    }
    return `${document.querySelector("main").innerText}\n${lines.join("\n")}`;
  };
}
