// The call page: sound, picture, screen, text and files between two people.
//
// What we send is one MediaStream, `mine`, whose tracks come and go; what arrives is another, `theirs`. Nobody needs a
// camera or a microphone: whatever is missing is explained, and the call goes on without.

import { calling } from "./lobby.js";
import { $ } from "./page.js";

/** A call is made without a camera that takes longer than this to start; its picture follows. */
const START_MS = 1_500;
/** How long an explanation stands in the way of the picture. */
const NOTICE_MS = 10_000;
const RING_EVERY_S = 3;
const MAX_RINGS = 20;

const NAMES = { audio: "microphone", video: "camera" };
const BOTH = ["audio", "video"];

const mine = new MediaStream();
const theirs = new MediaStream();
/** Ids of the devices that the person chose. */
const chosen = {};
/** Why a kind is not there: the name of the browser's error; and what the person was told of it. */
const problems = {};
let told = "";
let hush;

let call;
/** Whether camera and microphone are to be on at all: in the lobby and during calls. */
let live = false;
let muted = false;
let cameraWanted = true;
/** What is shared of the screen, in place of the camera. */
let screen;
let asking = Promise.resolve();

// What we send

/** Gets what is wanted and missing, one request at a time. Never fails: what stays away is explained. */
function start() {
  live = true;
  asking = asking.then(getMissing);
  return asking;
}

function stop() {
  live = false;
  screen = undefined;
  for (const track of mine.getTracks()) drop(track);
  changed();
}

async function getMissing() {
  if (live) for (const track of await ask(BOTH.filter(missing))) adopt(track);
  changed();
}

function missing(kind) {
  if (!live || sent(kind)) return false;
  return kind === "audio" || (cameraWanted && !screen);
}

function sent(kind) {
  return mine.getTracks().find((track) => track.kind === kind);
}

/** @param {string[]} kinds @returns {Promise<MediaStreamTrack[]>} those that can be had */
async function ask(kinds) {
  for (const kind of kinds) delete problems[kind];
  if (kinds.length === 0) return [];
  try {
    if (!navigator.mediaDevices) throw new DOMException("there is none on plain http", "SecurityError");
    const constraints = Object.fromEntries(kinds.map((kind) => [kind, wishes(kind)]));
    return (await navigator.mediaDevices.getUserMedia(constraints)).getTracks();
  } catch (error) {
    if (error.name === "OverconstrainedError" && kinds.some((kind) => chosen[`${kind}input`])) {
      // What was chosen is gone: any other will do.
      for (const kind of kinds) delete chosen[`${kind}input`];
      return ask(kinds);
    }
    for (const kind of kinds) problems[kind] = error.name;
    if (kinds.length === 1 || error.name === "SecurityError") return [];
    // One of the two may be there. Nobody is asked twice, though, for what they just refused.
    const refused = error.name === "NotAllowedError";
    const tracks = [];
    for (const kind of kinds) if (!refused || (await granted(kind))) tracks.push(...(await ask([kind])));
    return tracks;
  }
}

function wishes(kind) {
  const id = chosen[`${kind}input`];
  const device = id ? { deviceId: { exact: id } } : {};
  return kind === "video" ? { ...device, width: { ideal: 1280 }, height: { ideal: 720 } } : device;
}

async function granted(kind) {
  try {
    return (await navigator.permissions.query({ name: NAMES[kind] })).state === "granted";
  } catch {
    return false;
  }
}

async function anyGranted() {
  return (await Promise.all(BOTH.map(granted))).includes(true);
}

/** @param {MediaStreamTrack} track one that was asked for; the person may have changed their mind meanwhile */
function adopt(track) {
  if (!missing(track.kind)) return track.stop();
  if (track.kind === "audio") track.enabled = !muted;
  // Unplugged: another device may do.
  track.onended = () => {
    drop(track);
    start();
  };
  mine.addTrack(track);
}

function drop(track) {
  track.onended = null;
  track.stop();
  mine.removeTrack(track);
}

