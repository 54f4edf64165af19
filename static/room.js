// The room page: everyone in a room sees, hears and writes to everyone else, each browser to each other one.
//
// Address: ?name= is the room, ?as= joins it under that name at once, without microphone and camera, ?relay=1 keeps to the
// relay, ?token= is for servers with accounts.

import { composing, inviting, say, sentence, show, showPath, signingIn } from "./lobby.js";
import { $, asked, copying, make } from "./page.js";

/** How many cameras a mesh carries: each browser sends its picture once for every other. */
const MAX_CAMERAS = 6;
/** How many others the module connects one with: its MAX_MESH. */
const MAX_CALLS = 12;
const LINKED = "You came by a link: your microphone and camera are off. The buttons below switch them on.";
const PICTURE = { width: { ideal: 640 }, height: { ideal: 360 }, frameRate: { ideal: 24 } };
/**
 * How often it is looked who speaks, from which level on somebody does, and how long that is shown. What is looked at is the
 * last packet: a sound that comes back every half second would always be missed by looks that fit into that evenly.
 */
const LISTEN_MS = 70;
const LOUD = 0.02;
const HEARD_MS = 1_000;
const HELD = "The browser holds sound and pictures back until you press something on this page.";
/** What it takes for that. */
const TOUCHES = ["pointerup", "keydown"];
/** Where this tab keeps the name last used: after reloading, the form has it. */
const REMEMBERED = "throughway.name";

const STATES = {
  calling: "Connecting…",
  connecting: "Connecting…",
  connected: "Connected",
  reconnecting: "Reconnecting…",
  closed: "Not connected",
};

const PROBLEMS = {
  NotAllowedError: "the browser does not let this page have it: allow it beside the address, then press the button below",
  NotFoundError: "there is none on this device",
  NotReadableError: "another program is using it",
};

/** Our tracks by the ids of their buttons. A muted microphone stays, disabled; a camera that is off is let go. */
const mine = { microphone: undefined, camera: undefined, screen: undefined };
/** The others'. @type {Map<string, Tile>} */
const tiles = new Map();
let own;
let signal;
let room;

// Coming and going

async function enter(signedIn, pressed) {
  const name = $("room-name").value.trim();
  signal = signedIn;
  remember(signal.name);
  show("joining");
  $("joining-title").focus();
  if (pressed && $("with-camera").checked) {
    $("joining-step").textContent = "The browser may ask whether this page may use your camera and microphone.";
    await openBoth();
  }
  if (signedIn.state === "closed") return;
  if (!pressed) notify(LINKED);
  $("joining-step").textContent = `Joining ${name}…`;
  try {
    room = await signedIn.join(name, { media: outgoing() });
  } catch (error) {
    if (signedIn.state !== "closed") giveUp(error.message);
    return;
  }
  if (room.members.length >= MAX_CAMERAS && mine.camera) {
    close("camera");
    notify(`${room.members.length} others are here, and a room carries about ${MAX_CAMERAS} cameras: yours is off.`);
  }
  begin(name);
}

function begin(name) {
  inviting("name", name);
  const here = new URL($("invite").value);
  if ($("relay").checked) here.searchParams.set("relay", "1");
  history.replaceState(history.state, "", here);
  document.title = `${name} · Throughway`;
  $("room-title").textContent = name;
  $("log").replaceChildren();
  own = new Tile(signal.name, true);
  for (const name of room.members) come(name);
  for (const call of room.calls.values()) come(call.name).follow(call);
  room.addEventListener("joined", ({ name }) => (come(name), say(`${name} joined`)));
  room.addEventListener("left", ({ name }) => (go(name), say(`${name} left`)));
  room.addEventListener("call", ({ call }) => come(call.name).follow(call));
  room.addEventListener("message", onMessage);
  // Together with the whole sign-in, which says so itself; or the room alone.
  room.addEventListener("closed", ({ reason }) => queueMicrotask(() => signal.state !== "closed" && giveUp(reason)));
  showOwn();
  showCount();
  show("room");
  $("room-title").focus();
}

