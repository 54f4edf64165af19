// The network check: signs in, asks STUN and each relay by itself, and shows what diagnosis.js makes of it.
//
// Address: ?token= for servers that ask for one.

import { CANDIDATE_COLUMNS, answers, family, lines, natKind, readUrl, report, verdict } from "./diagnosis.js";
import { $, copying, hidden, isLocal, make } from "./page.js";
import { Signal } from "./throughway.js";

/** Nothing waits longer than this. */
const SERVED_MS = 5_000;
const STUN_MS = 6_000;
const RELAY_MS = 12_000;
const PING_MS = 3_000;
/** After the first answer: what is lost on the way is asked for again within it. */
const SETTLE_MS = 2_500;
/** Silence takes longer to be taken for it. */
const AT_ONCE_MS = 2_000;
/** A refusal by one interface may be followed by a grant to another. */
const REFUSAL_MS = 500;
/** What is sent through each relay at most, and for how long. */
const LOAD_BYTES = 2 * 1024 * 1024;
const LOAD_MS = 1_500;
const CHUNK_BYTES = 16 * 1024;
const BUFFER_BYTES = 256 * 1024;
const PINGS = 5;
/** A server's list can be of any length: so many are tried, and so many candidates shown. */
const MAX_STUN = 4;
const MAX_RELAYS = 6;
const MAX_CANDIDATES = 100;

const MARKS = { good: "✓", warn: "!", bad: "✕", wait: "" };

const token = hidden("token");
/** Whether this browser says why a server gave no candidate. */
const tells = Boolean(globalThis.RTCPeerConnection && "onicecandidateerror" in RTCPeerConnection.prototype);
let announced = new Set();

async function run() {
  const page = { origin: location.origin, browser: navigator.userAgent, time: new Date().toISOString() };
  const facts = { page: { ...page, webrtc: "RTCPeerConnection" in globalThis }, candidates: [] };
  begin(facts);
  let signal;
  try {
    [signal, facts.signIn] = await signIn();
    show(facts);
    if (!signal || !facts.page.webrtc) return;
    const servers = signal.iceServers.flatMap(({ urls, ...rest }) =>
      [urls].flat().map((url) => ({ ...rest, urls: url })),
    );
    const turn = servers.filter(({ urls }) => /^turns?:/i.test(urls) && readUrl(urls));
    const particulars = await served();
    const tried = turn.slice(0, MAX_RELAYS);
    facts.offers = {
      turn: tried.map(({ urls }) => urls),
      turns: particulars.turns,
      skipped: turn.length - tried.length,
    };
    facts.relays = tried.map(({ urls }) => ({ url: urls, state: "wait" }));
    show(facts);
    await Promise.all([checkStun(facts, stunServers(servers, particulars.udp), turn), checkRelays(facts, tried)]);
  } finally {
    signal?.close();
    finish(facts);
  }
}

// Signing in