/** Shows what we send, and sends it. */
function changed() {
  const video = sent("video");
  for (const id of ["preview", "mine"]) {
    const element = $(id);
    if (element.srcObject !== mine) element.srcObject = mine;
    element.hidden = !video;
    element.classList.toggle("mirrored", !screen);
  }
  $("preview-none").hidden = Boolean(video);
  tell(explain());
  render();
  call?.setMedia(outgoing()).catch(() => {});
}

function outgoing() {
  return mine.getTracks().length > 0 ? mine : undefined;
}

/** In the lobby for as long as it is so, over the picture once. */
function tell(words) {
  $("preview-notice").textContent = words;
  if (words === told) return;
  told = words;
  $("notice").textContent = words;
  clearTimeout(hush);
  hush = setTimeout(() => ($("notice").textContent = ""), NOTICE_MS);
}

/** Why there is no camera or no microphone, in words for people. */
function explain() {
  const causes = new Set(BOTH.map((kind) => problems[kind]).filter(Boolean));
  const sentences = [...causes].map((cause) => {
    const names = BOTH.filter((kind) => problems[kind] === cause).map((kind) => NAMES[kind]);
    const both = names.join(" and ");
    if (cause === "SecurityError") return "By plain http browsers give neither camera nor microphone: come by https.";
    if (cause === "NotAllowedError") return `The browser keeps the ${both} from this page: allow it beside the address.`;
    if (cause === "NotFoundError") return `No ${names.join(" and no ")} was found.`;
    return `The ${both} did not start: perhaps another program is using it.`;
  });
  if (sentences.length > 0) sentences.push("You can call and be called all the same.");
  return sentences.join(" ");
}

// What a person does

const actions = {
  async mic() {
    const audio = sent("audio");
    if (!audio) return tryAgain();
    muted = !muted;
    audio.enabled = !muted;
    render();
  },
  async camera() {
    if (screen) return;
    cameraWanted = !sent("video");
    if (cameraWanted) return tryAgain();
    drop(sent("video"));
    changed();
  },
  async share() {
    if (screen) return unshare();
    let track;
    try {
      [track] = (await navigator.mediaDevices.getDisplayMedia({ video: true })).getVideoTracks();
    } catch {
      // Thought better of it.
      return;
    }
    if (!call) return track.stop();
    const camera = sent("video");
    if (camera) drop(camera);
    screen = track;
    track.contentHint = "detail";
    track.onended = unshare;
    mine.addTrack(track);
    changed();
  },
  async chat() {
    showChat($("call").dataset.chat === undefined);
  },
  async full() {
    if (document.fullscreenElement) await document.exitFullscreen();
    else await $("call").requestFullscreen();
  },
  async devices() {
    $("devices").showModal();
    await listDevices();
  },
};

/** By the person's own wish: the explanation is due again. */
function tryAgain() {
  told = "";
  return start();
}

/** The camera comes back, if it was on. */
function unshare() {
  drop(screen);
  screen = undefined;
  start();
}

const KEYS = { m: "mic", v: "camera", s: "share", c: "chat", f: "full" };

$("call").addEventListener("keydown", (event) => {
  if (event.key === "Escape" && $("side").contains(document.activeElement)) return showChat(false);
  const shortcut = !event.ctrlKey && !event.altKey && !event.metaKey && !event.repeat;
  if (!call || !shortcut || event.target.matches("textarea, input")) return;
  const action = KEYS[event.key.toLowerCase()];
  if (!action || !available(action)) return;
  event.preventDefault();
  actions[action]();
});

for (const button of document.querySelectorAll("[data-do]")) {
  button.addEventListener("click", () => actions[button.dataset.do]());
}
$("close-chat").addEventListener("click", () => showChat(false));
document.addEventListener("fullscreenchange", () => render());

/** @param {string} action what this browser may lack */
function available(action) {
  if (action === "share") return Boolean(navigator.mediaDevices?.getDisplayMedia);
  if (action === "full") return document.fullscreenEnabled;
  return true;
}

