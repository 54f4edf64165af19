// What the pages where people talk have in common: signing in, being called, the lobby with its invitation, a call's
// states and end, the log and its composer. Each part works on elements by their ids, which the pages share:
//
//     signingIn({ entered })      the form, the pill, `?name=`; every page
//     calling({ ... })            calls between two, with files: /chat and /call
//     composing(send), say(text)  the log and the field below it; every page
//
// Sections of a page that stand in for each other carry `data-view`; `show(id)` shows one of them.

import { $, asked, copying, hidden, isLocal } from "./page.js";
import { Signal } from "./throughway.js";

/** How many lines the log keeps: the other side decides how many it sends. */
const MAX_LINES = 500;
const TITLE = document.title;

const CALL_STATES = {
  calling: "Ringing…",
  connecting: "Connecting…",
  connected: "Connected",
  reconnecting: "Reconnecting…",
  closed: "Call ended",
};

// The address: `?name=` signs in, `?to=` calls that member then, `?relay=1` keeps to the relay, `?token=` is for servers with
// accounts. Anyone can make such a link, so that it alone never makes a page send sound or pictures.
const token = hidden("token");

// Signing in and out

/**
 * Signs in by the form, or at once if the address has a name.
 * @param {object} page
 * @param {(signal: Signal, pressed: boolean) => void} page.entered signed in, by the form or by the address alone
 * @param {() => void} [page.leaving] about to sign out, by the person's own wish
 * @param {() => void} [page.left] signed out, for whatever reason
 * @param {string|null} [page.name] whom to sign in at once
 */
export function signingIn({ entered, leaving, left, name = asked.get("name") }) {
  let signal;
  $("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    signIn($("name").value.trim(), true);
  });
  $("sign-out").addEventListener("click", () => {
    leaving?.();
    signal.close();
  });
  // Whoever closes the page is gone at once, for those they talk with and for the server, which else keeps the name a while.
  addEventListener("pagehide", () => signal?.close());
  $("relay").checked = asked.get("relay") === "1";
  $("name").value = name ?? "";
  // A token may say whose it is.
  $("name").required = token === undefined;
  if (name) signIn(name, false);
  else $("name").focus();

  async function signIn(name, pressed) {
    $("sign-in-error").textContent = "";
    $("sign-in-button").disabled = true;
    showStatus("wait", "Signing in…");
    const iceTransportPolicy = $("relay").checked ? "relay" : "all";
    try {
      signal = await Signal.connect({ name: name || undefined, token, iceTransportPolicy });
    } catch (error) {
      return refuse(error.message);
    } finally {
      $("sign-in-button").disabled = false;
    }
    signal.addEventListener("state", onState);
    signal.addEventListener("error", ({ error }) => say(sentence(error.message)));
    $("sign-out").hidden = false;
    onState({ state: "online" });
    prepare(signal.iceServers);
    entered(signal, pressed);
  }

  function onState({ state, reason }) {
    if (state === "online") showStatus("online", `Signed in as ${signal.name}`);
    if (state === "reconnecting") showStatus("wait", `Reconnecting: ${reason}`);
    if (state !== "closed") return;
    left?.();
    refuse(reason);
  }

  function refuse(reason) {
    showStatus("offline", "Not signed in");
    $("sign-out").hidden = true;
    $("sign-in-error").textContent = sentence(reason);
    show("sign-in");
    $("name").select();
    $("name").focus();
  }
}

/** Has the browser look the server's name up before a call needs it: in calls that takes a round trip on both sides. */
function prepare(iceServers) {
  try {
    const idle = new RTCPeerConnection({ iceServers: iceServers.slice(0, 1), iceCandidatePoolSize: 1 });
    setTimeout(() => idle.close(), 3_000);
  } catch {
    // A browser without WebRTC, or an address in the operator's list that it can't read: a call will say which.
  }
}

function showStatus(state, text) {
  $("status").dataset.state = state;
  $("status").textContent = text;
}

// Calls between two

/**
 * Signs in, then makes and takes calls, one at a time.
 * @param {object} [page]
 * @param {boolean} [page.sendsMedia] a call sends sound or pictures, so that it takes more than a link to make one
 * @param {(how?: string) => import("./throughway.js").CallOptions} [page.options] what a call is made with, or accepted
 *   with by a button whose `data-accept` says how
 * @param {() => Promise<void>} [page.prepare] waited for before a call is made, never before one is accepted
 * @param {() => void} [page.waiting] the lobby is shown
 * @param {(event?: import("./throughway.js").IncomingCall) => void} [page.ringing] who rings; nothing once they gave up
 *   or were declined
 * @param {(call: import("./throughway.js").Call) => void} [page.began] a call is shown
 * @param {(call: import("./throughway.js").Call) => void} [page.ended] it is over, and what comes after it is shown
 * @param {() => void} [page.left] signed out
 */
