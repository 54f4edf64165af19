// What the network check makes of its findings, every combination by itself.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

const source = await readFile(new URL("../../static/diagnosis.js", import.meta.url), "utf8");
const { answers, family, lines, natKind, readUrl, report, verdict } = await import(
  `data:text/javascript,${encodeURIComponent(source)}`
);

const KINDS = ["none", "alike", "differs", "unknown", "silent"];
const CODES = [300, 401, 403, 437, 438, 440, 441, 442, 486, 500, 508];
const URLS = { udp: "turn:a:3478?transport=udp", tcp: "turn:a:3478?transport=tcp", tls: "turns:a:443?transport=tcp" };
const signedIn = { ok: true, ms: 20, url: "wss://a/ws", token: false, local: false };
const all = { turn: Object.values(URLS), turns: "served", skipped: 0 };
const carried = (way, more) => ({
  url: URLS[way],
  state: "carried",
  rtt: 12.3,
  bytes: 2_000_000,
  bits: 9_000_000,
  ...more,
});
const silent = (way) => ({ url: URLS[way], state: "silent", timedOut: true, limit: 12_000, tells: true });
const nat = (v4, v6 = "silent") => ({ v4, v6, asked: 2, compared: 2, hidden: false, mapped: ["203.0.113.7"] });

function facts(more) {
  const stun = {
    limit: 6000,
    servers: [
      { url: "stun:a:3478", answered: true, ms: 30 },
      { url: "stun:a:443", answered: true, ms: 31 },
    ],
  };
  const page = { origin: "https://a", browser: "b", time: "t" };
  return {
    page,
    candidates: [],
    signIn: signedIn,
    offers: all,
    stun,
    nat: nat("alike"),
    relays: Object.keys(URLS).map((way) => carried(way)),
    ...more,
  };
}

const line = (found, id) => lines(found).find((line) => line.id === id);