function render() {
  const camera = !screen && sent("video");
  const full = document.fullscreenElement;
  const faces = {
    mic: { text: muted ? "Unmute" : "Mute", off: muted },
    camera: { text: "Camera", says: camera ? "Stop camera" : "Start camera", off: !camera },
    share: { text: screen ? "Stop" : "Share", says: screen ? "Stop sharing" : "Share screen", on: screen },
    chat: { text: "Chat" },
    devices: { text: "Devices" },
    full: { text: full ? "Leave full screen" : "Full screen", on: full },
  };
  if (!sent("audio")) faces.mic = { text: "Mic", says: "Start mic", off: true };
  for (const button of document.querySelectorAll("[data-do]")) {
    const action = button.dataset.do;
    face(button, action, faces[action]);
    button.hidden = !available(action);
    button.disabled = action === "camera" && Boolean(screen);
  }
}

/** Dresses a control: an icon, a word below it, and more words for those who hear it or point at it. */
function face(button, icon, { text, says = text, off, on }) {
  if (!button.firstChild) {
    const words = document.createElement("span");
    const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    picture.setAttribute("aria-hidden", "true");
    for (const name of [icon, "off"]) {
      const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
      use.setAttribute("href", `#i-${name}`);
      picture.append(use);
    }
    button.append(picture, words);
    const key = Object.keys(KEYS).find((key) => KEYS[key] === button.dataset.do);
    if (key) button.setAttribute("aria-keyshortcuts", key);
  }
  button.lastChild.textContent = text;
  button.title = says;
  button.setAttribute("aria-label", says);
  button.toggleAttribute("data-off", Boolean(off));
  button.toggleAttribute("data-on", Boolean(on));
}

// Text beside the picture

/** Whether text stands beside the picture; elsewhere it takes some of its room. */
function roomy() {
  return matchMedia("(min-width: 64rem)").matches;
}

function showChat(open) {
  const focused = $("side").contains(document.activeElement);
  $("call").toggleAttribute("data-chat", open);
  delete $("chat").dataset.unread;
  $("chat").setAttribute("aria-expanded", String(open));
  if (!open) {
    if (focused) $("chat").focus();
    return;
  }
  $("log").scrollTop = $("log").scrollHeight;
  if (!$("text").disabled) $("text").focus();
}

new MutationObserver((changes) => {
  const lines = changes.flatMap(({ addedNodes }) => [...addedNodes]);
  const theirs = lines.filter((line) => line.classList.contains("theirs")).length;
  if (theirs === 0 || $("call").dataset.chat !== undefined) return;
  $("chat").dataset.unread = String(Number($("chat").dataset.unread ?? 0) + theirs);
}).observe($("log"), { childList: true });

// Devices

async function listDevices() {
  const found = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const inUse = mine.getTracks().map((track) => track.getSettings().deviceId);
  for (const kind of ["videoinput", "audioinput", "audiooutput"]) {
    const select = $(kind);
    const devices = found.filter((device) => device.kind === kind);
    const options = devices.map(({ deviceId, label }, index) => new Option(label || `${index + 1}`, deviceId));
    select.replaceChildren(...(options.length > 0 ? options : [new Option("None found", "")]));
    select.disabled = options.length === 0;
    const current = [chosen[kind], ...inUse].find((id) => devices.some(({ deviceId }) => deviceId === id));
    if (current) select.value = current;
  }
}

for (const [id, kind] of [["videoinput", "video"], ["audioinput", "audio"]]) {
  $(id).addEventListener("change", () => {
    chosen[id] = $(id).value;
    const current = sent(kind);
    if (!current || current === screen) return;
    // Phones open one camera at a time: the old one ends first.
    drop(current);
    start();
  });
}

const speakers = "setSinkId" in HTMLMediaElement.prototype;
for (const element of [$("audiooutput"), ...$("audiooutput").labels]) element.hidden = !speakers;
$("audiooutput").addEventListener("change", () => {
  chosen.audiooutput = $("audiooutput").value;
  $("theirs").setSinkId(chosen.audiooutput).catch(() => listDevices());
});

navigator.mediaDevices?.addEventListener("devicechange", () => {
  if ($("devices").open) listDevices();
  // What was looked for in vain may be there; nobody is asked again for what they refused.
  if (live && Object.values(problems).some((problem) => problem !== "NotAllowedError")) start();
});