export function calling({ sendsMedia = false, options, prepare, waiting, ringing, began, ended, left } = {}) {
  let signal;
  let incoming;
  let call;

  $("call-form").addEventListener("submit", (event) => {
    event.preventDefault();
    start($("to").value.trim());
  });
  for (const button of document.querySelectorAll("[data-accept]")) {
    button.addEventListener("click", () => {
      const event = dismiss();
      if (event) attempt(() => event.accept(options?.(button.dataset.accept)));
    });
  }
  $("reject").addEventListener("click", () => {
    dismiss()?.reject();
    ringing?.();
    if (!$("lobby").hidden) $("to").focus();
  });
  $("hang-up").addEventListener("click", () => call.hangUp());
  $("again").addEventListener("click", () => start(call.name));
  $("back").addEventListener("click", () => {
    $("to").value = "";
    wait();
  });
  copying($("copy"), $("invite"));
  composing((text) => call.send(text));
  filing(() => call);
  const [title, button] = [$("sign-in-title").textContent, $("sign-in-button").textContent];
  if (asked.get("to")) {
    $("sign-in-title").textContent = `Call ${asked.get("to")}`;
    $("sign-in-button").textContent = "Sign in and call";
  }
  signingIn({ entered, left, leaving: () => incoming && $("reject").click() });

  function entered(signedIn, pressed) {
    signal = signedIn;
    signal.addEventListener("call", onIncoming);
    signal.addEventListener("missed", onMissed);
    inviting("to", signal.name);
    wait();
    const to = asked.get("to");
    if (!to) return;
    asked.delete("to");
    $("sign-in-title").textContent = title;
    $("sign-in-button").textContent = button;
    $("to").value = to;
    if (to === signal.name) return;
    if (pressed || !sendsMedia) start(to);
    else $("call-button").focus();
  }

  function wait() {
    $("call-error").textContent = "";
    show("lobby");
    waiting?.();
    if (incoming) $("accept").focus();
    else $("to").focus();
  }

  function onIncoming(event) {
    if (incoming || (call && call.state !== "closed")) {
      event.reject();
      return turnedAway(event.name);
    }
    incoming = event;
    $("incoming-name").textContent = event.name;
    $("incoming").hidden = false;
    document.title = `${event.name} is calling · Throughway`;
    ringing?.(event);
    // Never take the keyboard from someone who uses it: the key they are about to press would accept.
    if (document.activeElement === document.body) $("accept").focus();
  }

  /** In the log each caller has one line, however often they call. */
  function turnedAway(name) {
    const words = `${name} called meanwhile and was declined`;
    if (!$("lobby").hidden) return void ($("call-error").textContent = `${words}.`);
    const earlier = [...$("log").children].find(({ dataset }) => dataset.caller === name);
    const line = earlier ?? say(words);
    line.dataset.caller = name;
    line.dataset.calls = String(Number(line.dataset.calls ?? 0) + 1);
    if (!earlier) return;
    const count = line.querySelector("span") ?? document.createElement("span");
    // Read out once, not with every call.
    count.setAttribute("aria-hidden", "true");
    count.textContent = ` (${line.dataset.calls} times)`;
    line.append(count);
  }

  function onMissed({ name }) {
    if (incoming?.name !== name) return;
    dismiss();
    ringing?.();
    const place = $("lobby").hidden ? $("after-reason") : $("call-error");
    place.textContent = `${name} called and hung up before you answered.`;
  }

  function dismiss() {
    const event = incoming;
    incoming = undefined;
    $("incoming").hidden = true;
    document.title = TITLE;
    return event;
  }

  async function start(name) {
    $("call-error").textContent = "";
    if (incoming?.name !== name) {
      $("call-button").disabled = true;
      $("again").disabled = true;
      await prepare?.();
      $("call-button").disabled = false;
      $("again").disabled = false;
    }
    // Since the button was pressed they may have called, and even be talking to us.
    if (signal.state === "closed" || (call && call.state !== "closed")) return;
    if (incoming?.name === name) return $("accept").click();
    attempt(() => signal.call(name, options?.()));
  }

  function attempt(begin) {
    try {
      enter(begin());
    } catch (error) {
      wait();
      $("call-error").textContent = sentence(error.message);
    }
  }

  function enter(begun) {
    if (call?.name !== begun.name) trim(0);
    call = begun;
    $("call-name").textContent = call.name;
    $("initial").textContent = [...call.name][0].toUpperCase();
    $("after").hidden = true;
    $("composer").hidden = false;
    $("hang-up").hidden = false;
    $("path").hidden = true;
    show("call");
    showState();
    $("hang-up").focus();
    call.addEventListener("state", showState);
    call.addEventListener("open", onOpen);
    call.addEventListener("message", ({ text }) => say(text, begun.name, "theirs"));
    call.addEventListener("path", ({ path }) => showPath($("path"), path));
    call.addEventListener("file", (event) => offered(event, begun));
    call.addEventListener("closed", onClosed);
    began?.(call);
    if (incoming) $("reject").click();
  }

  function showState() {
    $("call-state").textContent = CALL_STATES[call.state];
    $("call").dataset.state = call.state;
  }

  function onOpen() {
    say(`You are connected with ${call.name}`);
    for (const id of ["text", "send", "attach"]) $(id).disabled = false;
  }

  function onClosed({ code, reason }) {
    const focused = $("call").contains(document.activeElement);
    for (const id of ["text", "send", "attach"]) $(id).disabled = true;
    for (const id of ["composer", "hang-up", "path"]) $(id).hidden = true;
    $("after").hidden = false;
    $("again").textContent = `Call ${call.name} again`;
    $("after-reason").textContent = sentence(reason, call.name);
    $("after-reason").className = ["hung-up", "ended"].includes(code) ? "" : "error";
    if (focused) $("again").focus();
    // Nothing was said: back to where they were called from.
    if ($("log").childElementCount === 0 && signal.state !== "closed") {
      $("to").value = call.name;
      wait();
      $("to").select();
      $("call-error").textContent = code === "hung-up" ? "" : sentence(reason, call.name);
    }
    ended?.(call);
  }
}

