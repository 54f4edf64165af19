// The same scenes with npm's PeerServer and with this server; where they differ stands, with both sides, in DIFFERENCES.md.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { Server } from "../../browser/server.js";
import { discovery, scenes } from "./scenes.js";

const file = (name) => fileURLToPath(new URL(name, import.meta.url));

test("both do the same in every scene, but for what DIFFERENCES.md has", { timeout: 120_000 }, async (t) => {
  const [known, found] = [await differences(), {}];

  const on = { flag: "--discovery", more: "[signaling.gateways]\npeerjs_discovery = true\n" };
  const left = [
    ...Object.entries(scenes).map((scene) => [found, scene, {}]),
    ...Object.entries(discovery).map((scene) => [found, scene, on]),
  ];
  const some = async () => {
    while (left.length > 0) await compare(t, ...left.pop());
  };
  await Promise.all([some(), some(), some(), some()]);

  assert.deepEqual(found, known);
});

/** Plays a scene for both, and notes what each shows if that is not the same. */
async function compare(t, found, [title, play], { flag, more }) {
  const hangs = () => t.diagnostic(`still in the scene "${title}"`);
  t.signal.addEventListener("abort", hangs);
  const oracle = await startOracle(flag);
  const server = await Server.start({ more });
  try {
    const [theirs, ours] = await Promise.all([play(oracle.port), play(server.ports.http)]);
    assert.ok(theirs.length > 0, title);
    if (theirs.join("\n") !== ours.join("\n")) found[title] = { theirs, ours };
  } catch (error) {
    throw new Error(`the scene "${title}" fails`, { cause: error });
  } finally {
    t.signal.removeEventListener("abort", hangs);
    oracle.child.kill();
    await server.stop();
  }
}

async function startOracle(...flags) {
  const child = spawn(process.execPath, [file("oracle.js"), ...flags.filter(Boolean)], { stdio: ["ignore", "pipe", "inherit"] });
  const [port] = await once(createInterface({ input: child.stdout }), "line");
  return { child, port: Number(port) };
}

/** From DIFFERENCES.md: a heading is a scene, its first block is PeerServer's, its second is ours. */
async function differences() {
  const text = await readFile(file("DIFFERENCES.md"), "utf8");
  const known = {};
  for (const section of text.split(/^## /m).slice(1)) {
    const [title] = section.split("\n", 1);
    const blocks = [...section.matchAll(/^```\w*\n(.*?)^```$/gms)].map(([, block]) => block.trimEnd().split("\n"));
    assert.equal(blocks.length, 2, `DIFFERENCES.md, "${title}": two blocks`);
    known[title] = { theirs: blocks[0], ours: blocks[1] };
  }
  return known;
}
