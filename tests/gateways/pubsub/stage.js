// Pages that run the clients as their packages have them, unchanged, in one script.

import { after, afterEach, before } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { launch, open } from "../../browser/pages.js";
import { Server } from "../../browser/server.js";

/** A script that sets `globalThis.clients` to what `source`, a module in `directory`, exports. */
async function bundle(source, directory) {
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

/**
 * A server and a browser for the tests of one file, and pages that can run what `source`, a module beside it, exports.
 * `judge` is told after each test what its pages complained of.
 */
export class Stage {
  server;
  people = [];

  constructor(source, file, judge = () => {}) {
    let browser;
    let script;
    before(async () => {
      script = await bundle(source, fileURLToPath(new URL(".", file)));
      this.server = await Server.start();
      browser = await launch();
    });
    after(async () => {
      await browser?.close();
      await this.server?.stop();
    });
    afterEach(async () => {
      const { complaints } = this;
      await Promise.all(this.people.map(({ context }) => context.close()));
      this.people = [];
      judge(complaints);
    });
    this.enter = async () => {
      const person = await open(browser, `http://localhost:${this.server.ports.http}/`);
      this.people.push(person);
      await person.page.evaluate(script);
      return person;
    };
  }

  /** What anybody's page complained of. */
  get complaints() {
    return this.people.flatMap(({ complaints }) => complaints);
  }
}