// Text

/** Sends what is written in the composer, by button or Enter. @param {(text: string) => Promise<unknown>} send */
export function composing(send) {
  $("composer").addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = $("text").value.trim();
    if (!text) return;
    $("text").value = "";
    $("text-error").textContent = "";
    try {
      await send(text);
      say(text, "You", "mine");
    } catch (error) {
      // Before what was written meanwhile.
      $("text").value = [text, $("text").value].filter(Boolean).join("\n");
      $("text-error").textContent = sentence(error.message);
    }
  });
  $("text").addEventListener("keydown", (event) => {
    // The Enter that ends a composed character is that character's: 229 says so in Safari, where it has ended by then.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    $("composer").requestSubmit();
  });
}

/** Adds a line to the log: someone's words ("mine" or "theirs"), or without `who` what happened. */
export function say(text, who, side = "event") {
  const line = document.createElement("li");
  line.className = side;
  if (who) {
    const name = document.createElement("span");
    name.className = "hidden";
    name.textContent = `${who}: `;
    line.append(name);
  }
  line.append(text);
  append(line);
  return line;
}

function append(line) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  log.append(line);
  trim(MAX_LINES);
  if (atEnd || line.classList.contains("mine")) log.scrollTop = log.scrollHeight;
}

/**
 * Leaves this many lines in the log: what happened goes before what was said or sent, for that can be anybody's doing.
 * A file that was received is kept for as long as its line stands.
 */
function trim(count) {
  const log = $("log");
  while (log.childElementCount > count) {
    const line = log.querySelector(".event:not(:last-child)") ?? log.firstElementChild;
    const link = line.querySelector("a[download]");
    if (link) URL.revokeObjectURL(link.href);
    line.remove();
  }
}

// Files

/** Sends files that are chosen by the button `attach` or dropped on the section `call`. */
function filing(current) {
  const zone = $("call");
  const over = (event) => event.dataTransfer?.types.includes("Files");
  const send = (files) => {
    for (const file of files) sendFile(current(), file);
  };
  $("attach").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => {
    send($("files").files);
    $("files").value = "";
  });
  zone.addEventListener("dragover", (event) => {
    if (!over(event)) return;
    event.preventDefault();
    zone.dataset.drop = "";
  });
  zone.addEventListener("dragleave", (event) => {
    if (!zone.contains(event.relatedTarget)) delete zone.dataset.drop;
  });
  zone.addEventListener("drop", (event) => {
    if (!over(event)) return;
    // Even with nobody to send it to: the browser would leave the page to show it.
    event.preventDefault();
    delete zone.dataset.drop;
    if (!$("attach").disabled) send(event.dataTransfer.files);
  });
}