function come(name) {
  const tile = tiles.get(name) ?? new Tile(name);
  tiles.set(name, tile);
  showCount();
  if (tiles.size > MAX_CALLS) tile.leaveOut();
  return tile;
}

function go(name) {
  tiles.get(name)?.remove();
  tiles.delete(name);
  showCount();
}

function onMessage({ name, text }) {
  say(text, name, "theirs").firstElementChild.className = "name";
  if (!$("side").checkVisibility()) $("show-side").dataset.unread = "";
}

/** Back to the form, which says why. */
function giveUp(reason) {
  signal.close();
  $("sign-in-error").textContent = sentence(reason);
}

/** Signed out, by whomever: nothing of ours goes on. */
function left() {
  room = undefined;
  closeAll();
  for (const name of [...tiles.keys()]) go(name);
  own?.remove();
  own = undefined;
  notify("");
  showSide(false);
  document.title = "Room · Throughway";
}

// What we send

/** Camera and microphone, or the one of them that there is. */
async function openBoth() {
  const refusal = await open({ audio: true, video: PICTURE });
  if (!refusal) return;
  if (refusal.name === "NotAllowedError") return notify(`You have no camera and microphone here: ${words(refusal)}.`);
  const [noMicrophone, noCamera] = [await open({ audio: true }), await open({ video: PICTURE })];
  if (noMicrophone && noCamera) notify(`You have no camera and microphone here: ${words(noCamera)}.`);
  else if (noCamera) notify(`You have no camera here: ${words(noCamera)}.`);
  else if (noMicrophone) notify(`You have no microphone here: ${words(noMicrophone)}.`);
}

/** Keeps what the browser gives, or says why it gives nothing. @returns {Promise<Error|undefined>} */
async function open(wanted, source = "getUserMedia") {
  // On plain http, other than to this machine itself, browsers have no such thing.
  if (!navigator.mediaDevices?.[source]) return new Error("browsers lend it to pages on https only");
  const asking = signal;
  try {
    const stream = await navigator.mediaDevices[source](wanted);
    for (const track of stream.getTracks()) {
      // Who was asked for it has left meanwhile.
      if (asking.state === "closed") track.stop();
      else if (source === "getDisplayMedia") keep("screen", track);
      else keep(track.kind === "audio" ? "microphone" : "camera", track);
    }
  } catch (error) {
    return error;
  }
}

function keep(kind, track) {
  mine[kind]?.stop();
  mine[kind] = track;
  // Unplugged, or its sharing was stopped by the browser's own button.
  track.addEventListener("ended", () => {
    if (mine[kind] !== track) return;
    close(kind);
    if (kind !== "screen") notify(`Your ${kind} is gone. The button below looks for another one.`);
  });
}

function words({ name, message }) {
  return PROBLEMS[name] ?? message;
}

function close(kind) {
  mine[kind]?.stop();
  mine[kind] = undefined;
  changed();
}

function closeAll() {
  for (const kind of Object.keys(mine)) {
    mine[kind]?.stop();
    mine[kind] = undefined;
  }
}

function outgoing() {
  return new MediaStream([mine.microphone, mine.screen ?? mine.camera].filter(Boolean));
}

function changed() {
  // Of a connection that is closed browsers say InvalidStateError: somebody has left meanwhile.
  room?.setMedia(outgoing()).catch(({ name, message }) => name === "InvalidStateError" || notify(sentence(message)));
  if (own) showOwn();
}

async function toggle(kind, wanted, source) {
  if (mine[kind]) return close(kind);
  $(kind).disabled = true;
  const refusal = await open(wanted, source);
  $(kind).disabled = false;
  if (!room) return closeAll();
  // Who closes the browser's own choice of screens has been told enough.
  if (refusal && kind !== "screen") return notify(`You have no ${kind} here: ${words(refusal)}.`);
  notify("");
  changed();
}

$("microphone").addEventListener("click", () => {
  if (!mine.microphone) return toggle("microphone", { audio: true });
  mine.microphone.enabled = !mine.microphone.enabled;
  showOwn();
});

