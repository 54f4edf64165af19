// What the network check's findings mean: the kind of NAT, a line for each step, the verdict, the report. Pure: no page, no
// network, so that every combination can be tried by itself.
//
// Facts: { signIn, offers, stun, nat, relays, candidates, page }, each there once its step is done; see check.js for who
// gathers them.

/** The ways through a relay, the better ones first. */
const WAYS = ["udp", "tcp", "tls"];
const OVER = { udp: "UDP", tcp: "TCP", tls: "TLS" };
/** Beyond this, people interrupt each other; below that, video stalls. Milliseconds, bits per second. */
const SLOW_MS = 400;
const NARROW_BITS = 700_000;

/** "v4" or "v6", also of an address whose digits the browser hides, and undefined for a name. */
export function family(address) {
  if (address?.includes(":")) return "v6";
  return /^[\dx]+(\.[\dx]+){3}$/.test(address ?? "") ? "v4" : undefined;
}

/** What a `stun:`, `turn:` or `turns:` URL says. */
export function readUrl(url) {
  const [, scheme, host, port, query = ""] =
    /^(stuns?|turns?):(\[[^\]]*\]|[^:?]*)(?::(\d+))?(?:\?(.*))?$/i.exec(url) ?? [];
  if (!scheme) return undefined;
  const secure = scheme.toLowerCase().endsWith("s");
  const transport = /(?:^|&)transport=(\w+)/i.exec(query)?.[1].toLowerCase() ?? (secure ? "tcp" : "udp");
  return {
    scheme: scheme.toLowerCase(),
    host,
    port: Number(port ?? (secure ? 5349 : 3478)),
    way: secure ? "tls" : transport,
  };
}

/**
 * The kind of NAT in one address family: "silent" (nothing came back), "none" (the server sees an address of this machine),
 * "alike" (one port towards both of the server's), "differs" (a port for each), "unknown" (it can't be told).
 *
 * A browser leaves out what a socket has been told before: two servers that see the same port make one candidate, and what
 * equals a visible address of the machine makes none. So the ports that each server alone made are counted against those
 * that both together made from the same number of sockets.
 * @param {{alone: object[], together: object}} gathered by one server each, and by all from the same sockets
 * @param {"v4"|"v6"} wanted
 */
export function natKind({ alone, together }, wanted) {
  const of = (gathering, type) =>
    gathering.candidates.filter(
      (found) => found.type === type && found.protocol === "udp" && family(found.address) === wanted,
    );
  const count = (gathering) => new Set(of(gathering, "srflx").map(({ address, port }) => `${address} ${port}`)).size;
  const all = [...alone, together];
  const hosts = new Set(all.flatMap((gathering) => of(gathering, "host")).map(({ address }) => address));
  const seen = all
    .flatMap(({ candidates }) => candidates.map(mapped))
    .filter((address) => family(address) === wanted && !/^(0\.0\.0\.0|::)$/.test(address));
  if (seen.length === 0) return alone.some((gathering) => answersPlainly(gathering, wanted)) ? "none" : "silent";
  if (seen.some((address) => hosts.has(address))) return "none";
  const counts = alone.map(count).filter((found) => found > 0);
  const sockets = Math.max(0, ...counts);
  if (sockets > 0 && count(together) > sockets) return "differs";
  return counts.length > 1 && [...counts, count(together)].every((found) => found === sockets) ? "alike" : "unknown";
}

/** What address a candidate says the server saw; of a relay only Chromium says it, Firefox repeats the relay's own. */
function mapped({ type, address, port, relatedAddress, relatedPort }) {
  if (type === "srflx") return address;
  return type === "relay" && (relatedAddress !== address || relatedPort !== port) ? relatedAddress : undefined;
}

