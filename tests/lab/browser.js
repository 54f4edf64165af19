// Real Chromium on the hosts of the laboratory, driven by pipe: nothing of it listens, and no packet of ours is in the way.

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { Person } from "../browser/pages.js";

// The browser tests' package set is the laboratory's, too.
const puppeteer = createRequire(new URL("../browser/package.json", import.meta.url))("puppeteer-core");

// No flag concerns certificates (the laboratory's authority is in the profile's own database), and none grants the camera:
// whoever has it is given candidates with addresses, and people who only write have names that end with .local.
const FLAGS = [
  "--no-sandbox",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
  "--use-fake-device-for-media-stream",
  // A page that is driven is not in front of anybody, and must be as quick as one that is.
  "--disable-background-timer-throttling",
  "--disable-backgrounding-occluded-windows",
  "--disable-renderer-backgrounding",
  "--mute-audio",
];

/** Alive at once: two cores carry two that talk and a few that wait. */
const MOST = 8;

/** The browsers of a laboratory's hosts, each started when it is first wanted and kept for the next call. */
export class Browsers {
  #lab;
  /** The one used longest ago comes first. */
  #open = new Map();

  constructor(lab) {
    this.#lab = lab;
  }

  async on(host) {
    const known = this.#open.get(host);
    this.#open.delete(host);
    const browser = known?.alive ? known : await Browser.launch(host, this.#lab.env);
    this.#open.set(host, browser);
    const idle = [...this.#open].filter(([, { pages }]) => pages === 0);
    for (const [other, { pages }] of idle.slice(0, Math.max(0, this.#open.size - MOST))) {
      if (other === host || pages > 0) continue;
      await this.#open.get(other).close();
      this.#open.delete(other);
    }
    return browser;
  }

  async close() {
    await Promise.all([...this.#open.values()].map((browser) => browser.close()));
    this.#open.clear();
  }
}

class Browser {
  #directory;
  #chromium;
  /** How many pages are open in it. */
  pages = 0;

  static async launch(host, env) {
    const browser = new Browser();
    browser.#directory = await mkdtemp(path.join(tmpdir(), "throughway-browser-"));
    try {
      await browser.#launch(host, env);
    } catch (error) {
      const said = await browser.said();
      await rm(browser.#directory, { recursive: true, force: true });
      throw new Error(`no Chromium on ${host.kind}: ${error.message}\n${said}`);
    }
    return browser;
  }

  /** Puppeteer starts an executable, and ours enters the host's namespace, each process becoming the next one. */
  async #launch(host, env) {
    const executablePath = path.join(this.#directory, "chromium");
    const command = host.wrap([process.env.CHROMIUM ?? "chromium"]).map(quoted).join(" ");
    await writeFile(executablePath, `#!/bin/sh\nexec ${command} "$@" 2>${quoted(this.#errors)}\n`, { mode: 0o755 });
    this.#chromium = await puppeteer.launch({
      executablePath,
      pipe: true,
      env,
      userDataDir: path.join(this.#directory, "profile"),
      defaultViewport: { width: 1280, height: 800 },
      args: FLAGS,
    });
  }

  get alive() {
    return this.#chromium.connected;
  }

  /** What it has written as its errors, the end of it. */
  async said() {
    const text = await readFile(this.#errors, "utf8").catch(() => "");
    return text.slice(-4000);
  }

  /** A page in a profile of its own; `watch` runs in it before anything of the page's own. */
  async visit(url, { camera = false, watch } = {}) {
    const context = await this.#chromium.createBrowserContext();
    this.pages += 1;
    try {
      if (camera) await context.overridePermissions(new URL(url).origin, ["camera", "microphone"]);
      const page = await context.newPage();
      const complaints = [];
      page.on("console", (message) => {
        if (message.type() === "error" || message.type() === "warn") complaints.push(message.text());
      });
      page.on("pageerror", (error) => complaints.push(String(error)));
      if (watch) await page.evaluateOnNewDocument(watch);
      const response = await page.goto(url);
      return Object.assign(new Person(context, page, complaints, response), { browser: this });
    } catch (error) {
      await this.leave({ context });
      throw error;
    }
  }

  async leave({ context }) {
    this.pages -= 1;
    await context.close().catch(() => {});
  }

  /** The lid is closed: every process of it stands still. */
  freeze() {
    this.#signal("SIGSTOP");
  }

  thaw() {
    this.#signal("SIGCONT");
  }

  async close() {
    const ended = this.#chromium.close().catch(() => {});
    const deadline = setTimeout(() => this.#signal("SIGKILL"), 5_000);
    await ended;
    clearTimeout(deadline);
    await rm(this.#directory, { recursive: true, force: true, maxRetries: 5 });
  }

  /** Puppeteer makes it the leader of a process group, which all its processes stay in. */
  #signal(name) {
    const { pid } = this.#chromium.process();
    try {
      process.kill(-pid, name);
    } catch (error) {
      if (error.code !== "ESRCH") throw error;
    }
  }

  get #errors() {
    return path.join(this.#directory, "errors");
  }
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