$("camera").addEventListener("click", () => {
  const cameras = [...tiles.values()].filter(({ hasPicture }) => hasPicture).length;
  if (mine.camera || cameras < MAX_CAMERAS) return toggle("camera", { video: PICTURE });
  notify(`${cameras} pictures come in already, and a room carries about ${MAX_CAMERAS}: somebody has to switch one off first.`);
});

$("screen").addEventListener("click", () => toggle("screen", { video: true }, "getDisplayMedia"));

// Showing

/** Somebody's place on the page: picture, name, and how it is with the way to them. */
class Tile {
  #call;
  #pill = make("p", "pill");
  #enlarger = make("button", "enlarge");
  #video = make("video");
  #stream = new MediaStream();
  #heardAt = -HEARD_MS;

  constructor(name, isOwn = false) {
    const initial = make("span", "avatar", [...name][0].toUpperCase());
    initial.setAttribute("aria-hidden", "true");
    this.#video.autoplay = true;
    this.#video.playsInline = true;
    this.#video.muted = isOwn;
    this.#video.setAttribute("aria-label", isOwn ? "Your own picture" : `Picture of ${name}`);
    this.#enlarger.type = "button";
    this.#enlarger.setAttribute("aria-label", `Enlarge ${name}`);
    this.#enlarger.addEventListener("click", () => {
      const enlarged = this.#enlarger.getAttribute("aria-pressed") !== "true";
      for (const tile of [own, ...tiles.values()]) tile.enlarge(enlarged && tile === this);
    });
    const label = make("div", "label", make("span", "name", isOwn ? `${name} (you)` : name), this.#pill);
    this.element = make("li", "tile", this.#video, initial, label, this.#enlarger);
    this.element.dataset.name = name;
    this.element.dataset.own = String(isOwn);
    this.#pill.hidden = isOwn;
    this.#pill.dataset.state = "wait";
    this.#pill.textContent = STATES.connecting;
    this.name = name;
    this.enlarge(false);
    $("tiles").append(this.element);
  }

  enlarge(isLarge) {
    this.#enlarger.setAttribute("aria-pressed", String(isLarge));
    this.element.classList.toggle("large", isLarge);
  }

  /** Until they call, if ever. */
  leaveOut() {
    if (this.#call) return;
    this.#pill.dataset.state = "offline";
    this.#pill.textContent = STATES.closed;
    notify(`A room connects nobody with more than ${MAX_CALLS} others: some here you neither see, hear nor read.`);
  }

  /** Shows a call with this member, in place of an earlier one. */
  follow(call) {
    const on = (type, handler) => call.addEventListener(type, (event) => call === this.#call && handler(event));
    this.#call = call;
    this.show(new MediaStream());
    on("state", () => this.#showState());
    on("path", () => this.#showState());
    on("track", ({ track }) => this.#take(track));
    on("closed", ({ reason }) => {
      this.#pill.title = sentence(reason, this.name);
      this.show(new MediaStream());
    });
    for (const { track } of call.connection.getReceivers()) this.#take(track);
    this.#showState();
  }

  #showState() {
    const { state, path } = this.#call;
    this.element.dataset.state = state;
    if (state === "connected" && path) return this.#showPath(path);
    this.#pill.dataset.state = { connected: "direct", closed: "offline" }[state] ?? "wait";
    this.#pill.textContent = STATES[state];
  }

  /** In short, for a tile may be small. @param {import("./throughway.js").Path} path */
  #showPath(path) {
    showPath(this.#pill, path);
    this.#pill.title = `${this.#pill.textContent}. ${this.#pill.title}`;
    this.#pill.textContent = (path.relayed ? "relayed" : "direct") + (path.rtt === undefined ? "" : `, ${path.rtt} ms`);
  }

  /** Of each kind one track is shown, the last to come. */
  #take(track) {
    const others = this.#stream.getTracks().filter(({ kind, id }) => kind !== track.kind && id !== track.id);
    track.onmute = track.onunmute = track.onended = () => this.#showPicture();
    this.show(new MediaStream([...others, track]));
  }

  /** @param {MediaStream} stream @param {boolean} [mirrored] as people know themselves */
  show(stream, mirrored = false) {
    this.#stream = stream;
    this.#video.srcObject = stream;
    this.element.dataset.mirrored = String(mirrored);
    this.#showPicture();
    this.play();
  }

  play() {
    if (this.#stream.getTracks().length === 0) return;
    this.#video.play().catch(({ name }) => name === "NotAllowedError" && playOnceTouched());
  }

  #showPicture() {
    this.element.dataset.picture = String(this.hasPicture);
  }

  get hasPicture() {
    return this.#stream.getVideoTracks().some(({ readyState, muted }) => readyState === "live" && !muted);
  }

  /** Shows whether they speak just now. */
  listen() {
    const receivers = this.#call?.state === "connected" ? this.#call.connection.getReceivers() : [];
    const levels = receivers.flatMap((receiver) => receiver.getSynchronizationSources()).map(({ audioLevel = 0 }) => audioLevel);
    if (Math.max(0, ...levels) > LOUD) this.#heardAt = performance.now();
    this.element.dataset.speaking = String(performance.now() - this.#heardAt < HEARD_MS);
  }

  remove() {
    this.#call = undefined;
    this.#video.srcObject = null;
    this.element.remove();
  }
}

function showOwn() {
  own.show(new MediaStream([mine.screen ?? mine.camera].filter(Boolean)), !mine.screen);
  own.element.dataset.muted = String(!mine.microphone?.enabled);
  for (const kind of Object.keys(mine)) $(kind).setAttribute("aria-pressed", String(Boolean(mine[kind]?.enabled)));
}

function showCount() {
  const count = tiles.size + 1;
  $("count").textContent = count === 1 ? "Only you are here" : `${count} people`;
  $("tiles").dataset.count = String(Math.min(count, MAX_CAMERAS + 1));
  $("alone").hidden = count > 1;
}

function notify(text) {
  $("notice-text").textContent = text;
  $("notice").hidden = !text;
}

/** On a phone the chat covers the tiles. */
function showSide(isShown) {
  $("room").classList.toggle("with-side", isShown);
  $("show-side").setAttribute("aria-pressed", String(isShown));
  if (isShown) delete $("show-side").dataset.unread;
}

/** A browser may hold sound back until somebody does something on the page. */
function playOnceTouched() {
  notify(`${$("notice-text").textContent.replace(HELD, "").trim()} ${HELD}`);
  for (const touch of TOUCHES) addEventListener(touch, playAll);
}

function playAll() {
  for (const touch of TOUCHES) removeEventListener(touch, playAll);
  notify($("notice-text").textContent.replace(HELD, "").trim());
  for (const tile of tiles.values()) tile.play();
}

function remember(name) {
  try {
    sessionStorage.setItem(REMEMBERED, name);
  } catch {
    // A browser that stores nothing asks again.
  }
}

function remembered() {
  try {
    return sessionStorage.getItem(REMEMBERED) ?? "";
  } catch {
    return "";
  }
}

$("cancel").addEventListener("click", () => signal.close());
$("show-side").addEventListener("click", () => showSide(!$("room").classList.contains("with-side")));
$("notice-close").addEventListener("click", () => notify(""));
$("alone-copy").addEventListener("click", () => {
  showSide(true);
  $("copy").click();
});

// Begin

setInterval(() => tiles.forEach((tile) => tile.listen()), LISTEN_MS);
$("screen").hidden = !navigator.mediaDevices?.getDisplayMedia;
copying($("copy"), $("invite"));
composing(async (text) => {
  const heard = await room.send(text);
  if (heard === 0) throw new Error("nobody is connected with you yet");
});

const name = asked.get("name") ?? "";
$("room-name").value = name;
$("room-field").hidden = Boolean(name);
if (name) $("sign-in-title").textContent = `Join ${name}`;
signingIn({ name: name ? asked.get("as") : "", entered: enter, left });
$("name").value ||= remembered();
if (!name) $("room-name").focus();