/**
 * Whether a server has answered in a gathering with it alone, in either family; undefined where that can't be told. TURN is made
 * of STUN: a relay over UDP granted on the same port is an answer, too. Where an address that the server saw is the machine's
 * own, its other ports' answers show in nothing, and there is silence only in what complains.
 * @param {object} gathering
 * @param {{kinds?: string[], granted?: boolean}} [else] the kinds of NAT, and whether that port has granted a relay
 */
export function answers(gathering, { kinds = [], granted = false } = {}) {
  const { candidates, errors, complete } = gathering;
  if (granted || candidates.some(({ type }) => type === "srflx")) return true;
  if (["v4", "v6"].some((wanted) => answersPlainly(gathering, wanted))) return true;
  return kinds.includes("none") && !complete && errors.length === 0 ? undefined : false;
}

const isLoopback = (host) => /^(localhost|.*\.localhost|127(\.\d+){3}|\[?::1\]?)$/i.test(host);

/** Whether the browser gave up on this machine's loopback at once, as those do that leave it out: then silence says nothing. */
function isDeaf(stun) {
  const isShunned = ({ url, answered, atOnce }) => answered === false && atOnce && isLoopback(readUrl(url).host);
  return Boolean(stun?.servers.length) && stun.servers.every(isShunned);
}

const DEAF = "Cannot tell: no answer came, but some browsers, Firefox among them, leave this machine’s own localhost out.";
const ELSEWHERE = "Open this page by the machine’s own name or address, as others will.";

/** What stands between the machine and the server, which is nothing where both are one machine. */
function between({ v4, v6, mapped }) {
  const isOwn = mapped.length > 0 && mapped.every(isLoopback);
  const kind = (found) => (isOwn && found !== "silent" ? "none" : found);
  return { v4: kind(v4), v6: kind(v6) };
}

/**
 * An answer that equals the machine's own address shows only in that gathering ends without a complaint. There is none, either,
 * when the server's address is one of the other family, which is not asked then.
 */
function answersPlainly({ candidates, errors, complete, tells, literal }, wanted) {
  if (!complete || !tells || (literal && literal !== wanted)) return false;
  const hosts = candidates.some(
    (found) => found.type === "host" && found.protocol === "udp" && family(found.address) === wanted,
  );
  return hosts && !errors.some((error) => error.family === undefined || error.family === wanted);
}

/**
 * One line for each step, for those that are under way, too.
 * @returns {{id: string, title: string, state: "wait"|"good"|"warn"|"bad", text: string, cure?: string, url?: string}[]}
 */
export function lines({ page, signIn, stun, nat, relays = [], offers }) {
  if (!signIn) return [wait("sign-in", TITLES.signIn)];
  const found = [signInLine(signIn)];
  if (page?.webrtc === false) found.push(withoutWebRtc);
  if (!signIn.ok || page?.webrtc === false) return found;
  const deaf = isDeaf(stun);
  if (deaf) found.push(...["stun", "family", "nat"].map(deafLine));
  else if (stun) found.push(stunLine(stun, offers, relays), familyLine(nat), natLine(nat, offers));
  else found.push(wait("stun", TITLES.stun), wait("family", TITLES.family), wait("nat", TITLES.nat));
  const ways = relays.map((relay) => relayLine(relay, deaf)).concat(offers ? missingLines(offers) : []);
  return [...found, ...ways.sort((one, two) => RELAYS.indexOf(one.id) - RELAYS.indexOf(two.id))];
}

const TITLES = { signIn: "Signaling (WebSocket)", stun: "STUN over UDP", family: "IPv4 and IPv6", nat: "NAT" };
const RELAYS = [...WAYS.map((way) => `relay-${way}`), "relay-more"];

const wait = (id, title) => ({ id, title, state: "wait", text: "Checking…" });

const deafLine = (id) => ({ id, title: TITLES[id], state: "warn", text: DEAF, cure: ELSEWHERE });

const withoutWebRtc = {
  id: "webrtc",
  title: "WebRTC",
  state: "bad",
  text: "This browser has none, or it is switched off.",
  cure: "Use another browser, or look for WebRTC in this one’s privacy settings and extensions.",
};