/** Signs in by a throw-away name, or with a token as whoever it is for, if it is for somebody. */
async function signIn() {
  const url = new URL("/ws", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const fact = { ok: false, url: url.href, token: token !== undefined, local: isLocal() };
  const random = [...crypto.getRandomValues(new Uint8Array(6))]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
  const start = performance.now();
  for (const name of token === undefined ? [`check-${random}`] : [undefined, `check-${random}`]) {
    try {
      const signal = await Signal.connect({ name, url, token });
      return [signal, { ...fact, ok: true, ms: Math.round(performance.now() - start) }];
    } catch ({ code, message }) {
      Object.assign(fact, { code, message });
      if (code !== "bad-name") break;
    }
  }
  return [undefined, fact];
}

/** What the server says besides the list: all its UDP ports, and why there is `turns` or none. */
async function served() {
  try {
    const response = await fetch("/check/served", { signal: AbortSignal.timeout(SERVED_MS) });
    return await response.json();
  } catch {
    return { udp: [], turns: "unknown" };
  }
}

/** Those of the list, and the server's other UDP ports, which the list leaves out: for calls one is enough. */
function stunServers(servers, ports) {
  const listed = servers.map(({ urls }) => urls).filter((url) => /^stun:/i.test(url) && readUrl(url));
  const first = listed.length > 0 ? readUrl(listed[0]) : undefined;
  const others = first ? ports.filter((port) => port !== first.port).map((port) => `stun:${first.host}:${port}`) : [];
  return [...new Set([...listed, ...others])].slice(0, MAX_STUN);
}

// STUN

async function checkStun(facts, urls, turn) {
  const each = urls.map((url) => gather([{ urls: url }], family(readUrl(url).host)));
  // The relay over UDP tells the mapped address even where it equals the machine's own.
  const relay = turn.find(({ urls }) => readUrl(urls).way === "udp");
  const [together, ...alone] = await Promise.all([
    gather([...urls.map((url) => ({ urls: url })), ...(relay ? [relay] : [])]),
    ...each,
  ]);
  const seen = [together, ...alone].flatMap(({ candidates }) => candidates);
  const [v4, v6] = ["v4", "v6"].map((wanted) => natKind({ alone, together }, wanted));
  const granted = together.candidates.some(({ type }) => type === "relay") && readUrl(relay.urls);
  const servers = urls.map((url, index) => {
    const { host, port } = readUrl(url);
    const isGranted = host === granted?.host && port === granted?.port;
    const { ms, atOnce } = alone[index];
    return { url, answered: answers(alone[index], { kinds: [v4, v6], granted: isGranted }), ms, atOnce };
  });
  facts.stun = { limit: STUN_MS, servers };
  facts.nat = {
    v4,
    v6,
    asked: urls.length,
    compared: servers.filter(({ answered }) => answered).length,
    // A name instead of the address, or no such candidate at all.
    hidden: !seen.some(({ type, address }) => type === "host" && family(address)),
    mapped: [...new Set(seen.filter(({ type }) => type === "srflx").map(({ address }) => address))],
  };
  note(
    facts,
    together.candidates.filter(({ type }) => type !== "relay"),
  );
  show(facts);
}

/** What one connection's sockets learn of these servers, until that is all or time is up; `literal` is what family they are. */
async function gather(iceServers, literal) {
  const found = { candidates: [], errors: [], complete: false, tells, literal };
  const start = performance.now();
  let pc;
  await new Promise((done) => {
    setTimeout(done, STUN_MS);
    pc = watch({ iceServers }, found, () => {
      if (found.complete) {
        found.atOnce = performance.now() - start < AT_ONCE_MS;
        return done();
      }
      if (found.ms || !found.candidates.some(({ type }) => type === "srflx")) return;
      found.ms = Math.max(1, Math.round(performance.now() - start));
      setTimeout(done, SETTLE_MS);
    });
    if (!pc) return done();
    pc.createDataChannel("check");
    pc.setLocalDescription().catch(done);
  });
  pc?.close();
  return found;
}

/** A connection that notes its candidates and errors; undefined where the browser refuses the address, which is noted, too. */
function watch(configuration, found, changed) {
  let pc;
  try {
    pc = new RTCPeerConnection({ bundlePolicy: "max-bundle", ...configuration });
  } catch ({ message }) {
    found.faulty = message;
    return undefined;
  }
  pc.addEventListener("icecandidate", ({ candidate }) => {
    if (!candidate?.candidate || found.candidates.length >= MAX_CANDIDATES) return;
    const { type, protocol, port, priority, url, relatedPort } = candidate;
    const [address, relatedAddress] = [candidate.address, candidate.relatedAddress].map(bare);
    found.candidates.push({ type, protocol, address, port, priority, url: url ?? "", relatedAddress, relatedPort });
    changed();
  });
  pc.addEventListener("icecandidateerror", ({ url, errorCode, errorText, address }) => {
    if (found.errors.length >= MAX_CANDIDATES) return;
    // Where the browser hides the address it still shows which family it is of.
    found.errors.push({ url, code: errorCode, text: errorText, family: family(bare(address)) });
    changed();
  });
  pc.addEventListener("icegatheringstatechange", () => {
    if (pc.iceGatheringState !== "complete") return;
    found.complete = true;
    changed();
  });
  return pc;
}

/** Chromium puts IPv6 addresses into brackets, Firefox doesn't. */
const bare = (address) => address?.replace(/^\[|\]$/g, "");

// Relays

/** Connects through all at once, and loads one after the other. */
async function checkRelays(facts, servers) {
  let turn = Promise.resolve();
  const inTurn = (work) => (turn = turn.then(work));
  await Promise.all(
    servers.map(async (server, index) => {
      const { candidates, ...outcome } = await tryRelay(server, inTurn);
      facts.relays[index] = { url: server.urls, limit: RELAY_MS, tells, ...outcome };
      note(
        facts,
        candidates.map((found) => ({ ...found, url: server.urls })),
      );
      show(facts);
    }),
  );
}

/** Two connections within this page that keep to one relay, and data from one to the other. */
async function tryRelay(server, inTurn) {
  const ends = [0, 1].map(() => ({ candidates: [], errors: [], complete: false }));
  const candidates = () => ends[0].candidates.filter(({ type }) => type === "relay");
  let changed = () => {};
  const pcs = ends.map((end) => watch({ iceServers: [server], iceTransportPolicy: "relay" }, end, () => changed()));
  try {
    if (!pcs[0] || !pcs[1]) return { state: "faulty", text: ends[0].faulty ?? ends[1].faulty, candidates: [] };
    const channels = pcs.map((pc) => pc.createDataChannel("check", { negotiated: true, id: 0 }));
    const outcome = await new Promise((settle) => {
      changed = () => settleRelay(ends, settle);
      // What was granted has as long again for its data: over TLS, each packet that the line loses holds up those behind it.
      const patience = () => (ends.every(hasRelay) ? setTimeout(settle, RELAY_MS, "timeout") : settle("timeout"));
      setTimeout(patience, RELAY_MS);
      opened(channels).then(() => settle("open"));
      join(...pcs).catch(() => settle("closed"));
    });
    if (outcome === "open") return { ...(await inTurn(() => measure(...channels))), candidates: candidates() };
    const refusal = refusalOf(ends);
    if (refusal) return { state: "refused", code: refusal.code, text: refusal.text, candidates: candidates() };
    const granted = ends.every(hasRelay);
    const waited = granted && outcome === "timeout" ? { limit: 2 * RELAY_MS } : {};
    return { state: granted ? "granted" : "silent", ...waited, timedOut: outcome === "timeout", candidates: candidates() };
  } finally {
    for (const pc of pcs) pc?.close();
  }
}

/** Ends the wait when an end has been refused, or has gathered all and got nothing. */
function settleRelay(ends, settle) {
  if (refusalOf(ends)) setTimeout(() => refusalOf(ends) && settle("refused"), REFUSAL_MS);
  if (ends.some((end) => end.complete && !hasRelay(end))) settle("nothing");
}

const hasRelay = ({ candidates }) => candidates.some(({ type }) => type === "relay");

/** An end's refusal; 701 is none, but that nobody answered. */
function refusalOf(ends) {
  const refused = ends.find((end) => !hasRelay(end) && end.errors.some(({ code }) => code !== 701));
  return refused?.errors.find(({ code }) => code !== 701);
}

async function join(one, other) {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ]) {
    const waiting = [];
    from.addEventListener("icecandidate", ({ candidate }) => {
      if (to.remoteDescription) to.addIceCandidate(candidate ?? undefined).catch(() => {});
      else waiting.push(candidate);
    });
    to.addEventListener("signalingstatechange", () => {
      if (!to.remoteDescription) return;
      for (const candidate of waiting.splice(0)) to.addIceCandidate(candidate ?? undefined).catch(() => {});
    });
  }
  await one.setLocalDescription();
  await other.setRemoteDescription(one.localDescription);
  await other.setLocalDescription();
  await one.setRemoteDescription(other.localDescription);
}