function isSentence(text) {
  assert.match(text, /^[A-Z0-9].*[.]$/s);
  assert.doesNotMatch(text, /undefined|null|NaN|\[object|\s\s|\.\.|Infinity/);
}

// The kind of NAT

const host = (address) => ({ type: "host", protocol: "udp", address, port: 5000 });
const srflx = (port, address = "203.0.113.7") => ({ type: "srflx", protocol: "udp", address, port });
const gathering = (candidates, more) => ({ candidates, errors: [], complete: false, tells: true, ...more });
const kind = (alone, together, wanted = "v4") => natKind({ alone, together }, wanted);

test("one port from both servers together is a NAT that maps alike, two are one that doesn't", () => {
  const alone = [gathering([srflx(1)]), gathering([srflx(2)])];

  assert.equal(kind(alone, gathering([srflx(3)])), "alike");
  assert.equal(kind(alone, gathering([srflx(3), srflx(4)])), "differs");
});

test("two interfaces make two ports without a NAT that differs, and four with one", () => {
  const alone = [gathering([srflx(1), srflx(2)]), gathering([srflx(3), srflx(4)])];

  assert.equal(kind(alone, gathering([srflx(5), srflx(6)])), "alike");
  assert.equal(kind(alone, gathering([srflx(5), srflx(6), srflx(7), srflx(8)])), "differs");
});

test("one server, one answer, or answers that don't fit tell no kind", () => {
  assert.equal(kind([gathering([srflx(1)])], gathering([srflx(2)])), "unknown");
  assert.equal(kind([gathering([srflx(1)]), gathering([])], gathering([srflx(2)])), "unknown");
  assert.equal(kind([gathering([srflx(1)]), gathering([srflx(2)])], gathering([])), "unknown");
  assert.equal(
    kind([gathering([srflx(1), srflx(2)]), gathering([srflx(3)])], gathering([srflx(4), srflx(5)])),
    "unknown",
  );
});

test("what the server sees is an address of the machine: no NAT", () => {
  const seen = gathering([host("203.0.113.7"), srflx(1)]);
  const relayed = {
    type: "relay",
    protocol: "udp",
    address: "198.51.100.1",
    port: 9,
    relatedAddress: "203.0.113.7",
    relatedPort: 5000,
  };

  assert.equal(kind([seen], seen), "none");
  assert.equal(kind([gathering([])], gathering([host("203.0.113.7"), relayed])), "none");
});

test("a relay that repeats its own address, as in Firefox, says nothing of the machine's", () => {
  const relayed = {
    type: "relay",
    protocol: "udp",
    address: "203.0.113.7",
    port: 9,
    relatedAddress: "203.0.113.7",
    relatedPort: 9,
  };

  assert.equal(kind([gathering([])], gathering([host("203.0.113.7"), relayed])), "silent");
});

test("an answer that equals the machine's own address makes no candidate, and counts when nothing complains", () => {
  const done = (more) => gathering([host("203.0.113.7")], { complete: true, ...more });
  const errors = [{ code: 701, family: "v4" }];

  assert.equal(kind([done()], done()), "none");
  assert.equal(answers(done()), true);
  for (const more of [
    { complete: false },
    { tells: false },
    { errors },
    { errors: [{ code: 701 }] },
    { literal: "v6" },
  ]) {
    assert.equal(kind([done(more)], done()), "silent", JSON.stringify(more));
    assert.equal(answers(done(more)), false, JSON.stringify(more));
  }
  assert.equal(kind([done({ errors: [{ code: 701, family: "v6" }] })], done()), "none");
});

test("families are told apart, also where the browser hides the digits, and candidates of one don't count for the other", () => {
  const both = gathering([srflx(1), srflx(1, "2001:db8::7"), host("2001:db8::7")]);

  assert.deepEqual(
    ["203.0.113.7", "0.0.0.x", "2001:db8::1", "0:0:0:x:x:x:x:x", "f00.local", "a.b.c.d", undefined].map(family),
    ["v4", "v4", "v6", "v6", undefined, undefined, undefined],
  );
  assert.equal(kind([both, both], both, "v4"), "alike");
  assert.equal(kind([both, both], both, "v6"), "none");
  assert.equal(kind([gathering([host("f00.local")])], gathering([]), "v6"), "silent");
});

test("addresses of servers are read as RFC 7064 and 7065 have them", () => {
  assert.deepEqual(readUrl("turns:[2001:db8::1]"), { scheme: "turns", host: "[2001:db8::1]", port: 5349, way: "tls" });
  assert.deepEqual(readUrl("turn:a.example"), { scheme: "turn", host: "a.example", port: 3478, way: "udp" });
  assert.equal(readUrl("turn:a:80?transport=tcp").way, "tcp");
  for (const wrong of ["", "http://a", "turn//a", "stun:a:b"]) assert.equal(readUrl(wrong), undefined, wrong);
});

// Lines

test("every line is a sentence, and a step that fails has a cure", () => {
  const relays = [
    carried("udp", { rtt: 900 }),
    carried("udp", { bits: 300_000 }),
    { ...silent("tls"), tells: false },
    { ...silent("tcp"), timedOut: false },
    { url: URLS.udp, state: "granted", limit: 12_000 },
    { url: URLS.udp, state: "faulty", text: "blocked port" },
    ...CODES.map((code) => ({ url: URLS.udp, state: "refused", code, text: "" })),
    ...Object.keys(URLS).flatMap((way) => [carried(way), silent(way)]),
  ];
  const refusals = ["auth", "rate", "full", "name-taken", "unreachable", "whatever"];
  const cases = [
    ...relays.map((relay) => facts({ relays: [relay] })),
    ...refusals.map((code) => ({ signIn: { ok: false, url: "wss://a/ws", code, message: "what it said" } })),
    ...["served", "self-signed", "off", "replaced", "unknown"].map((turns) =>
      facts({ relays: [], offers: { turn: [], turns, skipped: 2 } }),
    ),
    ...KINDS.flatMap((v4) => KINDS.map((v6) => facts({ nat: nat(v4, v6) }))),
  ];

  for (const found of cases.flatMap(lines)) {
    isSentence(found.text);
    assert.ok(["good", "warn", "bad"].includes(found.state));
    if (found.state === "good") assert.equal(found.cure, undefined, found.text);
    if (found.cure) assert.match(found.cure, /\S$/);
    if (/^(relay-.*|sign-in|stun)$/.test(found.id) && found.state === "bad")
      isSentence(found.cure.replace("token=…", "token=."));
  }
});

test("every refusal of a relay has a sentence of its own, which names its number", () => {
  const texts = CODES.map(
    (code) => line(facts({ relays: [{ url: URLS.udp, state: "refused", code, text: "" }] }), "relay-udp").text,
  );

  assert.equal(new Set(texts).size, CODES.length);
  texts.forEach((text, index) => assert.match(text, new RegExp(`\\b${CODES[index]}\\b`)));
});

test("steps under way are listed, too, and relays stand in their order", () => {
  const begun = { signIn: signedIn, offers: { ...all, turn: [URLS.tls] }, relays: [{ url: URLS.tls, state: "wait" }] };

  assert.deepEqual(
    lines({}).map(({ id, state }) => [id, state]),
    [["sign-in", "wait"]],
  );
  assert.deepEqual(
    lines(begun).map(({ id, state }) => [id, state]),
    [
      ["sign-in", "good"],
      ["stun", "wait"],
      ["family", "wait"],
      ["nat", "wait"],
      ["relay-udp", "warn"],
      ["relay-tcp", "warn"],
      ["relay-tls", "wait"],
    ],
  );
});

test("a missing relay over TLS is put down to the certificate only when that is why", () => {
  const missing = (turns) =>
    line(facts({ relays: [], offers: { turn: [URLS.udp, URLS.tcp], turns, skipped: 0 } }), "relay-tls");

  assert.match(missing("self-signed").text, /self-signed/);
  for (const turns of ["off", "replaced", "unknown"]) assert.doesNotMatch(missing(turns).text, /self-signed/);
});

test("a sign-in that wants a token says whether one was shown", () => {
  const refused = (token) => line({ signIn: { ok: false, code: "auth", url: "wss://a/ws", token } }, "sign-in");

  assert.match(refused(false).cure, /\?token=/);
  assert.match(refused(true).text, /refused this token/);
});

test("plain ws is fine on this machine and wants https anywhere else", () => {
  const state = (url, local) => line(facts({ signIn: { ...signedIn, url, local } }), "sign-in").state;

  assert.equal(state("ws://localhost/ws", true), "good");
  assert.equal(state("ws://calls.example/ws", false), "warn");
  assert.equal(state("wss://calls.example/ws", false), "good");
});

test("a NAT behind hidden addresses is not taken for certain", () => {
  const text = (hidden) => line(facts({ nat: { ...nat("alike"), hidden } }), "nat").text;

  assert.match(text(true), /cannot be told/);
  assert.doesNotMatch(text(false), /cannot be told/);
});

// The verdict

/** What is set up, and what the verdict must be: as the laboratory of networks has them. */
const NETWORKS = [
  ["no NAT", nat("none"), ["udp", "tcp", "tls"], "direct"],
  ["a NAT that maps alike", nat("alike"), ["udp", "tcp", "tls"], "direct"],
  ["a NAT that maps alike, without relay", nat("alike"), [], "direct-only"],
  ["a symmetric NAT", nat("differs"), ["udp", "tcp", "tls"], "relay-udp"],
  ["a symmetric NAT and IPv6 without", nat("differs", "none"), ["udp", "tcp", "tls"], "direct"],
  ["a symmetric NAT, without relay", nat("differs"), [], "unsure"],
  ["one STUN port", nat("unknown"), ["udp"], "relay-udp"],
  ["one STUN port, without relay", nat("unknown"), [], "unsure"],
  ["UDP blocked", nat("silent"), ["tcp", "tls"], "relay-tcp"],
  ["only TCP 443 out", nat("silent"), ["tls"], "relay-tls"],
  ["IPv6 only", nat("silent", "none"), ["udp", "tcp", "tls"], "direct"],
  ["nothing out", nat("silent"), [], "none"],
];

test("each network has its verdict, in a sentence of its own", () => {
  const texts = NETWORKS.map(([name, nat, works, code]) => {
    const relays = Object.keys(URLS).map((way) => (works.includes(way) ? carried(way) : silent(way)));
    const found = verdict(facts({ nat, relays }));
    assert.equal(found.code, code, name);
    isSentence(found.text);
    return found.text;
  });

  // No NAT and a NAT that maps alike come to the same, and IPv6 alone to the same as with a symmetric NAT beside.
  assert.equal(new Set(texts).size, NETWORKS.length - 2);
  assert.match(texts[NETWORKS.findIndex(([name]) => name === "only TCP 443 out")], /only by TLS on port 443/);
});

test("every combination of NAT and relays makes a sentence, and connects when a relay carries data or the NAT maps alike", () => {
  for (const v4 of KINDS) {
    for (const v6 of KINDS) {
      for (let mask = 0; mask < 8; mask += 1) {
        const relays = Object.keys(URLS).map((way, index) => (mask & (1 << index) ? carried(way) : silent(way)));
        const { code, state, text } = verdict(facts({ nat: nat(v4, v6), relays }));
        isSentence(text);
        assert.equal(/won’t/.test(text), code === "none");
        const open = [v4, v6].some((kind) => kind === "none" || kind === "alike");
        assert.equal(state !== "bad", open || mask > 0, `${v4} ${v6} ${mask}`);
      }
    }
  }
});

test("a verdict without a relay says why there is none", () => {
  const why = (relay) => verdict(facts({ nat: nat("silent"), relays: [{ url: URLS.udp, ...relay }] })).text;

  assert.match(why({ state: "refused", code: 401 }), /refuses the credential/);
  assert.match(why({ state: "refused", code: 486 }), /quota is used up/);
  assert.match(why({ state: "refused", code: 508 }), /no room/);
  assert.match(why({ state: "refused", code: 403 }), /the relay refuses/);
  assert.match(why({ state: "granted" }), /passes no data on/);
  assert.match(why({ state: "silent" }), /can be reached/);
  assert.match(verdict(facts({ nat: nat("silent"), relays: [] })).text, /offers no relay/);
});

test("without a sign-in no call connects, whatever the network", () => {
  const { code, state, text } = verdict({ signIn: { ok: false, code: "auth", url: "wss://a/ws", token: false } });

  assert.deepEqual([code, state], ["none", "bad"]);
  assert.match(text, /token/);
});

test("without WebRTC no call connects, and that is what both the verdict and a line say", () => {
  const found = { page: { origin: "https://a", webrtc: false }, signIn: signedIn };

  assert.deepEqual(
    lines(found).map(({ id, state }) => [id, state]),
    [
      ["sign-in", "good"],
      ["webrtc", "bad"],
    ],
  );
  assert.match(verdict(found).text, /no WebRTC/);
});

test("the report is words, a table and JSON that says the same", () => {
  const candidates = [
    { type: "srflx", protocol: "udp", address: "203.0.113.7", port: 1, priority: 2, url: "stun:a|b\n" },
  ];
  const text = report(facts({ candidates }));

  const { verdict: code, lines: states, nat } = JSON.parse(text.split("```json\n")[1].split("\n```")[0]);
  assert.equal(code, "direct");
  assert.equal(nat.v4, "alike");
  assert.deepEqual(
    states.map(({ id }) => id),
    ["sign-in", "stun", "family", "nat", "relay-udp", "relay-tcp", "relay-tls"],
  );
  assert.match(text, /\| srflx \| udp \| 203\.0\.113\.7 \| 1 \| 2 \| stun:a\\\|b {2}\|/);
});

// On the server's own machine

const LOCAL = { udp: "turn:localhost:3478?transport=udp", stun: "stun:localhost:3478" };

test("a relay granted on the same port is an answer, and where the own address is seen, mere quiet is none", () => {
  const quiet = gathering([host("192.0.2.2")]);

  assert.equal(answers(quiet, { granted: true }), true);
  assert.equal(answers(quiet, { kinds: ["none", "silent"] }), undefined);
  assert.equal(answers(quiet, { kinds: ["silent", "silent"] }), false);
  assert.equal(answers({ ...quiet, errors: [{ code: 701 }] }, { kinds: ["none", "silent"] }), false);
});

test("an answer that cannot be told is neither silence nor a contradiction of what works", () => {
  const stun = (...answered) => ({
    limit: 6000,
    servers: answered.map((answered, index) => ({ url: `stun:localhost:${index + 1}`, answered })),
  });
  const state = (...answered) => line(facts({ nat: nat("none"), stun: stun(...answered) }), "stun");

  assert.equal(state(true, undefined).state, "good");
  assert.match(state(true, undefined).text, /^Answered: localhost:1. Whether localhost:2 did cannot be told here.$/);
  assert.equal(state(undefined).state, "warn");
  assert.match(state(undefined).text, /^Cannot tell/);
  assert.equal(state(true, false).state, "warn");
  for (const found of lines(facts({ nat: nat("none"), stun: stun(undefined) }))) isSentence(found.text);
});

test("between a machine and itself there is no NAT, and calls from elsewhere are another check", () => {
  const found = facts({
    signIn: { ...signedIn, local: true },
    nat: { ...nat("unknown"), asked: 1, hidden: true, mapped: ["127.0.0.1"] },
  });

  assert.equal(line(found, "nat").state, "good");
  assert.match(line(found, "nat").text, /^None/);
  assert.equal(verdict(found).code, "direct");
  assert.match(verdict(found).text, /on the server’s own machine/);
  assert.doesNotMatch(verdict(facts()).text, /own machine/);
});

test("a browser that leaves localhost out is no firewall", () => {
  const stun = { limit: 6000, servers: [{ url: LOCAL.stun, answered: false, atOnce: true }] };
  const relay = { url: LOCAL.udp, state: "silent", timedOut: false, limit: 12_000, tells: true };
  const more = { signIn: { ...signedIn, local: true }, stun, nat: { ...nat("silent"), compared: 0, mapped: [] } };
  const found = facts({ ...more, relays: [relay] });

  for (const id of ["stun", "family", "nat", "relay-udp"]) {
    assert.equal(line(found, id).state, "warn", id);
    assert.match(line(found, id).text, /^Cannot tell/);
    isSentence(line(found, id).cure);
  }
  assert.equal(verdict(found).state, "warn");
  assert.match(verdict(found).text, /cannot be told at this address.*by the machine’s own name or address/);
  assert.match(verdict(facts({ ...more, relays: [carried("tcp")] })).text, /other than by relay over TCP/);
  for (const other of [{ url: "stun:a:3478", atOnce: true }, { url: LOCAL.stun, atOnce: false }]) {
    const servers = [{ ...other, answered: false }];
    assert.equal(line({ ...found, stun: { ...stun, servers } }, "stun").state, "bad");
    assert.equal(line({ ...found, stun: { ...stun, servers } }, "relay-udp").state, "bad");
  }
});

// What nobody was asked, and what the list leaves out

test("where no STUN is offered, nothing is said to have gone unanswered", () => {
  const without = facts({
    stun: { limit: 6000, servers: [] },
    nat: { ...nat("silent"), asked: 0, mapped: [] },
  });

  for (const id of ["family", "nat"]) {
    assert.equal(line(without, id).state, "warn");
    assert.match(line(without, id).text, /the server offers no STUN to ask/);
  }
  assert.match(verdict(without).text, /Not directly, because the server offers no STUN to ask\.$/);
});

test("silent STUN beside a relay that works over UDP blames no firewall for all of UDP", () => {
  const stun = { limit: 6000, servers: [{ url: "stun:a:3478", answered: false }] };

  const mixed = line(facts({ stun, nat: nat("silent") }), "stun");
  const blocked = line(facts({ stun, nat: nat("silent"), relays: [silent("udp"), carried("tcp")] }), "stun");

  assert.match(mixed.text, /Other UDP gets through\.$/);
  assert.match(blocked.text, /UDP doesn’t get through\.$/);
});

test("where the list is written out, its key is the cure", () => {
  const offers = { turn: [URLS.udp], turns: "replaced", skipped: 0 };
  const found = facts({ offers, relays: [carried("udp")], nat: { ...nat("unknown"), asked: 1 } });

  for (const id of ["nat", "relay-tcp", "relay-tls"]) {
    assert.equal(line(found, id).cure, "Its operator adds it to turn.ice_servers.");
  }
});

test("IPv6 is no cure for what IPv6 does", () => {
  assert.match(line(facts({ nat: nat("differs") }), "nat").cure, /or IPv6,/);
  assert.doesNotMatch(line(facts({ nat: nat("silent", "differs") }), "nat").cure, /IPv6/);
});
