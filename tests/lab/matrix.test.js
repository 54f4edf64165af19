// Calls between kinds of network, by the real pages in real Chromium: each connects, over the best path there is.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browsers } from "./browser.js";
import { direct, everyCell, FEW, run, title } from "./matrix.js";
import { Lab } from "./net.js";

const FULL = process.env.THROUGHWAY_LAB_FULL === "1";

let lab;
let browsers;

before(async () => {
  lab = await Lab.open({ delay: 30, loss: 0 });
  browsers = new Browsers(lab);
});

after(async () => {
  await browsers?.close();
  await lab?.close();
});

test("the everyday cells touch every kind of network that the laboratory has", () => {
  const touched = new Set(FEW.flatMap(({ kinds }) => kinds));

  assert.deepEqual([...touched].sort(), [...lab.kinds, ...lab.pairs].sort());
});

for (const cell of FULL ? everyCell() : FEW) {
  const way = direct(...cell.kinds) ? "directly" : "over the relay";
  test(`${title(cell)}: it connects ${way}`, async (context) => {
    const { path, times, failures } = await run(lab, browsers, cell);

    assert.ok(path, failures.join("\n\nand once more:\n"));
    for (const failure of failures) context.diagnostic(`went well when tried again, after: ${failure}`);
    context.diagnostic(`${path}, ${JSON.stringify(times)}`);
  });
}
