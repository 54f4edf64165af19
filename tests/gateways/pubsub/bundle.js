// The clients as a page can run them: their packages, unchanged, in one script.

import { build } from "esbuild";

/** A script that sets `globalThis.clients` to what `source`, a module in `directory`, exports. */
export async function bundle(source, directory) {
  const { outputFiles } = await build({
    stdin: { contents: source, resolveDir: directory },
    bundle: true,
    format: "iife",
    globalName: "clients",
    footer: { js: "globalThis.clients = clients;" },
    define: { "process.env.NODE_ENV": '"production"', global: "globalThis" },
    write: false,
  });
  return outputFiles[0].text;
}