// What arrives

function onTrack({ track }) {
  for (const earlier of theirs.getTracks()) if (earlier.kind === track.kind) theirs.removeTrack(earlier);
  theirs.addTrack(track);
  track.onmute = track.onunmute = track.onended = showTheirs;
  showTheirs();
  play();
}

function showTheirs() {
  const picture = theirs.getVideoTracks().some((track) => track.readyState === "live" && !track.muted);
  $("stage").toggleAttribute("data-picture", picture && call !== undefined);
  const connected = call?.state === "connected";
  $("nobody-note").textContent = connected && !picture ? `${call.name} sends no picture` : "";
}

/** Browsers refuse sound on a page that nobody has touched yet: then the picture plays without until they do. */
async function play() {
  const video = $("theirs");
  try {
    await video.play();
  } catch (error) {
    // Else another track came meanwhile, and plays.
    if (error.name !== "NotAllowedError" || video.muted) return;
    video.muted = true;
    $("hear").hidden = false;
    video.play().catch(() => {});
  }
}

$("hear").addEventListener("click", () => {
  $("theirs").muted = false;
  $("hear").hidden = true;
  play();
});

// Being called

let tone;

/** Two soft notes, again and again, if the person has touched the page: before that, browsers keep it silent. */
function ring() {
  if (!$("tone").checked || !navigator.userActivation?.hasBeenActive) return;
  tone = new AudioContext();
  const volume = new GainNode(tone, { gain: 0 });
  volume.connect(tone.destination);
  const note = new OscillatorNode(tone, { frequency: 440 });
  note.connect(volume);
  for (let rings = 0; rings < MAX_RINGS; rings += 1) {
    for (const [offset, frequency] of [[0, 523], [0.35, 659]]) {
      const at = tone.currentTime + 0.05 + rings * RING_EVERY_S + offset;
      note.frequency.setValueAtTime(frequency, at);
      volume.gain.setValueAtTime(0, at);
      volume.gain.linearRampToValueAtTime(0.15, at + 0.04);
      volume.gain.linearRampToValueAtTime(0, at + 0.32);
    }
  }
  note.start();
}

function quiet() {
  tone?.close();
  tone = undefined;
}

/** Whoever rings, the camera stays as it is: only who accepts shows anything. */
function onRinging(event) {
  quiet();
  if (!event) return;
  const noCamera = ["NotFoundError", "SecurityError"].includes(problems.video);
  $("accept-audio").hidden = noCamera;
  $("accept").textContent = noCamera ? "Accept" : "Accept with video";
  $("incoming-kind").textContent = event.media ? "" : "without camera or microphone";
  ring();
}

// The call

calling({
  sendsMedia: true,
  options(how) {
    if (how === "video") cameraWanted = true;
    if (how === "audio") {
      cameraWanted = false;
      const camera = sent("video");
      if (camera) drop(camera);
    }
    return { media: outgoing() };
  },
  async prepare() {
    if (await anyGranted()) await Promise.race([start(), new Promise((resolve) => setTimeout(resolve, START_MS))]);
  },
  waiting() {
    quiet();
    start();
  },
  ringing: onRinging,
  began(begun) {
    quiet();
    call = begun;
    for (const track of theirs.getTracks()) theirs.removeTrack(track);
    $("theirs").srcObject = theirs;
    $("theirs").muted = false;
    $("hear").hidden = true;
    call.addEventListener("track", onTrack);
    call.addEventListener("state", showTheirs);
    showTheirs();
    showChat(roomy());
    $("hang-up").focus();
    start();
  },
  ended(ended) {
    if (call !== ended) return;
    call = undefined;
    showTheirs();
    if (!roomy()) showChat(false);
    // Who calls next is shown beside the call, not over it.
    if (document.fullscreenElement) document.exitFullscreen();
    if ($("lobby").hidden) stop();
  },
  left() {
    quiet();
    stop();
  },
});

face($("hang-up"), "hang-up", { text: "Hang up" });
render();
