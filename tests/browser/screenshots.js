// Shoots every page of the real server, on a desktop and on a phone, dark and light, into the directory given:
//
//   THROUGHWAY_BIN=target/debug/throughway node tests/browser/screenshots.js DIRECTORY [PAGE ...]
//
// Each page is named by what it shows (see SCENES). One that isn't served is said to be missing, and the others go on.

import { mkdir } from "node:fs/promises";
import path from "node:path";
import { launch, open } from "./pages.js";
import { Server } from "./server.js";

const SCREENS = {
  desktop: { width: 1280, height: 800 },
  phone: { width: 390, height: 844, isMobile: true, hasTouch: true },
};
const SCHEMES = ["light", "dark"];
/** A first look at each state may find it half drawn. */
const SETTLED_MS = 1_500;

/** Each brings about what it is called, and gives the page to look at; `stage.visit` opens pages. */
const SCENES = {
  front: ({ visit }) => visit("/"),
  "chat-lobby": ({ visit }) => visit("/chat?name=alice", "#lobby-title"),
  async chat({ visit }) {
    const [alice, bob] = await calling(visit, "/chat");
    await alice.sees("#text:not(:disabled)", /(?:)/);
    await alice.writes("#text", "Good morning! Have you seen the plan?");
    await bob.writes("#text", "I have. Shall we go through it at ten?");
    await alice.writes("#text", "Ten is fine.");
    await alice.sees("#path", /(?:)/);
    return alice;
  },
  "call-lobby": ({ visit }) => visit("/call?name=alice", "#lobby-title"),
  async call({ visit }) {
    const [alice, bob] = await calling(visit, "/call");
    await bob.writes("#text", "Good morning! I have put the dates into the plan.");
    await alice.page.waitForSelector("#log .theirs");
    await alice.sees("#path", /(?:)/);
    return alice;
  },
  "room-lobby": ({ visit }) => visit("/room?name=standup", "#sign-in-title"),
  async room({ visit }) {
    const [alice, bob, carol] = await meeting(visit);
    await bob.writes("#text", "Good morning!");
    await carol.writes("#text", "Can everyone see the plan? I have put the dates in.");
    await alice.page.waitForSelector("#log .theirs ~ .theirs");
    return alice;
  },
  async check({ visit }) {
    const page = await visit("/check");
    await page.page.waitForSelector("#copy:not(:disabled)", { timeout: 120_000 });
    return page;
  },
};

async function calling(visit, page) {
  const alice = await visit(`${page}?name=alice`, "#lobby-title");
  const bob = await visit(`${page}?name=bob`, "#lobby-title", SCREENS.desktop);
  await bob.writes("#to", "alice");
  await alice.clicks("#accept");
  for (const person of [alice, bob]) await person.sees("#call-state", /Connected/);
  return [alice, bob];
}

async function meeting(visit) {
  const people = [];
  for (const name of ["alice", "bob", "carol"]) {
    const screen = name === "alice" ? undefined : SCREENS.desktop;
    const person = await visit(`/room?name=standup&as=${name}`, "#room-title", screen);
    for (const what of ["microphone", "camera"]) {
      await person.clicks(`#${what}`);
      await person.sees(`#${what}[aria-pressed="true"]`, /(?:)/);
    }
    people.push(person);
  }
  for (const person of people) await person.sees("#count", /^3 people$/);
  for (const name of ["bob", "carol"]) await people[0].sees(`.tile[data-name="${name}"] .pill`, /^(direct|relayed)/);
  return people;
}

/** In the page: a camera that has somebody before it, of a colour of their own, for Chromium's has a pill on green. */
function posing(name) {
  const hue = [...name].reduce((sum, letter) => sum * 31 + letter.codePointAt(0), 7) % 360;
  const draw = (canvas) => {
    const pen = canvas.getContext("2d");
    const room = pen.createLinearGradient(0, 0, canvas.width, canvas.height);
    room.addColorStop(0, `hsl(${hue} 32% 36%)`);
    room.addColorStop(1, `hsl(${hue + 50} 38% 66%)`);
    pen.fillStyle = room;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    const sway = Math.sin(performance.now() / 900) * 6;
    pen.fillStyle = `hsl(${hue} 30% 20%)`;
    pen.beginPath();
    pen.ellipse(320 + sway / 2, 400, 190, 150, 0, 0, 7);
    pen.fill();
    pen.fillStyle = `hsl(${hue + 30} 45% 78%)`;
    pen.beginPath();
    pen.ellipse(320 + sway, 180, 66, 84, 0, 0, 7);
    pen.fill();
  };
  const devices = navigator.mediaDevices;
  const borrow = devices.getUserMedia.bind(devices);
  devices.getUserMedia = async (wanted) => {
    const stream = await borrow(wanted);
    const [camera] = stream.getVideoTracks();
    if (!camera) return stream;
    camera.stop();
    const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 360 });
    draw(canvas);
    setInterval(draw, 50, canvas);
    return new MediaStream([...stream.getAudioTracks(), ...canvas.captureStream(20).getTracks()]);
  };
}

async function shoot(browser, origin, scene, [screenName, screen], scheme, directory) {
  const people = [];
  const visit = async (address, selector = "h1", viewport = screen) => {
    const person = await open(browser, "about:blank");
    people.push(person);
    await person.page.setViewport(viewport);
    await person.page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await person.page.evaluateOnNewDocument(posing, new URLSearchParams(address.split("?")[1]).get("as") ?? address);
    const response = await person.page.goto(`${origin}${address}`);
    if (response.status() === 404) throw new Missing(address);
    await person.sees(selector, /(?:)/);
    return person;
  };
  try {
    const { page } = await SCENES[scene]({ visit });
    await page.bringToFront();
    await new Promise((resolve) => setTimeout(resolve, SETTLED_MS));
    const file = path.join(directory, `${scene}-${screenName}-${scheme}.png`);
    await page.screenshot({ path: file });
    console.log(file);
  } finally {
    await Promise.all(people.map(({ context }) => context.close()));
  }
}

class Missing extends Error {}

async function main([directory, ...only]) {
  if (!directory) throw new Error("which directory are they to go to?");
  await mkdir(directory, { recursive: true });
  const scenes = only.length > 0 ? only : Object.keys(SCENES);
  const server = await Server.start();
  const browser = await launch("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream");
  try {
    for (const scene of scenes) {
      for (const screen of Object.entries(SCREENS)) {
        for (const scheme of SCHEMES) {
          await shoot(browser, `http://localhost:${server.ports.http}`, scene, screen, scheme, directory).catch((error) => {
            console.error(error instanceof Missing ? `${scene}: ${error.message} isn't there` : `${scene}: ${error.message}`);
            process.exitCode = 1;
          });
        }
      }
    }
  } finally {
    await browser.close();
    await server.stop();
  }
}

await main(process.argv.slice(2));