const opened = (channels) =>
  Promise.all(channels.map((channel) => new Promise((done) => channel.addEventListener("open", done, { once: true }))));

/** The way there and back once, and how much gets through. Both ends are here: what is sent comes back down the same line. */
async function measure(from, to) {
  to.binaryType = "arraybuffer";
  let bytes = 0;
  let last = 0;
  to.onmessage = ({ data }) => {
    if (typeof data === "string") return to.send(data);
    bytes += data.byteLength;
    last = performance.now();
  };
  let both = Infinity;
  for (let count = 0; count < PINGS; count += 1) {
    both = Math.min(both, await ping(from, `${count}`));
  }
  // One echo is enough: a line that loses packets may hold the others up for longer than anyone waits here.
  if (both === Infinity) return { state: "granted" };
  const start = performance.now();
  const sent = await load(from, () => bytes);
  if (bytes === 0) await ping(from, "late");
  if (bytes === 0) return { state: "granted" };
  const took = (bytes < sent ? performance.now() : last) - start;
  // An echo passes the relay twice, and each passage is one way to it and one back.
  return {
    state: "carried",
    rtt: Math.round(both * 5) / 10,
    bytes,
    bits: Math.round((bytes * 8000) / Math.max(1, took)),
  };
}

/** Milliseconds until the other end's echo, without end when none comes. */
function ping(channel, word) {
  const start = performance.now();
  return new Promise((done) => {
    const limit = setTimeout(done, PING_MS, Infinity);
    channel.onmessage = ({ data }) => {
      if (data !== word) return;
      clearTimeout(limit);
      done(performance.now() - start);
    };
    channel.send(word);
  });
}