function signInLine({ ok, ms, url, code, message, token, local }) {
  const id = "sign-in";
  const title = TITLES.signIn;
  const scheme = new URL(url).protocol.replace(":", "");
  if (ok) {
    const text = `Signed in over ${scheme} in ${ms} ms.`;
    if (scheme === "wss" || local) return { id, title, state: "good", text };
    const cure = "Open this page by https: without it, browsers give no page the camera or the microphone.";
    return { id, title, state: "warn", text: `${text} Nothing on the way is encrypted.`, cure };
  }
  const bad = (text, cure) => ({ id, title, state: "bad", text, cure });
  switch (code) {
    case "auth":
      if (token)
        return bad("The server refused this token.", "Ask whoever runs the server for one that is still good.");
      return bad("The server lets only people with a token sign in.", "Open this page with yours: /check?token=…");
    case "rate":
      return bad(
        "The server has seen too many sign-ins from here and wants a pause.",
        "Wait a minute, then run the check again.",
      );
    case "full":
      return bad("The server is full.", "Try again later, or ask whoever runs it to raise its limits.");
    case "name-taken":
      return bad("This token’s account is signed in elsewhere.", "Close the other page, then run the check again.");
    case "unreachable":
      return bad(
        `No ${scheme} connection came about, although this page loaded.`,
        "A proxy or firewall on the way may block WebSockets, or the server doesn’t let pages of this address in (http.allowed_origins).",
      );
    default:
      return bad(`The server refused the sign-in: ${message}.`, "Ask whoever runs the server what this means.");
  }
}

/** What the operator sets: where the list of ICE servers is written out, nothing but that changes it. */
const setBy = (offers, cure) => (offers?.turns === "replaced" ? "Its operator adds it to turn.ice_servers." : cure);

function stunLine({ servers, limit }, offers, relays) {
  const id = "stun";
  const title = TITLES.stun;
  if (servers.length === 0) {
    return {
      id,
      title,
      state: "warn",
      text: "This server offers no STUN.",
      cure: setBy(offers, "Its operator sets turn.listen_udp."),
    };
  }
  const answered = servers.filter((server) => server.answered);
  const names = (list) => list.map(({ url }) => url.replace(/^stuns?:/i, "")).join(" and ");
  if (answered.length > 0) {
    const times = answered.map(({ ms }) => ms).filter((ms) => ms !== undefined);
    const soon = times.length > 0 ? ` within ${Math.min(...times)} ms` : "";
    const text = `Answered${soon}: ${names(answered)}.`;
    const unclear = servers.filter((server) => server.answered === undefined);
    const rest = unclear.length > 0 ? ` Whether ${names(unclear)} did cannot be told here.` : "";
    if (answered.length + unclear.length === servers.length) return { id, title, state: "good", text: text + rest };
    const silent = names(servers.filter((server) => server.answered === false));
    return {
      id,
      title,
      state: "warn",
      text: `${text} No answer: ${silent}.`,
      cure: "A firewall may let only some UDP ports through; one is enough for calls.",
    };
  }
  if (servers.every((server) => server.answered === undefined)) {
    const text = `Cannot tell: what ${names(servers)} would answer is this machine’s own address, which shows in nothing.`;
    return { id, title, state: "warn", text, cure: "Nothing to do where a relay over UDP works: UDP gets through." };
  }
  const silence = `No answer in ${seconds(limit)}: ${names(servers)}.`;
  if (relays.some(({ url, state }) => state === "carried" && readUrl(url).way === "udp")) {
    const cure = "Something on the way, or the server’s own firewall, drops STUN’s requests: direct calls need the answer.";
    return { id, title, state: "bad", text: `${silence} Other UDP gets through.`, cure };
  }
  return {
    id,
    title,
    state: "bad",
    text: `${silence} UDP doesn’t get through.`,
    cure: "A firewall of this network, or the server’s own, blocks UDP on these ports. Calls need a relay over TCP or TLS then.",
  };
}

