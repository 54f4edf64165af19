// The dashboard: asks the admin API how the server is, every two seconds, and draws what it says.

import { Chart, part } from "/chart.js";

const EVERY_MS = 2_000;
const SPAN_MS = 5 * 60_000;
const KEY = "throughway-admin-token";
const DAY_S = 86_400;
/** How many names of a certificate are shown; all stand in its tooltip. */
const NAMES = 3;

const $ = (id) => document.getElementById(id);
const sum = (numbers) => Object.values(numbers).reduce((a, b) => a + b, 0);

/** What each chart shows: numbers as they are, or (`each`) how many more there are each second. */
const CHARTS = [
  {
    title: "Signaling",
    series: ["members", "connections", "rooms"],
    read: ({ members, connections, rooms }) => [sum(members), connections, sum(rooms)],
  },
  {
    title: "Relays, by how clients come",
    series: ["UDP", "TCP", "TLS"],
    read: ({ allocations: { udp, tcp, tls } }) => [udp, tcp, tls],
  },
  {
    title: "Relayed bytes",
    series: ["to peers", "to clients", "inside"],
    read: ({ relayed }) => [relayed.toPeers.bytes, relayed.toClients.bytes, relayed.hairpin.bytes],
    each: bytesEach,
    base: 1024,
  },
  {
    title: "Relayed packets",
    series: ["to peers", "to clients", "inside"],
    read: ({ relayed }) => [relayed.toPeers.packets, relayed.toClients.packets, relayed.hairpin.packets],
    each: countEach,
  },
  {
    title: "Sign-ins",
    series: ["let in", "refused"],
    read: ({ signIns }) => [signIns.ok, signIns.refused],
    each: countEach,
  },
  {
    title: "Requests to the relay",
    series: ["done", "answered with an error", "wrong credentials"],
    read: ({ turn }) => [turn.successes, turn.errors, turn.authFailures],
    each: countEach,
  },
];

const charts = CHARTS.map(({ title, series, read, each, base }) => {
  const chart = new Chart({ title, series, span: SPAN_MS, format: each ?? count, base });
  $("charts").append(chart.element);
  return { chart, read, each };
});

/** The answer before, and when it came: rates are what lies between two. */
let before;
let token = sessionStorage.getItem(KEY);
let timer;

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  $("error").textContent = "";
  look();
});

$("forget").addEventListener("click", () => leave(""));

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && token) look();
});

if (token) look();

/** Asks once, and again in a while. */
async function look() {
  clearTimeout(timer);
  const asked = token;
  const answer = await ask("/admin/status");
  // Somebody signed out meanwhile.
  if (token !== asked || !token) return;
  if (answer.ok) {
    sessionStorage.setItem(KEY, token);
    show(answer.body);
  } else if (answer.why) {
    return leave(answer.why);
  } else {
    state("wait", "No answer, trying again");
  }
  // Looking at a page that nobody sees is work for nothing.
  if (!document.hidden) timer = setTimeout(look, EVERY_MS);
}

/** One call of the admin API: what it says, or why that is final. Neither: the server is away, which may pass. */
async function ask(path, body) {
  const headers = { Authorization: `Bearer ${token}` };
  const request = body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers };
  let response;
  try {
    response = await fetch(path, { ...request, cache: "no-store", signal: AbortSignal.timeout(10_000) });
  } catch (error) {
    // What no header can carry is no token.
    return /header|ByteString|ISO-8859/i.test(error.message) ? { why: REFUSED[401] } : {};
  }
  if (response.ok) return { ok: true, body: await response.json() };
  return { why: REFUSED[response.status], status: response.status };
}

const REFUSED = {
  401: "That isn’t the token.",
  404: "This server has no admin.token in its configuration: see below.",
  429: "Too many wrong tokens from this address: wait a little.",
};

function leave(why) {
  clearTimeout(timer);
  sessionStorage.removeItem(KEY);
  token = null;
  before = undefined;
  for (const { chart } of charts) chart.clear();
  $("entry").hidden = false;
  $("board").hidden = $("forget").hidden = true;
  $("error").textContent = why;
  $("how").open = why === REFUSED[404];
  state("offline", "Not connected");
  $("token").value = "";
  $("token").focus();
}

function show(status) {
  const now = Date.now();
  // A server that was started again counts from zero.
  if (before?.status.startedAt !== status.startedAt) before = undefined;
  const seconds = before ? Math.max((now - before.at) / 1000, 0.001) : undefined;
  $("entry").hidden = true;
  $("board").hidden = $("forget").hidden = false;
  if (status.draining) state("wait", "About to end");
  else if (!status.ready) state("wait", "Starting");
  else state("online", "Running");
  showFacts(status, now);
  for (const { chart, read, each } of charts) {
    const values = read(status);
    const last = before && read(before.status);
    chart.add(now, each ? values.map((value, index) => last && (value - last[index]) / seconds) : values);
  }
  showVolume(status.relayed);
  showDrops(status.drops, before?.status.drops, seconds);
  showTalkers(status.talkers, before?.status.talkers, seconds);
  before = { status, at: now };
}

function state(state, text) {
  $("state").dataset.state = state;
  $("state").textContent = text;
}

function showFacts({ version, startedAt, turn, certificate }, now) {
  const facts = [
    ["Version", version],
    ["Running for", duration(now / 1000 - startedAt)],
    ["Address questions answered", count(turn.bindings)],
  ];
  if (certificate) facts.push(["Certificate", ...expiry(certificate, now)]);
  $("facts").replaceChildren(...facts.map(([name, ...values]) => pair(name, ...values)));
}

