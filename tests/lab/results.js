// Runs the whole matrix and writes RESULTS.md: `node tests/lab/results.js`, as root, on a machine that does nothing else.
//
// THROUGHWAY_BIN names the server, a release build for times that mean something. A cell that fails is tried once more and
// both failures are told; the run goes on, and ends with status 1 if a cell never went well.

import { execFileSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { cpus, loadavg, release } from "node:os";
import { fileURLToPath } from "node:url";
import { Browsers } from "./browser.js";
import { everyCell, run, title } from "./matrix.js";
import { Lab } from "./net.js";

const DELAY_MS = 30;
const ROUNDS = 1;
/** For the cells that there is something to compare with. */
const COMPARED_ROUNDS = 5;

/** What a stack made by hand reached (coturn 4.6 and Node signaling, lines of 30 ms each way): click to data, to first frame. */
const BY_HAND = [
  { kinds: ["open", "open"], data: 703, video: 661 },
  { kinds: ["port-restricted", "port-restricted"], data: 702, video: 834 },
  { kinds: ["symmetric", "symmetric"], data: 1407, video: 879 },
  { kinds: ["udp-blocked", "udp-blocked"], data: 1122, video: 1118 },
  { kinds: ["only-443", "only-443"], data: 1872, video: 1176 },
  { kinds: ["symmetric", "ipv6-only"], data: 720, video: 1253 },
];

const lab = await Lab.open({ delay: DELAY_MS, loss: 0 });
const browsers = new Browsers(lab);
try {
  const before = loadavg()[0];
  const rows = await measure();
  const file = fileURLToPath(new URL("RESULTS.md", import.meta.url));
  await writeFile(file, document(rows, await conditions(before)));
  const failed = rows.flatMap(({ data, video }) => [data, video]).filter(({ path }) => path === undefined);
  console.log(`${file}: ${rows.length * 2} cells, ${failed.length} failed`);
  process.exitCode = failed.length > 0 ? 1 : 0;
} finally {
  await browsers.close();
  await lab.close();
}

/** One row for each pair of kinds: `data` and `video`, each a cell and what became of it. */
async function measure() {
  const cells = everyCell();
  const rows = new Map();
  for (const [index, cell] of cells.entries()) {
    const result = await repeated(cell);
    console.log(`[${index + 1}/${cells.length}] ${title(cell)}: ${told(result)}`);
    const key = [...cell.kinds].sort().join();
    rows.set(key, { ...rows.get(key), [cell.media]: result });
  }
  return [...rows.values()];
}

async function repeated(cell) {
  const rounds = byHand(cell) ? COMPARED_ROUNDS : ROUNDS;
  const failures = [];
  const good = [];
  for (let round = 0; round < rounds; round += 1) {
    const result = await run(lab, browsers, cell);
    failures.push(...result.failures);
    if (result.path === undefined) return { cell, failures };
    good.push(result);
  }
  const paths = new Set(good.map(({ path }) => path));
  const times = good.map(({ times }) => times[cell.media === "video" ? "frame" : "data"]).sort((a, b) => a - b);
  return { cell, failures, path: [...paths].join(", "), time: times[Math.floor(times.length / 2)] };
}

function byHand({ kinds, media }) {
  const key = [...kinds].sort().join();
  return BY_HAND.find((known) => [...known.kinds].sort().join() === key)?.[media];
}

function told({ path, time, failures }) {
  if (path === undefined) return `FAILED\n${failures.join("\n\nand once more:\n")}`;
  const retries = failures.length > 0 ? `, after failing:\n${failures.join("\n")}` : "";
  return `${path}, ${time} ms${retries}`;
}

async function conditions(load) {
  const output = (command, ...argv) => execFileSync(command, argv, { encoding: "utf8" }).trim();
  const processor = /model name\s*: (.*)/.exec(await readFile("/proc/cpuinfo", "utf8"))?.[1] ?? "a processor";
  return [
    `- lines of ${DELAY_MS} ms each way for every home, so 120 ms there and back between two homes and 60 ms to the server;`
      + " `lossy` has 80 ms and loses 5 % each way;",
    `- ${output(process.env.CHROMIUM ?? "chromium", "--version")}, two of them on one machine with everything else:`
      + ` ${cpus().length} cores (${processor}), Linux ${release()}, a load of ${load.toFixed(2)} before the run;`,
    `- \`${output(process.env.THROUGHWAY_BIN, "--version")}\` of commit ${output("git", "rev-parse", "--short", "HEAD")};`,
    "- a time is from the click on Call to the moment when the later of the two sides shows the other's first text, or the"
      + " first frame of the other's video; who is called accepts as soon as the button is there.",
  ].join("\n");
}

function document(rows, conditions) {
  const compared = rows.filter(({ data }) => byHand(data.cell));
  const retried = rows.flatMap(({ data, video }) => [data, video]).filter(({ failures }) => failures.length > 0);
  return `# What the laboratory measured

Written by \`node tests/lab/results.js\`. Under these conditions:

${conditions}

## Beside a stack made by hand

Medians of ${COMPARED_ROUNDS} calls, in ms; of the stack made by hand (coturn, a signaling server in Node) on such lines what was measured once.

| between | data, by hand | data | video, by hand | video |
| --- | ---: | ---: | ---: | ---: |
${compared.map(({ data, video }) => {
    return `| ${pair(data.cell)} | ${byHand(data.cell)} | ${shown(data)} | ${byHand(video.cell)} | ${shown(video)} |`;
  }).join("\n")}

## Every pair of networks

The first of a pair calls for data, the second for video. *direct* tells the kinds of candidates at the caller's end and at
the other, *relay* how each end reaches its relay, or – for an end without one.

| between | data | ms | video | ms |
| --- | --- | ---: | --- | ---: |
${rows.map(({ data, video }) => {
    return `| ${pair(data.cell)} | ${data.path ?? "**failed**"} | ${shown(data)} | ${video.path ?? "**failed**"} | ${shown(video)} |`;
  }).join("\n")}

${retried.length === 0 ? "No call failed." : `Calls that failed, and were tried once more:\n\n${retried.map(trouble).join("\n")}`}
`;
}

function pair({ kinds }) {
  return kinds.join(" – ");
}

function shown({ time }) {
  return time ?? "–";
}

function trouble({ cell, failures, path }) {
  const why = failures.map((text) => text.split("\n")[0]).join("; ");
  return `- ${title(cell)}${path === undefined ? "" : " (went well then)"}: ${why}`;
}