function familyLine({ v4, v6, mapped, asked }) {
  const id = "family";
  const title = TITLES.family;
  const works = { v4: v4 !== "silent", v6: v6 !== "silent" };
  const seen = (wanted) => {
    const addresses = mapped.filter((address) => family(address) === wanted);
    return addresses.length > 0 ? ` (seen as ${addresses.join(", ")})` : "";
  };
  if (works.v4 && works.v6)
    return { id, title, state: "good", text: `Both reach the server: IPv4${seen("v4")}, IPv6${seen("v6")}.` };
  if (works.v4) return { id, title, state: "good", text: `IPv4${seen("v4")}; no IPv6 to this server.` };
  if (works.v6) {
    return { id, title, state: "good", text: `IPv6${seen("v6")}; no IPv4 to this server.` };
  }
  if (asked === 0) return { id, title, state: "warn", text: `Cannot tell: ${UNASKED}.` };
  return { id, title, state: "bad", text: "Neither brought an answer over UDP." };
}

const UNASKED = "the server offers no STUN to ask";

function natLine(nat, offers) {
  const { asked, compared, hidden } = nat;
  const { v4, v6 } = between(nat);
  const id = "nat";
  const title = TITLES.nat;
  const kind = v4 === "silent" ? v6 : v4;
  const open = v6 === "none" && v4 !== "none" && v4 !== "silent" ? " IPv6 has none in its way." : "";
  switch (kind) {
    case "none":
      return { id, title, state: "good", text: "None: the server sees an address of this very machine." };
    case "alike": {
      const maybe = hidden
        ? " Whether there is a NAT at all cannot be told: this browser hides the machine’s own addresses."
        : "";
      return {
        id,
        title,
        state: "good",
        text: `Each destination sees the same port (cone-like): direct calls can work.${maybe}${open}`,
      };
    }
    case "differs":
      return {
        id,
        title,
        state: "warn",
        text: `Each destination sees another port (symmetric): direct calls work only to people whose network lets anyone in.${open}`,
        cure: `Nothing to do where a relay works. Another network${v4 === "differs" ? ", or IPv6," : ""} allows direct calls.`,
      };
    case "silent":
      if (asked === 0) return { id, title, state: "warn", text: `Cannot tell: ${UNASKED}.` };
      return { id, title, state: "bad", text: "Cannot tell: no answer came over UDP." };
    default: {
      const warn = (text, cure) => ({ id, title, state: "warn", text: `Cannot tell which kind: ${text}`, cure });
      if (asked < 2)
        return warn(
          "that takes two STUN ports, and the server offers fewer.",
          setBy(offers, "Its operator names two addresses in turn.listen_udp."),
        );
      if (compared < 2)
        return warn(
          "that takes two STUN ports, and fewer answered.",
          "Whatever blocks the other one leaves calls alone.",
        );
      return warn("the answers don’t fit together.", "Run the check again: a packet may have been lost.");
    }
  }
}

function relayLine(relay, deaf) {
  const { url, state, code, text, limit, timedOut, tells } = relay;
  const at = readUrl(url);
  const line = { id: `relay-${at.way}`, title: `Relay over ${OVER[at.way]}`, url };
  if (state === "wait") return { ...line, state, text: "Checking…" };
  const bad = (text, cure) => ({ ...line, state: "bad", text, cure });
  if (state === "carried") return { ...line, ...carried(relay) };
  if (state === "granted") {
    return bad(
      `The relay was granted, but no data came through it in ${seconds(limit)}.`,
      "The server refuses to pass data on to its own relays (403: turn.peers), its bandwidth or volume is used up, or a firewall blocks its relay ports.",
    );
  }
  if (state === "faulty")
    return bad(`This browser takes no such address: ${text}.`, "The server’s operator corrects turn.ice_servers.");
  if (state === "refused") return bad(...refusal(code, text));
  if (deaf && isLoopback(at.host)) return { ...line, state: "warn", text: DEAF, cure: ELSEWHERE };
  const asked = at.way === "udp" ? `UDP port ${at.port}` : `TCP port ${at.port}`;
  const why = tells ? "" : " This browser doesn’t say why; Chromium does.";
  const soon = at.way === "tls" ? `No TLS connection to port ${at.port} comes about` : `${asked} cannot be reached`;
  return bad(`${timedOut ? `No answer from ${asked} in ${seconds(limit)}` : soon}.${why}`, silentCure(at));
}