function expiry({ notAfter, source, names }, now) {
  const left = notAfter - now / 1000;
  const day = new Date(notAfter * 1000).toISOString().slice(0, 10);
  const value = part("span", "", left > 0 ? `until ${day}, ${duration(left)} left` : `expired on ${day}`);
  value.dataset.state = left > 14 * DAY_S ? "good" : left > 0 ? "warn" : "bad";
  const more = names.length > NAMES ? ` and ${names.length - NAMES} more` : "";
  const forWhom = part("small", "", `${source}, for ${names.slice(0, NAMES).join(", ")}${more}`);
  forWhom.title = names.join(", ");
  return [value, forWhom];
}

function showVolume({ today, limitToday, thisMonth, limitThisMonth }) {
  const periods = [
    ["Today", today, limitToday],
    ["This month", thisMonth, limitThisMonth],
  ];
  $("volume").replaceChildren(
    ...periods.map(([name, used, limit]) => {
      if (limit === null) return pair(name, `${bytes(used)}, without a limit`);
      const meter = part("meter");
      Object.assign(meter, { max: limit, value: used, low: limit * 0.8, high: limit * 0.95, optimum: 0 });
      meter.setAttribute("aria-label", name);
      const value = part("span", "", `${bytes(used)} of ${bytes(limit)} (${Math.floor((100 * used) / limit)} %)`);
      return pair(name, value, meter);
    }),
  );
}

function showDrops(drops, last, seconds) {
  const rows = Object.entries(drops).sort(([, a], [, b]) => b - a);
  $("drops").hidden = rows.length === 0;
  $("no-drops").hidden = rows.length > 0;
  $("drops").tBodies[0].replaceChildren(
    ...rows.map(([reason, all]) => {
      const each = seconds && countEach((all - (last[reason] ?? 0)) / seconds);
      return row(reason.replaceAll("-", " "), each ?? "–", count(all));
    }),
  );
}

/** Rows stay where they are as long as they are the same people: a button must not move under a finger. */
function showTalkers(talkers, last, seconds) {
  $("talkers").hidden = talkers.length === 0;
  $("no-talkers").hidden = talkers.length > 0;
  const body = $("talkers").tBodies[0];
  const key = ({ who, session }) => JSON.stringify([who, session]);
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  const earlier = new Map(last?.map((talker) => [key(talker), talker]));
  const rows = talkers.map((talker) => {
    const row = known.get(key(talker)) ?? talkerRow(talker, key(talker));
    const past = earlier.get(key(talker));
    row.cells[1].textContent = count(talker.allocations);
    // Of an allocation that ended meanwhile nothing is counted any more.
    row.cells[2].textContent = past ? bytesEach(Math.max(0, talker.bytes - past.bytes) / seconds) : "–";
    row.cells[3].replaceChildren(bytes(talker.bytes), part("small", "", `${count(talker.packets)} packets`));
    return row;
  });
  const isSame = rows.length === body.rows.length && rows.every((row, index) => row === body.rows[index]);
  if (!isSame) body.replaceChildren(...rows);
}

function talkerRow(talker, key) {
  const who = part("span", "", talker.who);
  if (talker.gateway) who.append(part("small", "", talker.gateway));
  const made = row(who, "", "", "", "");
  made.dataset.key = key;
  const command = commandFor(talker);
  if (!command) return made;
  const button = part("button", "button small danger", "Kick");
  button.type = "button";
  button.setAttribute("aria-label", `Kick ${talker.who}`);
  button.addEventListener("click", () => kick(talker, command, button));
  made.cells[4].append(button);
  return made;
}

/** What throws somebody out: a member by its name, what a session left behind by that; a user of the file stays. */
function commandFor({ who, gateway, session }) {
  if (gateway) return ["/admin/kick", { name: who, gateway }];
  return session ? ["/admin/revoke", { session }] : null;
}

/** The first press asks, the second does it. */
async function kick({ who }, command, button) {
  if (!button.dataset.sure) {
    button.dataset.sure = "yes";
    button.textContent = "Sure?";
    setTimeout(() => {
      delete button.dataset.sure;
      button.textContent = "Kick";
    }, 4_000);
    return;
  }
  button.disabled = true;
  const { ok, status } = await ask(...command);
  button.disabled = false;
  const gone = status === 404;
  $("talkers-note").textContent = ok ? `${who} was kicked.` : gone ? `${who} is gone.` : `${who} could not be kicked.`;
  if (token) look();
}

function pair(name, ...values) {
  const made = part("div");
  const value = part("dd");
  value.append(...values);
  made.append(part("dt", "", name), value);
  return made;
}

function row(...values) {
  const made = part("tr");
  made.append(
    ...values.map((value) => {
      const cell = part("td");
      cell.append(value);
      return cell;
    }),
  );
  return made;
}

function count(number) {
  return Math.round(number).toLocaleString("en");
}

function countEach(number) {
  return `${number < 10 ? Math.round(number * 10) / 10 : count(number)}/s`;
}

function bytesEach(number) {
  return `${bytes(number)}/s`;
}

function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  let scaled = number;
  while (scaled >= 1000 && unit < units.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || scaled >= 100 ? 0 : 1;
  return `${scaled.toFixed(digits)} ${units[unit]}`;
}

function duration(seconds) {
  const units = [
    [DAY_S, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const first = units.findIndex(([length]) => seconds >= length);
  if (first < 0) return "0 s";
  const [length, unit] = units[first];
  const whole = `${Math.floor(seconds / length)} ${unit}`;
  const next = units[first + 1];
  return next ? `${whole} ${Math.floor((seconds % length) / next[0])} ${next[1]}` : whole;
}