async function sendFile(call, file) {
  const line = new FileLine(file, "You", "mine");
  const canceling = new AbortController();
  line.ask(`Waiting for ${call.name} to accept`, { Cancel: () => canceling.abort() });
  try {
    await call.sendFile(file, { signal: canceling.signal, progress: (bytes) => line.progress(bytes, "Sending") });
    line.tell("Sent");
  } catch (error) {
    line.tell(canceling.signal.aborted ? "Canceled" : sentence(error.message, call.name));
  }
}

/** Shows a file that the other side would send. */
function offered(event, call) {
  const line = new FileLine(event, call.name, "theirs");
  let declined;
  const refuse = () => {
    declined = "Declined";
    event.reject();
  };
  const receive = () => {
    line.ask("", { Cancel: () => event.reject() });
    event.accept({ progress: (bytes) => line.progress(bytes, "Receiving") }).catch(() => {});
  };
  line.ask("", { Accept: receive, Decline: refuse });
  event.whole.then(
    (blob) => line.save(blob, event.name),
    (error) => line.tell(declined ?? sentence(error.message, call.name)),
  );
}

/** A file's line in the log: its name and size, how far it is, and what can be done about it. */
class FileLine {
  #note = document.createElement("p");
  #bar = document.createElement("progress");
  #actions = document.createElement("div");

  constructor({ name, size }, who, side) {
    const title = document.createElement("p");
    title.className = "file-name";
    title.textContent = `${name || "a file"} (${sizeInWords(size)})`;
    this.#note.setAttribute("role", "status");
    this.#bar.max = Math.max(size, 1);
    this.#bar.hidden = true;
    this.#bar.setAttribute("aria-label", name);
    this.#actions.className = "actions";
    const line = say(title, who, side);
    line.classList.add("file");
    line.append(this.#note, this.#bar, this.#actions);
    line.scrollIntoView({ block: "nearest" });
  }

  ask(note, choices) {
    const focused = this.#actions.contains(document.activeElement);
    this.#note.textContent = note;
    this.#actions.replaceChildren();
    for (const [label, act] of Object.entries(choices)) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "button small";
      button.textContent = label;
      button.addEventListener("click", act);
      this.#actions.append(button);
    }
    // The button that was pressed is gone: the keyboard stays nearby.
    if (focused) (this.#actions.firstElementChild ?? $("log")).focus();
  }

  /** How far it is; the note is spoken once, not with every chunk. */
  progress(bytes, note) {
    if (this.#bar.hidden) this.#note.textContent = note;
    this.#bar.hidden = false;
    this.#bar.value = bytes;
  }

  tell(note) {
    this.ask(note, {});
    this.#bar.hidden = true;
  }

  save(blob, name) {
    const focused = this.#actions.contains(document.activeElement);
    this.tell("Received");
    const link = document.createElement("a");
    link.className = "button small";
    // Without the type that the sender gave it: opened in a tab, it must not be a page of this server's.
    link.href = URL.createObjectURL(new Blob([blob]));
    link.download = name || "file";
    link.textContent = "Save";
    this.#actions.append(link);
    if (focused) link.focus();
  }
}

function sizeInWords(bytes) {
  if (bytes === 1) return "1 byte";
  const units = ["bytes", "kB", "MB", "GB"];
  let unit = 0;
  for (; bytes >= 1000 && unit < units.length - 1; unit += 1) bytes /= 1000;
  return `${unit && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

// Showing

/** Shows one of the sections that stand in for each other. @param {string} view its id */
export function show(view) {
  for (const section of document.querySelectorAll("[data-view]")) section.hidden = section.id !== view;
  document.body.dataset.shows = view;
}

/** @param {HTMLElement} pill @param {import("./throughway.js").Path} path */
export function showPath(pill, { relayed, protocol, local, remote, rtt }) {
  const over = { udp: "UDP", tcp: "TCP", tls: "TLS" }[protocol] ?? protocol;
  const way = relayed ? `relayed over ${over}` : protocol === "udp" ? "direct" : `direct over ${over}`;
  const time = rtt === undefined ? "" : rtt < 1 ? ", under 1 ms" : `, ${rtt} ms`;
  pill.textContent = way + time;
  pill.dataset.state = relayed ? "relayed" : "direct";
  pill.title = `The way it travels: ${local} here, ${remote} there`;
  pill.hidden = false;
}

/** What the module says, as a sentence; a member's name at its beginning stays as it is. */
export function sentence(text, name) {
  if (!text) return "";
  const first = name && text.startsWith(`${name} `) ? text[0] : text[0].toUpperCase();
  return first + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

/** Shows the link that others come by: this page's, which asks for `value` as `key`. */
export function inviting(key, value) {
  const link = new URL(location.pathname, location.href);
  link.searchParams.set(key, value);
  $("invite").value = link.href;
  $("invite-note").hidden = !isLocal();
}