function carried({ rtt, bits, bytes }) {
  const speed = `${rtt < 1 ? "under 1" : Math.round(rtt)} ms to the relay and back, ${megabits(bits)} (${megabytes(bytes)} sent through it)`;
  if (rtt > SLOW_MS) {
    return {
      state: "warn",
      text: `Carries data, but slowly: ${speed}.`,
      cure: "The server is far away, or the line is busy: people will talk over each other.",
    };
  }
  if (bits < NARROW_BITS) {
    return {
      state: "warn",
      text: `Carries data, but little: ${speed}.`,
      cure: "Enough to talk, too little for video: the line is busy, loses packets, or the server limits it.",
    };
  }
  return { state: "good", text: `Carries data: ${speed}.` };
}

/** What a TURN server's error means (RFC 8656, section 19; RFC 8489, section 14.8), and its cure. */
function refusal(code, text) {
  switch (code) {
    case 401:
    case 441:
      return [
        `The relay refused the credential (${code}): it is wrong or has expired.`,
        "Run the check again for a fresh one. If it stays: the server’s clock, turn.secrets or turn.ice_servers is wrong.",
      ];
    case 403:
      return ["The relay refuses this client (403).", "Its operator has forbidden relaying from here."];
    case 486:
      return [
        "The relay’s quota for this member or this network is used up (486).",
        "End other calls, or have turn.limits raised.",
      ];
    case 508:
      return [
        "The relay has no room left (508): its ports are taken, or its volume for the day or the month is used up.",
        "Try later; its operator can widen turn.relay_ports or raise turn.limits.",
      ];
    case 437:
    case 438:
      return [`The relay lost track of this client (${code}).`, "Run the check again."];
    case 440:
      return ["The relay has no address of the asked-for family (440).", "Its operator sets turn.relay_ip."];
    case 442:
      return ["The relay doesn’t relay UDP (442).", "Its operator must allow UDP: WebRTC needs nothing else."];
    default:
      if (code >= 300 && code < 400)
        return [
          `The relay sends clients on to another server (${code}).`,
          "Its operator puts that one into turn.ice_servers.",
        ];
      if (code >= 500) return [`The relay failed (${code}${text ? `: ${text}` : ""}).`, "The server’s log says more."];
      return [`The relay refused (${code}${text ? `: ${text}` : ""}).`, "The server’s log says more."];
  }
}

function silentCure({ way, port, scheme }) {
  if (way === "udp") return "A firewall blocks this UDP port, here or at the server. TCP or TLS may still work.";
  if (way === "tcp")
    return "A firewall blocks this TCP port, here or at the server, or lets only web ports through. TLS on port 443 gets furthest.";
  const certificate = "or its certificate isn’t one that browsers accept for this name";
  if (scheme === "turns" && port === 443)
    return `Something on the way takes TLS apart, the server doesn’t listen there, ${certificate}.`;
  return `A firewall blocks this port, the server doesn’t listen there, ${certificate}. Port 443 gets through most firewalls.`;
}

