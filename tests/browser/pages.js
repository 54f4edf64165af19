// Chromium, and what a person does on the chat page.

import { access, constants } from "node:fs/promises";
import path from "node:path";
import puppeteer from "puppeteer-core";

// Polling by animation frame, the default, stands still in a page that is not in front.
const WAIT = { timeout: 20_000, polling: 50 };

/** `flags` are more of Chromium's own. */
export async function launch(...flags) {
  return puppeteer.launch({
    executablePath: process.env.CHROMIUM ?? (await findChromium()),
    acceptInsecureCerts: true,
    args: [
      "--no-sandbox",
      "--disable-background-networking",
      "--disable-component-update",
      "--no-first-run",
      // Two pages talk to each other: neither is in the background.
      "--disable-background-timer-throttling",
      "--disable-backgrounding-occluded-windows",
      "--disable-renderer-backgrounding",
      // Of `turns`, too, which acceptInsecureCerts says nothing about.
      "--ignore-certificate-errors",
      // WebRTC leaves loopback out otherwise, and a machine without a network has nothing else.
      "--allow-loopback-in-peer-connection",
      ...flags,
    ],
  });
}

async function findChromium() {
  for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
    for (const directory of (process.env.PATH ?? "").split(path.delimiter)) {
      const file = path.join(directory, name);
      if (await access(file, constants.X_OK).then(() => true, () => false)) return file;
    }
  }
  throw new Error("no chromium on the PATH");
}

/** A page in a profile of its own, which notes whatever it complains about; `options` say what kind of page. */
export async function open(browser, url, options) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage(options);
  const complaints = [];
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warn") complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.exposeFunction("complain", (text) => void complaints.push(text));
  await page.evaluateOnNewDocument(() => {
    addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => {
      globalThis.complain(`CSP: ${violatedDirective} blocked ${blockedURI}`);
    });
    globalThis.connections = [];
    globalThis.RTCPeerConnection = class extends RTCPeerConnection {
      constructor(...rest) {
        super(...rest);
        // Those that gather ahead, so that a name is looked up, are no call's.
        if (!rest[0]?.iceCandidatePoolSize) globalThis.connections.push(this);
      }
    };
  });
  const response = await page.goto(url);
  return new Person(context, page, complaints, response);
}

export class Person {
  constructor(context, page, complaints, response) {
    Object.assign(this, { context, page, complaints, response });
  }

  /** Leaves the page before its window closes: else its name may stay taken, as that of one who may come back. */
  async leaves() {
    // A page that is taken down may not get its farewell out, and its name stays taken: it says so while it lives.
    await this.page.evaluate(() => dispatchEvent(new PageTransitionEvent("pagehide")));
    await this.page.goto("about:blank");
    await this.context.close();
  }

  /** Waits for an element that is visible and whose text matches. */
  async sees(selector, pattern) {
    const matches = (selector, source) =>
      [...document.querySelectorAll(selector)].some(
        (found) => found.checkVisibility({ visibilityProperty: true }) && new RegExp(source).test(found.textContent),
      );
    try {
      await this.page.waitForFunction(matches, WAIT, selector, pattern.source);
    } catch {
      const text = await this.page.evaluate(() => document.body.innerText);
      throw new Error(`${selector} did not come to match ${pattern}; the page says:\n${text}\n${this.complaints.join("\n")}`);
    }
  }

  async clicks(selector) {
    await this.sees(selector, /(?:)/);
    await this.page.$eval(selector, (element) => element.click());
  }

  async writes(selector, text) {
    await this.sees(`${selector}:not(:disabled)`, /(?:)/);
    await this.page.$eval(selector, (field) => (field.value = ""));
    await this.page.type(selector, text);
    await this.page.keyboard.press("Enter");
  }

  /** How the newest connection's own relayed candidate reaches the relay: udp, tcp or tls. */
  async relayProtocol() {
    return this.page.evaluate(async () => {
      const stats = await globalThis.connections.at(-1).getStats();
      const transport = [...stats.values()].find(({ type }) => type === "transport");
      return stats.get(stats.get(transport.selectedCandidatePairId).localCandidateId).relayProtocol;
    });
  }

  /** The selected candidate pair of the newest connection: kinds on both sides. */
  async path() {
    return this.page.evaluate(async () => {
      const stats = await globalThis.connections.at(-1).getStats();
      const transport = [...stats.values()].find(({ type }) => type === "transport");
      const pair = stats.get(transport.selectedCandidatePairId);
      return [pair.localCandidateId, pair.remoteCandidateId].map((id) => stats.get(id).candidateType);
    });
  }
}