/** Sends until time or volume is up, waits a while for the rest to arrive, and returns how many bytes it sent. */
async function load(channel, arrived) {
  const chunk = new Uint8Array(CHUNK_BYTES);
  const end = performance.now() + LOAD_MS;
  let sent = 0;
  channel.bufferedAmountLowThreshold = BUFFER_BYTES / 4;
  while (sent < LOAD_BYTES && performance.now() < end && channel.readyState === "open") {
    for (; sent < LOAD_BYTES && channel.bufferedAmount < BUFFER_BYTES; sent += CHUNK_BYTES) channel.send(chunk);
    await new Promise((done) => {
      const limit = setTimeout(done, Math.max(0, end - performance.now()));
      channel.onbufferedamountlow = () => (clearTimeout(limit), done());
    });
  }
  while (arrived() < sent && performance.now() < end && channel.readyState === "open") {
    await new Promise((done) => setTimeout(done, 20));
  }
  return sent;
}

// Showing

function begin(facts) {
  announced = new Set();
  $("main").dataset.verdict = "checking";
  $("summary").dataset.state = "wait";
  $("mark").textContent = "";
  $("verdict").textContent = "Checking how calls get through from here…";
  for (const id of ["again", "copy"]) $(id).disabled = true;
  $("more").hidden = true;
  show(facts);
}

function finish(facts) {
  const { code, state, text: words } = verdict(facts);
  $("summary").dataset.state = state;
  $("mark").textContent = MARKS[state];
  $("verdict").textContent = words;
  $("report").textContent = report(facts);
  showCandidates(facts.candidates);
  $("more").hidden = false;
  for (const id of ["again", "copy"]) $(id).disabled = false;
  $("main").dataset.verdict = code;
}

function note(facts, candidates) {
  const rows = candidates.map(({ type, protocol, address, port, priority, url }) => ({
    type,
    protocol,
    address,
    port,
    priority,
    url,
  }));
  const order = ({ type }) => ["host", "srflx", "relay"].indexOf(type);
  facts.candidates = [...facts.candidates, ...rows]
    .sort((one, two) => order(one) - order(two))
    .slice(0, MAX_CANDIDATES);
}

function show(facts) {
  const found = lines(facts);
  $("steps").replaceChildren(...found.map(item));
  const words = { good: "works", warn: "needs a look", bad: "fails" };
  const fresh = found.filter(({ id, url, state }) => state !== "wait" && !announced.has(id + url));
  for (const { id, url } of fresh) announced.add(id + url);
  if (fresh.length > 0)
    $("progress").textContent = fresh.map(({ title, state }) => `${title} ${words[state]}.`).join(" ");
}

function item({ id, title, state, text, cure, url }) {
  const row = make("li", "finding");
  Object.assign(row.dataset, { id, state, ...(url && { url }) });
  const words = { good: "Works", warn: "Needs a look", bad: "Fails", wait: "Running" };
  const mark = make("span", "mark", MARKS[state]);
  mark.ariaHidden = "true";
  const body = make("div");
  const heading = make("h3", "", title);
  heading.append(make("span", "hidden", `: ${words[state]}`));
  if (url) heading.append(make("code", "", url));
  body.append(heading, make("p", "", text));
  if (cure) body.append(make("p", "note", cure));
  row.append(mark, body);
  return row;
}

function showCandidates(candidates) {
  $("candidates-scroll").hidden = candidates.length === 0;
  $("candidates-note").textContent =
    candidates.length > 0
      ? "Where this browser can be reached, as it would tell the other side of a call."
      : "None were gathered.";
  $("candidates").tHead.rows[0].replaceChildren(
    ...CANDIDATE_COLUMNS.map(([, title]) => {
      const cell = make("th", "", title);
      cell.scope = "col";
      return cell;
    }),
  );
  const cells = (row) => CANDIDATE_COLUMNS.map(([key]) => make("td", "", row[key] ?? ""));
  $("candidates").tBodies[0].replaceChildren(
    ...candidates.map((row) => {
      const line = make("tr");
      line.append(...cells(row));
      return line;
    }),
  );
}

// What a person does

$("again").addEventListener("click", async () => {
  await run();
  // A button that is switched off loses the keyboard.
  if (document.activeElement === document.body) $("again").focus();
});

copying($("copy"), $("report"));
run();