/** The ways that the server doesn't offer at all. */
function missingLines(offers) {
  const { turn, turns, skipped } = offers;
  const ways = new Set(turn.map((url) => readUrl(url)?.way));
  const found = WAYS.filter((way) => !ways.has(way)).map((way) => {
    const line = { id: `relay-${way}`, title: `Relay over ${OVER[way]}`, state: "warn" };
    if (way === "udp")
      return {
        ...line,
        text: "Not offered by this server.",
        cure: setBy(offers, "Its operator sets turn.listen_udp: it is the fastest relay."),
      };
    if (way === "tcp")
      return {
        ...line,
        text: "Not offered by this server.",
        cure: setBy(offers, "Its operator sets turn.listen_tcp: it helps where UDP is blocked."),
      };
    if (turns === "self-signed") {
      return {
        ...line,
        text: "Not offered: the server’s certificate is self-signed, and no browser takes such a relay.",
        cure: 'Its operator sets tls.mode = "files" with a certificate that browsers trust. Networks that let only TLS out need it.',
      };
    }
    return {
      ...line,
      text: "Not offered by this server.",
      cure: setBy(offers, "Networks that let only TLS on port 443 out need it: http.listen, or turn.listen_tls."),
    };
  });
  if (skipped > 0)
    found.push({
      id: "relay-more",
      title: "More relays",
      state: "warn",
      text: `${skipped} more in the list were not tried.`,
    });
  return found;
}

/**
 * What all of it comes to.
 * @returns {{code: "direct"|"direct-only"|"relay-udp"|"relay-tcp"|"relay-tls"|"unsure"|"none", state: "good"|"warn"|"bad", text: string}}
 */
export function verdict(facts) {
  const found = judge(facts);
  if (!facts.signIn?.ok || !facts.signIn.local || facts.page?.webrtc === false) return found;
  return { ...found, text: `${found.text} ${isDeaf(facts.stun) ? ELSEWHERE : LOCAL}` };
}

const LOCAL = "This page is open on the server’s own machine: other networks are checked from within them.";

function judge(facts) {
  const { signIn, stun, relays = [] } = facts;
  if (!signIn?.ok) {
    return {
      code: "none",
      state: "bad",
      text: `Calls won’t connect, because signing in fails. ${signInLine(signIn).text}`,
    };
  }
  if (facts.page?.webrtc === false) {
    return {
      code: "none",
      state: "bad",
      text: "Calls won’t connect, because this browser has no WebRTC, or it is switched off.",
    };
  }
  const works = WAYS.map((way) =>
    relays.find(({ url, state }) => state === "carried" && readUrl(url).way === way),
  ).find(Boolean);
  const by = works && relayWords(works);
  if (isDeaf(stun)) {
    const text = `Whether calls will connect ${by ? `other than by relay over ${by} ` : ""}cannot be told at this address: some browsers, Firefox among them, leave localhost out.`;
    return { code: "unsure", state: "warn", text };
  }
  const nat = between(facts.nat);
  const direct = directly(nat);
  if (direct && works) {
    const text = `Calls will connect directly${direct.whom}, and by relay over ${by} ${direct.whom ? "to everyone else" : "where the other side’s network doesn’t allow that"}.`;
    return { code: "direct", state: "good", text };
  }
  if (direct) {
    const text = `Calls will connect directly${direct.whom}, but not to people in strict networks, because ${noRelay(relays)}.`;
    return { code: "direct-only", state: "warn", text };
  }
  const kinds = [nat.v4, nat.v6];
  const unsure = kinds.includes("unknown");
  if (works) {
    const { way } = readUrl(works.url);
    const why = unsure
      ? "Some may connect directly; which can’t be told."
      : kinds.includes("differs")
        ? "Directly only to people whose network lets anyone in, because this one’s NAT is symmetric."
        : `Not directly, because ${whyNotDirectly(facts)}.`;
    const only = way === "tls" ? "only by TLS" : `by relay over ${OVER[way]}`;
    const on = way === "tls" ? ` on port ${readUrl(works.url).port}` : "";
    return {
      code: `relay-${way}`,
      state: way === "udp" ? "good" : "warn",
      text: `Calls will connect ${only}${on}. ${why}`,
    };
  }
  if (unsure || kinds.includes("differs")) {
    const to = unsure ? "some people" : "people whose network lets anyone in";
    return {
      code: "unsure",
      state: "bad",
      text: `Calls may connect directly to ${to} and to nobody else, because ${noRelay(relays)}.`,
    };
  }
  const text = `Calls won’t connect, except within this network, because ${whyNotDirectly(facts)} and ${noRelay(relays)}.`;
  return { code: "none", state: "bad", text };
}

