// Firefox, driven by WebDriver BiDi: one process, in which every person has a user context and a window of their own.

import { access, constants } from "node:fs/promises";
import path from "node:path";
import puppeteer from "puppeteer-core";
import { open } from "./pages.js";

/** `prefs` are more of Firefox's own. The profile is a temporary one, which goes when the browser is closed. */
export async function launchFirefox(prefs = {}) {
  return puppeteer.launch({
    browser: "firefox",
    executablePath: process.env.FIREFOX ?? (await findFirefox()),
    // Of `turns`, too, as long as its server has a name: Firefox does no TLS with a relay at a bare address.
    acceptInsecureCerts: true,
    extraPrefsFirefox: {
      // WebRTC leaves loopback out otherwise, and a machine without a network has nothing else.
      "media.peerconnection.ice.loopback": true,
      // Names of this machine that only multicast resolves, which not every network has.
      "media.peerconnection.ice.obfuscate_host_addresses": false,
      // A camera that shows a clock and a microphone that hums, and nobody to ask.
      "media.navigator.streams.fake": true,
      "media.navigator.permission.disabled": true,
      "media.autoplay.default": 0,
      ...prefs,
    },
  });
}

/** In a window, for a tab behind another one is hidden, and its timers run once in a second. */
export async function openWindow(browser, url) {
  return open(browser, url, { type: "window" });
}

async function findFirefox() {
  for (const name of ["firefox-esr", "firefox"]) {
    for (const directory of (process.env.PATH ?? "").split(path.delimiter)) {
      const file = path.join(directory, name);
      if (await access(file, constants.X_OK).then(() => true, () => false)) return file;
    }
  }
  throw new Error("no firefox on the PATH");
}
