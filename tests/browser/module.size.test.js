// How much people load.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { transform } from "esbuild";

const MAX_BYTES = 16_384;

test("the module has less than 16 KiB when it is minified, and asks for nothing else", async () => {
  const source = await readFile(new URL("../../static/throughway.js", import.meta.url), "utf8");

  const { code } = await transform(source, { minify: true, format: "esm" });

  assert.ok(Buffer.byteLength(code) < MAX_BYTES, `${Buffer.byteLength(code)} bytes`);
  assert.doesNotMatch(code, /\bimport\s*["'({*]/);
});

test("the page for rooms knows how many others the module connects one with", async () => {
  const constant = async (file, name) => {
    const source = await readFile(new URL(`../../static/${file}`, import.meta.url), "utf8");
    return source.match(new RegExp(`^const ${name} = (\\d+);$`, "m"))?.[1];
  };

  assert.equal(await constant("room.js", "MAX_CALLS"), "12");
  assert.equal(await constant("throughway.js", "MAX_MESH"), "12");
});