const whyNotDirectly = ({ nat }) => (nat.asked === 0 ? UNASKED : "STUN over UDP gets no answer here");

/** To whom direct calls go, undefined when that is nobody for sure. */
function directly({ v4, v6 }) {
  const good = (kind) => kind === "none" || kind === "alike";
  if (good(v4)) return { whom: "" };
  return good(v6) ? { whom: " to people who have IPv6" } : undefined;
}

function relayWords({ url }) {
  const { way, port } = readUrl(url);
  return way === "tls" ? `TLS on port ${port}` : OVER[way];
}

function noRelay(relays) {
  if (relays.length === 0) return "the server offers no relay";
  const codes = new Set(relays.map(({ state, code }) => (state === "refused" ? code : state)));
  if (codes.has(401) || codes.has(441)) return "the relay refuses the credential";
  if (codes.has(486)) return "the relay’s quota is used up";
  if (codes.has(508)) return "the relay has no room left";
  if (codes.has("granted")) return "the relay passes no data on";
  if ([...codes].some((code) => typeof code === "number")) return "the relay refuses";
  if (codes.has("faulty")) return "the relay’s address is faulty";
  return "no relay can be reached";
}

/** Kept on one line. */
function seconds(ms) {
  return `${ms / 1000}\u00a0s`;
}

function megabits(bits) {
  if (bits >= 10_000_000) return `${Math.round(bits / 1_000_000)} Mbit/s`;
  return bits >= 1_000_000 ? `${(bits / 1_000_000).toFixed(1)} Mbit/s` : `${Math.round(bits / 1000)} kbit/s`;
}

function megabytes(bytes) {
  return bytes >= 1_000_000 ? `${(bytes / 1_000_000).toFixed(1)} MB` : `${Math.round(bytes / 1000)} kB`;
}

/** Everything, for an issue: words for people first, then the same as JSON. No credential is in the facts, so none is here. */
export function report(facts) {
  const { code, state, text } = verdict(facts);
  const rows = lines(facts);
  const marks = { good: "ok", warn: "warning", bad: "FAILED" };
  const cell = (value) =>
    String(value ?? "")
      .replaceAll("|", "\\|")
      .replace(/[\r\n]+/g, " ");
  const table = (facts.candidates ?? []).map(
    (found) => `| ${CANDIDATE_COLUMNS.map(([key]) => cell(found[key])).join(" | ")} |`,
  );
  return [
    `## Network check of ${facts.page.origin}`,
    "",
    `**${text}**`,
    "",
    ...rows.map(
      (line) =>
        `- ${marks[line.state]}: ${line.title}${line.url ? ` (${line.url})` : ""}: ${line.text}${line.cure ? ` ${line.cure}` : ""}`,
    ),
    "",
    `| ${CANDIDATE_COLUMNS.map(([, title]) => title).join(" | ")} |`,
    `|${CANDIDATE_COLUMNS.map(() => "---|").join("")}`,
    ...table,
    "",
    facts.page.browser,
    "",
    "```json",
    JSON.stringify({ verdict: code, state, lines: rows.map(({ id, state, url }) => ({ id, state, url })), ...facts }),
    "```",
    "",
  ].join("\n");
}

export const CANDIDATE_COLUMNS = [
  ["type", "Type"],
  ["protocol", "Protocol"],
  ["address", "Address"],
  ["port", "Port"],
  ["priority", "Priority"],
  ["url", "From"],
];
