// What the pages where people talk have in common: signing in, being called, the lobby with its invitation, a call's
// states and end, the log and its composer. Each part works on elements by their ids, which the pages share:
//
//     signingIn({ entered })      the form, the pill, `?name=`; every page
//     calling({ ... })            calls between two: /chat and /call
//     composing(send), say(text)  the log and the field below it; every page
//
// Sections of a page that stand in for each other carry `data-view`; `show(id)` shows one of them.

import { Signal } from "./throughway.js";

/** How many lines the log keeps: the other side decides how many it sends. */
const MAX_LINES = 500;
const COPIED_MS = 2_500;
const TITLE = document.title;

const CALL_STATES = {
  calling: "Ringing…",
  connecting: "Connecting…",
  connected: "Connected",
  reconnecting: "Reconnecting…",
  closed: "Call ended",
};

export const $ = (id) => document.getElementById(id);

/** What the address asks for: `?name=` signs in, `?to=` calls that member once signed in, `?relay=1` keeps to the relay. */
export const asked = new URLSearchParams(location.search);

// Signing in and out

/**
 * Signs in by the form, or at once if the address has a name.
 * @param {object} page
 * @param {(signal: Signal) => void} page.entered signed in
 * @param {() => void} [page.leaving] about to sign out, by the person's own wish
 * @param {() => void} [page.left] signed out, for whatever reason
 */
export function signingIn({ entered, leaving, left }) {
  let signal;
  $("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    signIn($("name").value.trim());
  });
  $("sign-out").addEventListener("click", () => {
    leaving?.();
    signal.close();
  });
  $("relay").checked = asked.get("relay") === "1";
  $("name").value = asked.get("name") ?? "";
  if (asked.get("name")) signIn(asked.get("name"));
  else $("name").focus();

  async function signIn(name) {
    $("sign-in-error").textContent = "";
    $("sign-in-button").disabled = true;
    showStatus("wait", "Signing in…");
    try {
      signal = await Signal.connect({ name, iceTransportPolicy: $("relay").checked ? "relay" : "all" });
    } catch (error) {
      return refuse(error.message);
    } finally {
      $("sign-in-button").disabled = false;
    }
    signal.addEventListener("state", onState);
    signal.addEventListener("error", ({ error }) => say(sentence(error.message)));
    $("sign-out").hidden = false;
    onState({ state: "online" });
    entered(signal);
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

function showStatus(state, text) {
  $("status").dataset.state = state;
  $("status").textContent = text;
}

// Calls between two

/**
 * Signs in, then makes and takes calls, one at a time.
 * @param {object} [page]
 * @param {() => import("./throughway.js").CallOptions} [page.options] what a call is made or accepted with
 * @param {() => Promise<void>} [page.prepare] waited for before a call is made, never before one is accepted
 * @param {() => void} [page.waiting] the lobby is shown
 * @param {(event?: import("./throughway.js").IncomingCall) => void} [page.ringing] who rings; nothing once that is over
 * @param {(call: import("./throughway.js").Call) => void} [page.began] a call is shown
 * @param {(call: import("./throughway.js").Call) => void} [page.ended] it is over
 * @param {() => void} [page.left] signed out
 */
export function calling({ options, prepare, waiting, ringing, began, ended, left } = {}) {
  let signal;
  let incoming;
  let call;

  $("call-form").addEventListener("submit", (event) => {
    event.preventDefault();
    start($("to").value.trim());
  });
  $("accept").addEventListener("click", () => {
    const event = dismiss();
    if (event) attempt(() => event.accept(options?.()));
  });
  $("reject").addEventListener("click", () => {
    dismiss()?.reject();
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
  if (asked.get("to")) {
    $("sign-in-title").textContent = `Call ${asked.get("to")}`;
    $("sign-in-button").textContent = "Sign in and call";
  }
  signingIn({ entered, left, leaving: () => incoming && $("reject").click() });

  function entered(signedIn) {
    signal = signedIn;
    signal.addEventListener("call", onIncoming);
    signal.addEventListener("missed", onMissed);
    const link = new URL(location.pathname, location.href);
    link.searchParams.set("to", signal.name);
    $("invite").value = link.href;
    $("invite-note").hidden = !/^(localhost|127\.|\[::1\])/.test(location.hostname);
    wait();
    const to = asked.get("to");
    asked.delete("to");
    if (to) $("to").value = to;
    if (to && to !== signal.name) start(to);
  }

  function wait() {
    $("call-error").textContent = "";
    show("lobby");
    waiting?.();
    if (incoming) $("accept").focus();
    else $("to").focus();
  }

  function onIncoming(event) {
    if (call && call.state !== "closed") {
      event.reject();
      return say(`${event.name} called meanwhile and was declined`);
    }
    if (incoming) return event.reject();
    incoming = event;
    $("incoming-name").textContent = event.name;
    $("incoming").hidden = false;
    document.title = `${event.name} is calling · Throughway`;
    ringing?.(event);
    // Never take the keyboard from someone who is typing.
    if (!document.activeElement?.value) $("accept").focus();
  }

  function onMissed({ name }) {
    if (incoming?.name !== name) return;
    dismiss();
    $("call-error").textContent = `${name} called and hung up before you answered.`;
  }

  function dismiss() {
    const event = incoming;
    incoming = undefined;
    $("incoming").hidden = true;
    document.title = TITLE;
    if (event) ringing?.();
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
    // They may have called, and even be talking to us, since the button was pressed.
    if (call && call.state !== "closed") return;
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
    if (call?.name !== begun.name) $("log").replaceChildren();
    call = begun;
    if (incoming) $("reject").click();
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
    call.addEventListener("closed", onClosed);
    began?.(call);
  }

  function showState() {
    $("call-state").textContent = CALL_STATES[call.state];
    $("call").dataset.state = call.state;
  }

  function onOpen() {
    say(`You are connected with ${call.name}`);
    $("text").disabled = false;
    $("send").disabled = false;
  }

  function onClosed({ code, reason }) {
    const focused = $("call").contains(document.activeElement);
    $("text").disabled = true;
    $("send").disabled = true;
    $("composer").hidden = true;
    $("hang-up").hidden = true;
    $("path").hidden = true;
    $("after").hidden = false;
    $("again").textContent = `Call ${call.name} again`;
    $("after-reason").textContent = sentence(reason, call.name);
    $("after-reason").className = ["hung-up", "ended"].includes(code) ? "" : "error";
    ended?.(call);
    if (focused) $("again").focus();
    if ($("log").childElementCount > 0 || signal.state === "closed") return;
    // Nothing was said: back to where they were called from.
    $("to").value = call.name;
    wait();
    $("to").select();
    $("call-error").textContent = code === "hung-up" ? "" : sentence(reason, call.name);
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
      $("text").value = text;
      $("text-error").textContent = sentence(error.message);
    }
  });
  $("text").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
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
  while (log.childElementCount > MAX_LINES) log.firstElementChild.remove();
  if (atEnd || line.classList.contains("mine")) log.scrollTop = log.scrollHeight;
}

// Showing

/** Shows one of the sections that stand in for each other. @param {string} view its id */
export function show(view) {
  for (const section of document.querySelectorAll("[data-view]")) section.hidden = section.id !== view;
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

/** @param {HTMLButtonElement} button @param {HTMLInputElement} field */
export function copying(button, field) {
  button.addEventListener("click", async () => {
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      button.textContent = "Copied";
    } catch {
      // No clipboard on plain http: it stays selected for the keyboard.
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => (button.textContent = "Copy"), COPIED_MS);
  });
}
