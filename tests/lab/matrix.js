// The matrix: which kinds of network call which, what path the best client could find between them, and what ours found.

import { Meeting } from "./cell.js";
import { KINDS, PAIRS } from "./net-home.js";

const NETWORKS = { ...KINDS, ...PAIRS };

/** Whether packets can go between two kinds of network without a relay. */
export function direct(one, other) {
  const [a, b] = [NETWORKS[one].expected, NETWORKS[other].expected];
  if (!a.udp || !b.udp) return false;
  if (a.v6 && b.v6) return true;
  if (!a.v4 || !b.v4) return false;
  // A symmetric NAT gives its client another outer port for every partner: one that the partner has not sent to.
  const reached = (from, to) => from.nat !== "symmetric" || to.nat === "none" || to.nat === "cone";
  return reached(a, b) && reached(b, a);
}

/** How a client in this kind of network reaches its relay at best. */
function relayProtocol(kind) {
  if (NETWORKS[kind].expected.udp) return "udp";
  return kind === "only-443" ? "tls" : "tcp";
}

/** The cells of the everyday run: few, and every kind is in one. Who calls comes first. */
export const FEW = [
  { kinds: ["port-restricted", "port-restricted"], media: "data" },
  { kinds: ["symmetric", "open"], media: "video" },
  { kinds: ["full-cone", "symmetric"], media: "data" },
  { kinds: ["symmetric", "port-restricted"], media: "video" },
  { kinds: ["udp-blocked", "open"], media: "data" },
  { kinds: ["double-nat", "only-443"], media: "video" },
  { kinds: ["only-443", "udp-blocked"], media: "data" },
  { kinds: ["forgetful", "ipv6-only"], media: "data" },
  { kinds: ["lossy", "open"], media: "video" },
  { kinds: ["hairpin", "hairpin"], media: "data" },
];

/** Every pair of kinds, data and video; of two that differ one calls for data and the other for video. */
export function everyCell() {
  const kinds = Object.keys(KINDS);
  const pairs = kinds.flatMap((one, index) => kinds.slice(index).map((other) => [one, other]));
  for (const pair of Object.keys(PAIRS)) pairs.push([pair, pair]);
  return pairs.flatMap(([one, other]) => [
    { kinds: [one, other], media: "data" },
    { kinds: [other, one], media: "video" },
  ]);
}

export const title = ({ kinds: [caller, callee], media }) => `${caller} calls ${callee}, ${media}`;

/** The two hosts of a cell: who comes first among the kinds lives on side a, whoever calls. */
async function hosts(lab, [caller, callee]) {
  if (Object.hasOwn(PAIRS, caller)) return lab.pair(caller);
  const order = Object.keys(KINDS);
  const sides = order.indexOf(caller) <= order.indexOf(callee) ? ["a", "b"] : ["b", "a"];
  return Promise.all([lab.host(caller, sides[0]), lab.host(callee, sides[1])]);
}

/**
 * Runs a cell. What fails is tried once more, and both failures are told.
 * @returns {Promise<{cell: object, failures: string[], path?: string, times?: object}>} without `path` if it never went well
 */
export async function run(lab, browsers, cell) {
  const failures = [];
  for (let attempt = 0; attempt < 2; attempt += 1) {
    try {
      return { cell, failures, ...(await once(lab, browsers, cell)) };
    } catch (error) {
      failures.push(error.message);
    }
  }
  return { cell, failures };
}

async function once(lab, browsers, { kinds, media }) {
  const meeting = await Meeting.open(lab, browsers, await hosts(lab, kinds), media);
  try {
    await meeting.connect();
    const path = await meeting.settles((found) => complaint(found, kinds) === undefined);
    const wrong = complaint(path, kinds);
    if (wrong) throw new Error(wrong);
    if (media === "video") {
      const moving = await meeting.moves();
      if (!moving.every(Boolean)) throw new Error(`a picture stands still: ${moving}`);
    }
    return { path: String(path), times: await meeting.times() };
  } catch (error) {
    throw new Error(`${error.message}\n${await meeting.report()}`);
  } finally {
    await meeting.close();
  }
}

/** What is worse about a path than it has to be. */
function complaint(path, kinds) {
  const possible = direct(...kinds);
  if (possible && path.relayed) return `${path}, though packets can go directly`;
  if (!possible && !path.relayed) return `${path}, which should not be possible: the laboratory lets too much through`;
  for (const [index, protocol] of path.relays.entries()) {
    const kind = kinds[index];
    const best = relayProtocol(kind);
    if (protocol !== undefined && protocol !== best) return `${path}, though ${kind} reaches its relay by ${best}`;
    if (protocol === undefined && !NETWORKS[kind].expected.udp) return `${path}, though ${kind} lets no UDP through`;
  }
  return undefined;
}
