// The chat page: sign in, call, accept or decline, text both ways, hang up, call again.
//
// Address: ?name= signs in, ?to= calls that member once signed in, ?relay=1 keeps to the relay.

import { Signal } from "./throughway.js";

/** How many lines the log keeps: the other side decides how many it sends. */
const MAX_LINES = 500;

const $ = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);

let signal;
let incoming;
let call;

// Signing in and out

async function signIn(name) {
  $("sign-in-error").textContent = "";
  $("sign-in-button").disabled = true;
  showStatus("wait", "Signing in…");
  try {
    const iceTransportPolicy = $("relay").checked ? "relay" : "all";
    signal = await Signal.connect({ name, iceTransportPolicy });
  } catch (error) {
    showStatus("offline", "Not signed in");
    $("sign-in-error").textContent = sentence(error.message);
    $("name").select();
    $("name").focus();
    return;
  } finally {
    $("sign-in-button").disabled = false;
  }
  signal.addEventListener("call", onIncoming);
  signal.addEventListener("missed", onMissed);
  signal.addEventListener("state", onSignalState);
  signal.addEventListener("error", ({ error }) => say(sentence(error.message)));
  onSignalState({ state: "online" });
  enterLobby();
  const to = asked.get("to");
  asked.delete("to");
  if (to) $("to").value = to;
  if (to && to !== signal.name) startCall(to);
}

function onSignalState({ state, reason }) {
  if (state === "online") showStatus("online", `Signed in as ${signal.name}`);
  if (state === "reconnecting") showStatus("wait", `Reconnecting: ${reason}`);
  if (state !== "closed") return;
  showStatus("offline", "Not signed in");
  show("sign-in");
  $("sign-out").hidden = true;
  $("sign-in-error").textContent = reason ? sentence(reason) : "";
  $("name").focus();
}

function enterLobby() {
  $("sign-out").hidden = false;
  $("call-error").textContent = "";
  const link = new URL(location.pathname, location.href);
  link.searchParams.set("to", signal.name);
  $("invite").value = link.href;
  $("invite-note").hidden = !/^(localhost|127\.|\[::1\])/.test(location.hostname);
  show("lobby");
  if (incoming) $("accept").focus();
  else $("to").focus();
}

// Being called

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
  // Never take the keyboard from someone who is typing.
  if (!document.activeElement?.value) $("accept").focus();
}

function onMissed({ name }) {
  if (incoming?.name !== name) return;
  dismissIncoming();
  $("call-error").textContent = `${name} called and hung up before you answered.`;
}

function dismissIncoming() {
  incoming = undefined;
  $("incoming").hidden = true;
  document.title = "Chat · Throughway";
}

$("accept").addEventListener("click", () => {
  const event = incoming;
  dismissIncoming();
  if (event) enterCall(event.accept());
});

$("reject").addEventListener("click", () => {
  const event = incoming;
  dismissIncoming();
  event?.reject();
  if (!$("lobby").hidden) $("to").focus();
});

// A call

function startCall(name) {
  $("call-error").textContent = "";
  if (incoming?.name === name) return $("accept").click();
  try {
    enterCall(signal.call(name));
  } catch (error) {
    enterLobby();
    $("call-error").textContent = sentence(error.message);
  }
}

function enterCall(begun) {
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
  onCallState();
  $("hang-up").focus();
  call.addEventListener("state", onCallState);
  call.addEventListener("open", onOpen);
  call.addEventListener("message", ({ text }) => say(text, begun.name, "theirs"));
  call.addEventListener("path", ({ path }) => showPath(path));
  call.addEventListener("closed", onClosed);
}

function onCallState() {
  const words = { calling: "Ringing…", connecting: "Connecting…", connected: "Connected", reconnecting: "Reconnecting…", closed: "Call ended" };
  $("call-state").textContent = words[call.state];
  $("call").dataset.state = call.state;
}

function onOpen() {
  say(`You are connected with ${call.name}`);
  $("text").disabled = false;
  $("send").disabled = false;
  $("text").focus();
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
  $("after-reason").textContent = sentence(reason);
  $("after-reason").className = ["hung-up", "ended"].includes(code) ? "" : "error";
  if (focused) $("again").focus();
  if ($("log").childElementCount > 0 || signal.state === "closed") return;
  // Nothing was said: back to where they were called from.
  $("to").value = call.name;
  enterLobby();
  $("to").select();
  $("call-error").textContent = code === "hung-up" ? "" : sentence(reason);
}

function showPath({ relayed, protocol, local, remote, rtt }) {
  const over = { udp: "UDP", tcp: "TCP", tls: "TLS" }[protocol] ?? protocol;
  const way = relayed ? `relayed over ${over}` : protocol === "udp" ? "direct" : `direct over ${over}`;
  const time = rtt === undefined ? "" : rtt < 1 ? ", under 1 ms" : `, ${rtt} ms`;
  $("path").textContent = way + time;
  $("path").dataset.state = relayed ? "relayed" : "direct";
  $("path").title = `The way your messages travel: ${local} here, ${remote} there`;
  $("path").hidden = false;
}

// What a person does

$("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn($("name").value.trim());
});

$("sign-out").addEventListener("click", () => {
  if (incoming) $("reject").click();
  signal.close();
});

$("call-form").addEventListener("submit", (event) => {
  event.preventDefault();
  startCall($("to").value.trim());
});

$("hang-up").addEventListener("click", () => call.hangUp());
$("again").addEventListener("click", () => startCall(call.name));
$("back").addEventListener("click", () => {
  $("to").value = "";
  enterLobby();
});

$("copy").addEventListener("click", async () => {
  $("invite").select();
  try {
    await navigator.clipboard.writeText($("invite").value);
    $("copy").textContent = "Copied";
  } catch {
    // No clipboard on plain http: it stays selected for the keyboard.
    $("copy").textContent = "Press Ctrl+C";
  }
  setTimeout(() => ($("copy").textContent = "Copy"), 2500);
});

$("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  $("text-error").textContent = "";
  try {
    await call.send(text);
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

// Showing

function show(view) {
  for (const id of ["sign-in", "lobby", "call"]) $(id).hidden = id !== view;
}

function showStatus(state, text) {
  $("status").dataset.state = state;
  $("status").textContent = text;
}

/** Adds a line to the log: someone's words, or without `who` what happened. */
function say(text, who, side = "event") {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  const line = document.createElement("li");
  line.className = side;
  if (who) {
    const name = document.createElement("span");
    name.className = "hidden";
    name.textContent = `${who}: `;
    line.append(name);
  }
  line.append(text);
  log.append(line);
  while (log.childElementCount > MAX_LINES) log.firstElementChild.remove();
  if (atEnd || side === "mine") log.scrollTop = log.scrollHeight;
}

/** What the module says, as a sentence; a name at its beginning stays as it is. */
function sentence(text) {
  if (!text) return "";
  const first = call && text.startsWith(`${call.name} `) ? text[0] : text[0].toUpperCase();
  return first + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

// Begin

$("relay").checked = asked.get("relay") === "1";
$("name").value = asked.get("name") ?? "";
if (asked.get("to")) {
  $("sign-in-title").textContent = `Call ${asked.get("to")}`;
  $("sign-in-button").textContent = "Sign in and call";
}
if (asked.get("name")) signIn(asked.get("name"));
else $("name").focus();
