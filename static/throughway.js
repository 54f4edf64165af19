// @ts-check
/**
 * Throughway's client: sign in, call a member by name, meet in a room; text, files, audio and video. One module, no
 * dependencies.
 *
 *     const signal = await Signal.connect({ name: "alice" });
 *     const call = signal.call("bob");
 *     call.addEventListener("open", () => call.send("hello"));
 *     call.addEventListener("message", (event) => console.log(event.text));
 *
 * Every failure is a {@link ThroughwayError}: its `message` is meant for people, its `code` for programs.
 *
 * @typedef {object} SignalOptions
 * @property {string} name the name to sign in with
 * @property {string} [token] what the server wants to see, if it has accounts
 * @property {string|URL} [url] the server, by default the one that this module came from
 * @property {RTCIceTransportPolicy} [iceTransportPolicy] "relay" keeps to the relay
 * @property {AbortSignal} [signal] signs out and closes everything
 *
 * @typedef {object} CallOptions
 * @property {boolean} [chat] whether to open the channels for text and files, by default true; both sides must
 * @property {MediaStream} [media] what to send of audio and video
 *
 * @typedef {object} FileOptions
 * @property {AbortSignal} [signal] gives it up
 * @property {(bytes: number) => void} [progress] how much has gone out
 *
 * @typedef {object} Path how a call's packets really travel, as the selected candidate pair tells
 * @property {boolean} relayed through a relay, ours or theirs; otherwise direct
 * @property {string} protocol "udp", "tcp" or "tls": this side's way to the relay or to the other side
 * @property {string} local this side's kind of candidate: "host", "srflx", "prflx" or "relay"
 * @property {string} remote the other side's
 * @property {number} [rtt] milliseconds there and back
 *
 * @typedef {{type: string, name?: any, [key: string]: any}} Frame a signaling message
 */

/** The longest text of one chat message, in bytes of UTF-8. */
export const MAX_TEXT = 16 * 1024;

/** What had no success is tried again after so long, each time later. */
const RETRY_MS = 2_000;
const LOST = "the connection to the server was lost";
/** Beyond this much unsent data a channel is waited for, until it is down to a quarter. */
const BUFFER_BYTES = 256 * 1024;
/** What strangers can make us keep, besides calls that ring: candidates that wait, calls of a room. */
const MAX_WAITING = 64;
const MAX_MESH = 12;

/**
 * How long a call may stay in each state before it is given up. The server says that the other side is gone 75 s after
 * its last sign of life; until then it may come back.
 */
const PATIENCE_MS = { calling: 60_000, connecting: 30_000, reconnecting: 90_000 };

const ONLINE = "online";
const CALLING = "calling";
const CONNECTING = "connecting";
const CONNECTED = "connected";
const RECONNECTING = "reconnecting";
const CLOSED = "closed";

/** What calls, rooms and their signal are to each other alone. */
const [
  receive,
  replacedBy,
  online,
  refused,
  reconfigure,
  end,
  enter,
  entered,
  failed,
  came,
  left,
  take,
  freed,
  meet,
  parted,
  send,
  probe,
  configuration,
  emit,
] = Array.from({ length: 19 }, () => Symbol());

/** What went wrong, in words for people, with a code for programs. */
export class ThroughwayError extends Error {
  /** @param {string} code @param {string} message @param {ErrorOptions} [options] */
  constructor(code, message, options) {
    super(message, options);
    this.name = "ThroughwayError";
    /** For example "name-taken", "unknown-member", "no-path", "unreachable". */
    this.code = code;
  }
}

/** Someone calls. Answer with `accept` or `reject`; a `missed` event says that the caller gave up. */
export class IncomingCall extends Event {
  /** Who calls. @type {string} */
  name;
  /** Whether they mean to talk or be seen. @type {boolean} */
  media;
  /** @type {(options?: CallOptions) => Call} */
  accept;
  /** @type {() => void} */
  reject;
}

/** Someone wants to send a file. Nothing of it is on its way before `accept`, which gives it once it is whole. */
export class IncomingFile extends Event {
  /** @type {string} */
  name;
  /** @type {number} */
  size;
  /** Its kind, in place of the event's: a field of its own, as an event's is read-only. @type {string} */
  type;
  /** Settled as `accept` is, and before that when the file is canceled. @type {Promise<Blob>} */
  whole;
  /** @type {(options?: FileOptions) => Promise<Blob>} */
  accept;
  /** Refuses it, or ends it halfway. @type {() => void} */
  reject;
}

class Emitter extends EventTarget {
  /** @param {string} type @param {object} [fields] @param {typeof Event} [Kind] */
  [emit](type, fields, Kind = Event) {
    this.dispatchEvent(Object.assign(new Kind(type), fields));
  }
}

/**
 * A member's connection to the server. Survives interruptions: it takes its session up again, or signs in anew; calls go
 * on meanwhile.
 *
 * Events: `call` ({@link IncomingCall}), `missed` (name), `state` (state, reason, error), `error` (error).
 */
export class Signal extends Emitter {
  #options;
  #line;
  /** @type {Map<string, Call>} */ #calls = new Map();
  /** @type {Map<string, Room>} */ #rooms = new Map();
  /** @type {Map<string, {frames: Frame[], accept: (options?: CallOptions) => Call}>} */ #ringing = new Map();
  #closed = new AbortController();

  /** This member's name, as the server keeps it. */
  name;
  /** @type {"connecting"|"online"|"reconnecting"|"closed"} */
  state = CONNECTING;
  /** Ready for `new RTCPeerConnection({ iceServers })`. @type {RTCIceServer[]} */
  iceServers = [];

  /**
   * Connects and signs in.
   * @param {SignalOptions} options
   * @returns {Promise<Signal>}
   * @throws {ThroughwayError} "unreachable", "name-taken", "bad-name", "auth", "full", "rate"
   */
  static async connect(options) {
    options.signal?.throwIfAborted();
    const signal = new Signal(options);
    try {
      await signal.#line.signIn();
    } catch (error) {
      signal.close();
      options.signal?.throwIfAborted();
      throw error;
    }
    return signal;
  }

  /** Use {@link Signal.connect}. @param {SignalOptions} options */
  constructor(options) {
    super();
    this.#options = options;
    this.name = options.name;
    const url = new URL(options.url ?? "/ws", import.meta.url);
    url.protocol = url.protocol.replace("http", "ws");
    this.#line = line(
      url,
      options,
      (state, error) => this.#onState(state, error),
      (frame, fresh) => this.#onWelcome(frame, fresh),
      (frame) => this.#onFrame(frame),
    );
    const { signal } = this.#closed;
    options.signal?.addEventListener("abort", () => this.close(), { signal });
    for (const type of [ONLINE, "visibilitychange"]) {
      globalThis.addEventListener?.(type, () => this.#onAwake(type === ONLINE), { signal });
    }
  }

  /**
   * Calls a member. The call's events tell how it goes; calling someone who is ringing us takes their call.
   * @param {string} name
   * @param {CallOptions} [options]
   * @returns {Call}
   */
  call(name, options) {
    name = this.#reachable(name);
    if (name === this.name) throw new ThroughwayError("self", "that is your own name");
    if (this.#calls.has(name)) throw new ThroughwayError("busy", `you are in a call with ${name} already`);
    return this.#reach(name, options);
  }

  /**
   * Comes into a room, and calls everybody there; who comes later calls us.
   * @param {string} name
   * @param {CallOptions} [options]
   * @returns {Promise<Room>}
   * @throws {ThroughwayError} "offline", "busy", "forbidden", "rate"
   */
  async join(name, options) {
    name = this.#reachable(name);
    if (this.#rooms.has(name)) throw new ThroughwayError("busy", "you are in this room already");
    const room = new Room(this, name, options);
    this.#rooms.set(name, room);
    return room[enter]();
  }

  /** Hangs up every call and signs out. */
  close() {
    if (this.state !== CLOSED) this.#line.close();
  }

  /** @param {Frame} frame @returns {number} its number; none when too much waits to be sent already */
  [send](frame) {
    return this.#line.send(frame);
  }

  [probe]() {
    this.#line.probe();
  }

  /** @returns {RTCConfiguration} */
  [configuration]() {
    const { iceTransportPolicy } = this.#options;
    return { iceServers: this.iceServers, iceTransportPolicy, bundlePolicy: "max-bundle" };
  }

  /** Calls a room's member, unless there is a call with them: there is at most one. @param {Room} room @param {string} name */
  [meet](room, name) {
    if (!this.#calls.has(name) && room.calls.size < MAX_MESH) room[take](this.#reach(name, room.options, room.name));
  }

  /** Whether we were in it until here. @param {Room} room */
  [parted](room) {
    return this.#rooms.get(room.name) === room && this.#rooms.delete(room.name);
  }

  /** @param {Call} call @param {string} code */
  [freed](call, code) {
    if (this.#calls.get(call.name) === call) this.#calls.delete(call.name);
    this.#rooms.forEach((room) => room[freed](call, code));
  }

  /** @param {string} name @returns {string} as the server has it */
  #reachable(name) {
    if (this.state === ONLINE) return name.normalize();
    throw new ThroughwayError("offline", "the server is out of reach");
  }

  /** @param {ThroughwayError} [error] */
  #endAll(error) {
    this.#closed.abort();
    this.#rooms.forEach((room) => room[end](error));
    this.#calls.forEach((call) => call.hangUp());
    this.#missAll();
  }

  /** @param {Signal["state"]} state @param {ThroughwayError} [error] */
  #onState(state, error) {
    this.state = state;
    if (state === CLOSED) this.#endAll(error);
    this[emit]("state", { state, reason: error?.message ?? "", error });
  }

  /** @param {Frame} frame @param {boolean} fresh whether it is another session, and what was under way is lost */
  #onWelcome(frame, fresh) {
    this.name = frame.name;
    this.#applyIce(frame);
    this.#onState(ONLINE);
    this.#calls.forEach((call) => call[online](false, fresh));
    if (!fresh) return;
    this.#missAll();
    this.#rooms.forEach((room) => void room[enter](true));
  }

  /** @param {boolean} moved whether we may be in another network */
  #onAwake(moved) {
    this.#line.probe();
    if (moved) this.#calls.forEach((call) => call[online](true));
  }

  /** @param {Frame} frame */
  #onFrame(frame) {
    const { name } = frame;
    const call = this.#calls.get(name);
    const room = this.#rooms.get(frame.room);
    switch (frame.type) {
      case "ice":
        return this.#applyIce(frame);
      case "error":
        return this.#onError(frame);
      case "join":
        return room?.[entered](frame.members);
      case "presence":
        if (frame.missed) this.#rooms.forEach((known) => void known[enter]());
        else if (frame.joined) room?.[came](frame.joined);
        else room?.[left](frame.left);
        return;
      case "offer":
        if (typeof name !== "string") return;
        return call && !call[replacedBy](frame) ? call[receive](frame) : this.#onCall(frame, call);
      case "answer":
        // To a call that we gave up meanwhile: say so again, or the other side waits for us.
        return call ? call[receive](frame) : void this.#decline(name);
      case "candidate": {
        const frames = this.#ringing.get(name)?.frames;
        if (frames && frames.length < MAX_WAITING) frames.push(frame);
        return call?.[receive](frame);
      }
      case "leave":
        call?.[end](...(call.state === CALLING ? ["declined", `${name} declined`] : ["ended", `${name} hung up`]));
        this.#miss(name);
    }
  }

  /** @param {Frame} frame an offer that begins a call @param {Call} [call] that it takes the place of */
  #onCall(frame, call) {
    const { name, offer } = frame;
    // Of a call that is over here: it must not ring again.
    if (offer?.n > 1) return this.#decline(name);
    call?.[end]("ended", `${name} called anew`);
    if (offer?.room === undefined) return this.#ring(name, frame);
    const room = this.#rooms.get(offer.room);
    if (!room?.members.includes(name) || room.calls.size >= MAX_MESH) return this.#decline(name);
    room[take](this.#begin(name, room.options, offer.room, [frame]));
  }

  /** @param {Frame} frame */
  #onError({ code, message, name, id }) {
    const unknown = code === "unknown-member";
    const error = new ThroughwayError(String(code), unknown ? `no member called ${name} is here` : `the server says: ${message}`);
    for (const room of this.#rooms.values()) if (room[failed](id, error)) return;
    if (unknown || code === "undelivered") this.#calls.get(name)?.[refused](error);
    else this[emit]("error", { error });
  }

  /** @param {string} name @param {Frame} offer */
  #ring(name, offer) {
    const MAX_RINGING = 16;
    /** Longer than a caller waits: whose leave-taking was lost rings no more after that. */
    const RING_MS = 75_000;
    const earlier = this.#ringing.get(name);
    if (earlier) return void (earlier.frames = [offer]);
    if (this.#ringing.size >= MAX_RINGING) return this.#decline(name);
    const answer = () => {
      if (this.#ringing.get(name) !== ringing) throw new ThroughwayError("gone", `${name} has hung up`);
      this.#ringing.delete(name);
    };
    const accept = (/** @type {CallOptions|undefined} */ options) => {
      answer();
      return this.#begin(name, options, undefined, ringing.frames);
    };
    const reject = () => {
      answer();
      this.#decline(name);
    };
    const ringing = { frames: [offer], accept };
    this.#ringing.set(name, ringing);
    setTimeout(() => this.#ringing.get(name) === ringing && this.#miss(name), RING_MS);
    const media = /^m=(audio|video)/m.test(offer.offer?.sdp);
    this[emit]("call", { name, media, accept, reject }, IncomingCall);
  }

  /** @param {string} name */
  #miss(name) {
    if (this.#ringing.delete(name)) this[emit]("missed", { name });
  }

  #missAll() {
    this.#ringing.forEach((_, name) => this.#miss(name));
  }

  /** @param {string} name */
  #decline(name) {
    this[send]({ type: "leave", name });
  }

  /** @param {string} name @param {CallOptions} [options] @param {string} [room] */
  #reach(name, options, room) {
    return this.#ringing.get(name)?.accept(options) ?? this.#begin(name, options, room);
  }

  /**
   * @param {string} name @param {CallOptions} [options] @param {string} [room]
   * @param {Frame[]} [frames] theirs, when they call us
   */
  #begin(name, options, room, frames = []) {
    const call = new Call(this, name, options, room, frames[0]?.offer);
    this.#calls.set(name, call);
    for (const frame of frames) call[receive](frame);
    return call;
  }

  /** @param {Frame} frame with fresh servers, which count for live calls from their next ICE restart on */
  #applyIce({ iceServers }) {
    this.iceServers = iceServers;
    this.#calls.forEach((call) => call[reconfigure]());
  }
}

/**
 * The way to the server, over as many connections as it takes: each frame arrives once and in order, both ways.
 * @param {URL} url
 * @param {SignalOptions} options
 * @param {(state: Signal["state"], error?: ThroughwayError) => void} onState
 * @param {(frame: Frame, fresh: boolean) => void} onWelcome
 * @param {(frame: Frame) => void} onFrame
 */
function line(url, { name, token }, onState, onWelcome, onFrame) {
  /** Our own name can seem taken for as long as the server takes to notice a dead connection (45 s). */
  const NAME_TAKEN_TRIES = 15;
  const SIGN_IN_MS = 10_000;
  /** What waits less than usual: after a while away a server is found again within a third of that while, or this. */
  const BACK_OFF_TRIES = 5;
  const MAX_BACK_OFF_MS = 7_000;
  /** How often the server is asked whether it is there: while it owes us a receipt, and else. */
  const BUSY_MS = 1_000;
  const IDLE_MS = 20_000;
  /** How long it may take to answer that. */
  const PONG_MS = 4_000;
  /** When the server wants to hear what has arrived: after so many frames, so much of them, so long. */
  const ACK_FRAMES = 16;
  const ACK_LENGTH = 64 * 1024;
  const ACK_MS = 5_000;
  /** What may wait for the server's receipt: less than it takes at once (200), as all of it is said again after a break. */
  const KEPT_FRAMES = 150;
  const KEPT_LENGTH = 256 * 1024;

  /** @type {Signal["state"]} */ let state = CONNECTING;
  /** @type {WebSocket|undefined} */ let socket;
  /** By what the session can be taken up again. @type {string|undefined} */ let secret;
  /** The last frame of the server's, and what of them it hasn't been told of. */
  let [seq, heard, heardLength] = [0, 0, 0];
  /** Our last frame, and those that the server may not have. @type {{id: number, text: string}[]} */ const kept = [];
  let [id, keptLength] = [0, 0];
  let tries = 0;
  let wake = () => {};
  let asked = false;
  const acking = timer();
  const beating = timer();

  const put = (/** @type {string} */ text) => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(text);
  };
  const say = (/** @type {object} */ frame) => put(JSON.stringify(frame));

  const changeTo = (/** @type {Signal["state"]} */ next, /** @type {ThroughwayError|undefined} */ error) => {
    state = next;
    acking();
    beating();
    asked = false;
    onState(next, error);
  };

  const close = (/** @type {ThroughwayError|undefined} */ error) => {
    say({ type: "bye" });
    changeTo(CLOSED, error);
    wake();
    socket?.close(1000);
  };

  /** @returns {Promise<void>} settled by the login's answer */
  const signIn = () =>
    new Promise((resolve, reject) => {
      const mine = (socket = new WebSocket(url));
      let signedIn = false;
      let refusal = unreachable(url);
      const deadline = setTimeout(() => {
        // A connection that is dead takes its time to close.
        reject(refusal);
        mine.close();
      }, SIGN_IN_MS);
      const login = () => say({ type: "login", v: 2, name, token, resume: secret, seq: secret && seq });
      mine.onopen = login;
      mine.onmessage = ({ data }) => {
        const frame = parse(data);
        if (state === CLOSED || socket !== mine) return;
        if (signedIn) return hear(frame, data.length);
        if (frame.type !== "login") return;
        if (frame.success === true) {
          signedIn = true;
          clearTimeout(deadline);
          welcome(frame);
          return resolve();
        }
        if (secret && frame.resume === false) {
          secret = undefined;
          return login();
        }
        refusal = loginRefusal(frame.reason, name);
        mine.close();
      };
      mine.onclose = ({ code, reason }) => {
        clearTimeout(deadline);
        if (!signedIn) reject(refusal);
        else if (socket === mine) lost(code, reason);
      };
    });

  const welcome = (/** @type {Frame} */ frame) => {
    const fresh = !secret;
    secret = frame.resume;
    if (fresh) seq = 0;
    heard = heardLength = 0;
    onReceipt(fresh ? id : frame.id);
    for (const { text } of kept) put(text);
    state = ONLINE;
    beat();
    onWelcome(frame, fresh);
  };

  const lost = (/** @type {number} */ code, /** @type {string|undefined} */ reason) => {
    if (state === CLOSED) return;
    const error = new ThroughwayError(`closed-${code}`, reason || LOST);
    if (code >= 4000 && code <= 4009) return close(error);
    changeTo(RECONNECTING, error);
    void reconnect();
  };

  const reconnect = async () => {
    while (state === RECONNECTING) {
      const milliseconds = Math.min(retryAfter(tries - BACK_OFF_TRIES), MAX_BACK_OFF_MS) * (0.75 + Math.random() / 2);
      tries += 1;
      await new Promise((resolve) => {
        wake = /** @type {() => void} */ (resolve);
        setTimeout(resolve, milliseconds);
      });
      if (state !== RECONNECTING) return;
      try {
        await signIn();
      } catch (error) {
        const { code } = error;
        if (code === "bad-name" || code === "auth" || (code === "name-taken" && tries > NAME_TAKEN_TRIES)) close(error);
      }
    }
  };

  const hear = (/** @type {Frame} */ frame, /** @type {number} */ length) => {
    if (frame.seq !== undefined) {
      if (frame.seq <= seq) return;
      seq = frame.seq;
      heard += 1;
      heardLength += length;
      if (heard === 1) acking(ACK_MS, acknowledge);
      if (heard >= ACK_FRAMES || heardLength >= ACK_LENGTH) acknowledge();
    }
    if (frame.type !== "pong") return onFrame(frame);
    asked = false;
    tries = 0;
    onReceipt(frame.id);
    beat();
  };

  const acknowledge = () => {
    heard = heardLength = 0;
    acking();
    say({ type: "ack", seq });
  };

  /** What the server has of ours by this. @param {number} last */
  const onReceipt = (last) => {
    while (kept[0]?.id <= last) keptLength -= /** @type {{text: string}} */ (kept.shift()).text.length;
  };

  /** Sends a frame exactly once, however often the connection breaks meanwhile. @param {Frame} frame */
  const send = (frame) => {
    const text = JSON.stringify({ ...frame, id: id + 1 });
    if (state === CLOSED || kept.length >= KEPT_FRAMES || keptLength + text.length > KEPT_LENGTH) return 0;
    id += 1;
    kept.push({ id, text });
    keptLength += text.length;
    if (state !== ONLINE) return id;
    put(text);
    if (kept.length === 1) beat();
    return id;
  };

  const beat = () => {
    if (!asked) beating(kept.length > 0 ? BUSY_MS : IDLE_MS, probe);
  };

  /** Asks whether the server is there, or tries to get there at once. */
  const probe = () => {
    if (state !== ONLINE) {
      // One that hangs in between is over soon, and the next one does not wait.
      tries = 0;
      return wake();
    }
    if (asked) return;
    asked = true;
    say({ type: "ping" });
    beating(PONG_MS, () => {
      const dead = socket;
      socket = undefined;
      dead?.close();
      lost(1006);
    });
  };

  return { signIn, send, probe, close };
}

/**
 * Everybody in a room, each in a call with everybody else. Made by {@link Signal#join}.
 *
 * Events: `joined` (name), `left` (name), `call` (call), `message` (name, text), `closed` (reason, error).
 */
export class Room extends Emitter {
  #signal;
  /**
   * Who else is here, as many as the server lets in: whether it is on us to call them, as we came later; whether they
   * have yet to come back, after the server restarted; how often a call with them has ended.
   * @type {Map<string, {ours: boolean, absent?: boolean, tries: number, retry: ReturnType<typeof timer>}>}
   */
  #members = new Map();
  /** The number of the question who is here, while it has no answer. */ #asked = 0;
  #inside = false;
  #fresh = true;
  #retry = timer();
  #entry = promise();

  name;
  /** @type {CallOptions} */
  options;
  /** @type {Map<string, Call>} */
  calls = new Map();

  /** @param {Signal} signal @param {string} name @param {CallOptions} [options] */
  constructor(signal, name, options) {
    super();
    this.#signal = signal;
    this.name = name;
    this.options = { ...options };
  }

  /** Who else is here. */
  get members() {
    return [...this.#members.keys()];
  }

  /**
   * Sends text to everybody we are connected with.
   * @param {string} text at most {@link MAX_TEXT} bytes
   * @returns {Promise<number>} to how many it went
   */
  async send(text) {
    checkText(text);
    const sent = await Promise.allSettled([...this.calls.values()].map((call) => call.send(text)));
    return sent.filter((/** @type {any} */ { reason }) => !reason).length;
  }

  /** What we send from now on, to those who are here and those who come. @param {MediaStream} [stream] */
  async setMedia(stream) {
    this.options.media = stream;
    await Promise.all([...this.calls.values()].map((call) => call.setMedia(stream)));
  }

  /** Leaves the room, and hangs up its calls. */
  leave() {
    this[end]();
  }

  /** Asks who is here, and comes in by that. @param {boolean} [fresh] the server may not know all of us yet */
  [enter](fresh = false) {
    this.#fresh ||= fresh;
    this.#asked = this.#signal[send]({ type: "join", room: this.name });
    if (!this.#asked) this.#retry(RETRY_MS, () => this[enter]());
    return this.#entry[0];
  }

  /** @param {string[]} names all that are here */
  [entered](names) {
    for (const [name, member] of [...this.#members]) {
      if (names.includes(name)) continue;
      if (this.#fresh && this.calls.has(name)) member.absent = true;
      else this[left](name);
    }
    for (const name of names) this[came](name, this.#fresh || (this.#members.get(name)?.ours ?? true));
    this.#asked = 0;
    this.#fresh = false;
    this.#inside = true;
    this.#entry[1](this);
  }

  /** @param {number} id @param {ThroughwayError} error @returns {boolean} whether it is about this room */
  [failed](id, error) {
    if (!id || id !== this.#asked) return false;
    if (this.#inside && error.code === "rate") this.#retry(RETRY_MS, () => this[enter]());
    else this[end](error);
    return true;
  }

  /** @param {string} name @param {boolean} [ours] whether they were here before us, so that we call */
  [came](name, ours = false) {
    const known = this.#members.get(name);
    known?.retry();
    this.#members.set(name, { ours, tries: 0, retry: timer() });
    if (!known && this.#inside) this[emit]("joined", { name });
    if (ours) this.#signal[meet](this, name);
  }

  /** @param {string} name */
  [left](name) {
    this.#members.get(name)?.retry();
    if (!this.#members.delete(name)) return;
    this.calls.get(name)?.[end]("ended", `${name} left the room`);
    this[emit]("left", { name });
  }

  /** @param {Call} call which is the one with this member from here on */
  [take](call) {
    const { name } = call;
    this.calls.set(name, call);
    call.addEventListener("message", (/** @type {any} */ { text }) => this[emit]("message", { name, text }));
    this[emit]("call", { call });
  }

  /** A call with somebody is over; a member is called again, unless we hung up here. @param {Call} call @param {string} code */
  [freed](call, code) {
    const { name } = call;
    const ours = this.calls.get(name) === call && this.calls.delete(name);
    const member = this.#members.get(name);
    if (member?.absent) this[left](name);
    else if (member?.ours && !(ours && code === "hung-up")) {
      member.retry(retryAfter(member.tries), () => this.#signal[meet](this, name));
      member.tries += 1;
    }
  }

  /** @param {ThroughwayError} [error] why, unless we want it ourselves */
  [end](error) {
    if (!this.#signal[parted](this)) return;
    if (!error) this.#signal[send]({ type: "part", room: this.name });
    this.#retry();
    this.#members.forEach(({ retry }) => retry());
    this.#members.clear();
    this.calls.forEach((call) => call.hangUp());
    this.calls.clear();
    this.#entry[2](error ?? new ThroughwayError(CLOSED, "the room was left"));
    this[emit](CLOSED, { reason: error?.message ?? "", error });
  }
}

/**
 * A call with one member. Made by {@link Signal#call}, {@link IncomingCall#accept} and {@link Room}.
 *
 * Events: `state` (state), `open` (text can be sent), `message` (text), `file` ({@link IncomingFile}),
 * `track` (track, streams), `path` (path), `closed` (code, reason).
 */
export class Call extends Emitter {
  /** Who is on the other side. @type {string} */
  name;
  /** @type {"calling"|"connecting"|"connected"|"reconnecting"|"closed"|undefined} */
  state;
  /** @type {Path|undefined} */
  path;
  /** The connection underneath, to look at. @type {RTCPeerConnection} */
  connection;
  /** Sends text, of at most {@link MAX_TEXT} bytes, after what was sent before. @type {(text: string) => Promise<void>} */
  send;
  /**
   * Sends a file, after those before it, once the other side has accepted it; settled when the other side has all of it.
   * Fails with "declined", "canceled", "not-connected", "failed".
   * @type {(file: Blob & {name?: string}, options?: FileOptions) => Promise<void>}
   */
  sendFile;
  /**
   * What we send from now on. Tracks are swapped where there are some of their kind, and negotiated otherwise.
   * @type {(stream?: MediaStream) => Promise<void>}
   */
  setMedia;
  /** Ends the call, or gives up calling. @type {() => void} */
  hangUp;

  /**
   * @param {Signal} signal @param {string} name @param {CallOptions} [options] @param {string} [room] which it is for
   * @param {any} [offer] when they call us
   */
  constructor(signal, name, options, room, offer) {
    super();
    this.name = name;
    Object.assign(this, negotiation(this, signal, { ...options }, room, offer));
  }
}

/**
 * A call's connection, and what the two sides tell each other to make it and to keep it.
 * @param {Call} call @param {Signal} signal @param {CallOptions} options @param {string} [room] @param {any} [theirs] their offer
 */
function negotiation(call, signal, options, room, theirs) {
  const DISCONNECTED_MS = 4_000;
  const ANSWER_MS = 8_000;
  const PATH_MS = 2_000;
  const SETTLE_MS = 1_000;
  /** A timer that is so late was asleep with its machine. */
  const LATE_MS = 3_000;

  const { name } = call;
  /** @type {RTCPeerConnection} */ let pc;
  /** Tells this call's frames from those of an earlier one with the same member. @type {string|undefined} */
  let id = theirs ? theirs.call : Math.random().toString(36).slice(2);
  /** Which offer of ours is the last, as the answers repeat: only the first one of all begins the call. */
  let offers = theirs ? 1 : 0;
  /** Whether the other side has not got what we said. */ let unheard = false;
  /** Whether there is a second round once connected, whatever has changed; until then we offer nothing. */ let settling = false;
  /** Whether we are the active side of DTLS, as an answer of ours has said. */ let active = false;
  /** @type {RTCDataChannel|undefined} */ let channel;
  /** @type {ReturnType<typeof files>|undefined} */ let filing;
  /** @type {RTCIceCandidateInit[]} */ const candidates = [];
  /** What the relay says instead of a candidate. @type {RTCPeerConnectionIceErrorEvent|undefined} */ let problem;
  /** One thing at a time: what comes in and what we start ourselves. */ let work = Promise.resolve();
  let sending = Promise.resolve();
  let tries = 0;
  const patience = timer();
  const retry = timer();
  const watch = timer();

  const setState = (/** @type {NonNullable<Call["state"]>} */ state) => {
    if (call.state === state) return;
    call.state = state;
    wait(PATIENCE_MS[state]);
    call[emit]("state", { state });
  };

  const wait = (/** @type {any} */ milliseconds) => {
    const due = Date.now() + milliseconds;
    const giveUpUnlessAsleep = () => {
      // Nobody was awake to see whether it gets better.
      if (Date.now() > due + LATE_MS) wait(PATIENCE_MS.connecting);
      else if (call.state === CALLING) giveUp("no-answer", `${name} did not answer`);
      else giveUp("no-path", whyNoPath());
    };
    patience(milliseconds, milliseconds && giveUpUnlessAsleep);
  };

  const finish = (/** @type {string} */ code, /** @type {string} */ reason) => {
    if (call.state === CLOSED) return;
    retry();
    watch();
    pc.close();
    filing?.close();
    setState(CLOSED);
    signal[freed](call, code);
    call[emit](CLOSED, { code, reason });
  };

  /** Ends it on both sides. @param {string} code @param {string} reason */
  const giveUp = (code, reason) => {
    if (call.state !== CLOSED) signal[send]({ type: "leave", name });
    finish(code, reason);
  };

  const connect = () => {
    const made = (pc = call.connection = new RTCPeerConnection(signal[configuration]()));
    pc.onnegotiationneeded = () => void go(() => propose(made));
    pc.onicecandidate = ({ candidate }) => {
      if (pc !== made) return;
      if (!candidate) checkGathered();
      // The last one is passed on as the empty candidate that ends them (RFC 8838, section 13).
      tell("candidate", candidate?.toJSON() ?? { candidate: "", sdpMLineIndex: 0 });
    };
    pc.onicecandidateerror = (error) => {
      if (!error.url.startsWith("turn")) return;
      // 701 only says that some interface could not reach it; an answer from the relay says more.
      const answered = error.errorCode !== 701;
      if (answered || !problem) problem = error;
      // A refusal: gathering itself ends only once every other interface has timed out.
      if (answered && !call.path) retry(RETRY_MS, checkGathered);
    };
    pc.onconnectionstatechange = onConnectionState;
    pc.ontrack = ({ track, streams }) => call[emit]("track", { track, streams });
  };

  const openChannel = (/** @type {string} */ label, /** @type {number} */ number) => {
    const opened = pc.createDataChannel(label, { negotiated: true, id: number });
    opened.bufferedAmountLowThreshold = BUFFER_BYTES / 4;
    return opened;
  };

  /** Adds what we send; on the called side after their offer, which then needs no second one. */
  const attach = async () => {
    if (options.chat !== false) {
      filing = files(openChannel("file", 1), name, (file) => call[emit]("file", file, IncomingFile));
      const text = openChannel("chat", 0);
      text.onopen = () => call[emit]("open");
      text.onmessage = ({ data }) => {
        if (typeof data === "string") call[emit]("message", { text: data });
      };
      text.onclose = () => text === channel && finish("ended", `${name} hung up`);
      channel = text;
    }
    await applyMedia();
  };

  const applyMedia = async () => {
    const media = /** @type {MediaStream} */ (options.media);
    const tracks = new Set(media?.getTracks());
    const others = pc.getTransceivers().filter(({ sender }) => !tracks.delete(/** @type {any} */ (sender.track)));
    for (const transceiver of others) {
      const { sender, receiver, direction } = transceiver;
      const track = [...tracks].find(({ kind }) => kind === receiver.track.kind);
      if (direction === "stopped" || !track) {
        pc.removeTrack(sender);
        continue;
      }
      tracks.delete(track);
      await sender.replaceTrack(track);
      if (direction.startsWith("send")) continue;
      sender.setStreams?.(media);
      transceiver.direction = "sendrecv";
    }
    for (const track of tracks) pc.addTrack(track, media);
  };

  const go = (/** @type {() => Promise<void>} */ task) =>
    (work = work.then(async () => {
      if (call.state === CLOSED) return;
      try {
        await task();
      } catch (error) {
        giveUp("failed", `the browsers do not agree: ${error.message}`);
      }
    }));

  /** Else our offer waits for its answer: theirs are answered at once. */
  const isStable = () => pc.signalingState === "stable";

  const propose = async (/** @type {RTCPeerConnection} */ asking) => {
    // Not stable: the event comes again once it is. Not ours any more: `onOffer` put another in its place.
    if (asking !== pc || settling || !isStable()) return;
    unheard = false;
    await pc.setLocalDescription();
    describe((offers += 1));
  };

  const handle = async (/** @type {Frame} */ { type, polite = signal.name < name, [type]: body }) => {
    if (typeof body !== "object" || !body) return;
    if (type === "offer") return onOffer(body, polite);
    if ((body.call ?? id) !== id) return;
    if (type === "candidate") return onCandidate(body);
    // Of an offer that was withdrawn since: another answer follows.
    if (!isStable() && (body.n ?? offers) === offers) {
      settling = body.n === 1 && pc.getTransceivers().length > 0;
      await onDescription(body);
    }
  };

  /** Both offered at once: the side that gives way has its offer rolled back. @param {any} offer @param {boolean} polite */
  const onOffer = async (offer, polite) => {
    // A later offer is of a call that this one comes after. A client without call ids gives way itself.
    if (call.state === CALLING && offer.n > 1) return;
    if (!isStable() && !(polite && offer.call) && !unheard) return;
    if (call.state === CALLING) {
      // Their call becomes this one, with a connection of its own: Chromium can gather nothing more for good once a first
      // offer was rolled back while it gathered.
      channel = undefined;
      pc.close();
      connect();
      id = offer.call;
      theirs = offer;
    }
    const first = !pc.remoteDescription;
    await onDescription(offer);
    if (first) await attach();
    settling = first && offer.n && pc.getTransceivers().length > 0;
    await pc.setLocalDescription();
    describe(offer.n);
  };

  const onDescription = async (/** @type {RTCSessionDescriptionInit} */ { type, sdp }) => {
    await pc.setRemoteDescription({ type, sdp });
    if (call.state === CALLING) setState(CONNECTING);
    unheard = false;
    tries = 0;
    for (const candidate of candidates.splice(0)) await onCandidate(candidate);
  };

  const onCandidate = async (/** @type {RTCIceCandidateInit} */ candidate) => {
    // One that this browser can't use (another generation's, an unknown transport) costs nothing but itself.
    if (pc.remoteDescription) await pc.addIceCandidate(candidate).catch(() => {});
    else if (candidates.length < MAX_WAITING) candidates.push(candidate);
  };

  /** @param {number} [n] which of the offers it is, or answers */
  const describe = (n) => {
    const { type, sdp } = /** @type {RTCSessionDescription} */ (pc.localDescription);
    active ||= sdp.includes("setup:active");
    // Each side keeps its role (RFC 8842): Firefox, left the choice, may change roles in an ICE restart, which Chromium refuses.
    tell(type, { type, sdp: active ? sdp.replaceAll("actpass", "active") : sdp, n });
  };

  const tell = (/** @type {string} */ type, /** @type {object} */ body) => {
    if (!signal[send]({ type, name, [type]: { ...body, call: id, room } })) missed();
  };

  /** Signaling works again, or the network changed. @param {boolean} [changed] whether there may be another way @param {boolean} [fresh] */
  const look = (changed, fresh) => {
    // What was under way is lost, with the relay of a server that restarted.
    if (fresh && call.state === CALLING) return finish("offline", LOST);
    void go(async () => {
      const lost = fresh && (call.path?.relayed || !isStable());
      if (!pc.remoteDescription || !(changed || lost || pc.connectionState !== CONNECTED)) return;
      if (!isStable()) await pc.setLocalDescription({ type: "rollback" });
      reconfigureIt();
      problem = undefined;
      settling = false;
      pc.restartIce();
      again(ANSWER_MS);
    });
  };

  /** Looks again later, each time later, until it is answered. */
  const again = (least = 0) => {
    retry(least + retryAfter(tries), () => look(unheard || !isStable()));
    tries += 1;
  };

  /** What we said does not get there: an offer and all of its candidates are one attempt. */
  const missed = () => {
    if (!unheard) again();
    // If they come back first, their offer finds the way free.
    unheard = true;
  };

  const onConnectionState = () => {
    const { connectionState } = pc;
    if (connectionState === CONNECTED) {
      retry();
      setState(connectionState);
      void lookAtPath();
      // A side that was called and never went through a second round loses the picture for good in Chromium when a later
      // offer of its own is rolled back, as crossing ones are. That round is the caller's, if it knows of this.
      if (theirs) retry(SETTLE_MS, settle);
      else settle();
    } else if (connectionState === "failed" || connectionState === "disconnected") {
      signal[probe]();
      // One that never stood, or has not come back yet, fails for lack of candidates that are on their way.
      retry(call.state === CONNECTED && connectionState === "failed" ? 0 : DISCONNECTED_MS, look);
      if (call.state === CONNECTED) setState(RECONNECTING);
    }
  };

  const settle = () => {
    if (settling) void go(() => propose(pc));
    settling = false;
  };

  /** With the relay alone there is nothing to wait for once it has given nothing but errors. */
  const checkGathered = () => {
    if (pc.getConfiguration().iceTransportPolicy === "relay" && !call.path && noRelay()) giveUp("no-path", whyNoPath());
  };

  const noRelay = () => (pc.localDescription?.sdp.includes(" typ relay") ? undefined : problem);

  const whyNoPath = () => {
    const error = noRelay();
    const says = error?.errorCode === 701 ? "can't be reached" : `says ${error?.errorCode}`;
    return `no path, direct or by the relay${error ? `: ${error.url} ${says}` : ""}`;
  };

  const lookAtPath = async () => {
    const path = readPath(await pc.getStats());
    if (call.state !== CONNECTED) return;
    watch(PATH_MS, lookAtPath);
    if (!path || JSON.stringify(path) === JSON.stringify(call.path)) return;
    call.path = path;
    call[emit]("path", { path });
  };

  const reconfigureIt = () => pc.setConfiguration(signal[configuration]());

  connect();
  setState(theirs ? CONNECTING : CALLING);
  if (!theirs) void attach();

  return {
    send: async (/** @type {string} */ text) => {
      checkText(text);
      const sent = sending.then(async () => {
        await drained(channel);
        if (channel?.readyState !== "open") throw notConnected(name);
        channel.send(text);
      });
      sending = sent.catch(() => {});
      return sent;
    },
    sendFile: async (/** @type {Blob} */ file, /** @type {FileOptions} */ fileOptions = {}) => {
      if (!filing) throw notConnected(name);
      return filing.send(file, fileOptions);
    },
    setMedia: async (/** @type {MediaStream|undefined} */ stream) => {
      options.media = stream;
      let failure;
      await go(() => applyMedia().catch((error) => (failure = error)));
      if (failure) throw failure;
    },
    hangUp: () => giveUp("hung-up", "you hung up"),
    [receive]: (/** @type {Frame} */ frame) => void go(() => handle(frame)),
    /** Whether an offer begins another call: the other side has lost this one. @param {Frame} frame */
    [replacedBy]: ({ offer }) => call.state !== CALLING && (offer?.call ?? id) !== id,
    [online]: look,
    /** The other side doesn't get what we say: never was here, or has not come back yet. @param {ThroughwayError} error */
    [refused]: (error) => {
      if (call.state === CALLING) finish(error.code, error.message);
      else missed();
    },
    [reconfigure]: reconfigureIt,
    [end]: finish,
  };
}

/**
 * The files of one call: one at a time each way, announced by JSON texts, their bytes in binary messages.
 * @param {RTCDataChannel} channel @param {string} name @param {(file: object) => void} onFile
 */
function files(channel, name, onFile) {
  const CHUNK_BYTES = 16 * 1024;
  /** So many chunks of a file that comes in are handed to the browser, which can put them on disk. */
  const FOLD_CHUNKS = 512;

  let count = 0;
  let queue = Promise.resolve();
  /** @type {{n: number, accept: () => void, done: () => void, fail: (error: ThroughwayError) => void}|undefined} */ let going;
  /** @type {any} what comes in, or is offered */ let coming;

  const say = (/** @type {object} */ message) => {
    if (channel.readyState === "open") channel.send(JSON.stringify(message));
  };
  const canceled = () => new ThroughwayError("canceled", "the file was canceled");

  const transfer = async (/** @type {Blob & {name?: string}} */ file, /** @type {FileOptions} */ { signal, progress }) => {
    if (signal?.aborted) throw canceled();
    if (channel.readyState !== "open") throw notConnected(name);
    const n = (count += 1);
    const [accepted, accept] = promise();
    const [all, done] = promise();
    const [failure, , fail] = promise();
    const unless = (/** @type {Promise<any>} */ step) => Promise.race([failure, step]);
    const abort = () => fail(canceled());
    going = { n, accept, done, fail };
    signal?.addEventListener("abort", abort);
    try {
      say({ offer: n, name: file.name ?? "file", size: file.size, type: file.type });
      await unless(accepted);
      for (let sent = 0; sent < file.size; ) {
        const chunk = await unless(file.slice(sent, sent + CHUNK_BYTES).arrayBuffer());
        await unless(drained(channel));
        channel.send(chunk);
        sent += chunk.byteLength;
        progress?.(sent);
      }
      await unless(all);
    } catch (error) {
      say({ cancel: n });
      throw error instanceof ThroughwayError ? error : new ThroughwayError("failed", `the file could not be read: ${error.message}`);
    } finally {
      going = undefined;
      signal?.removeEventListener("abort", abort);
    }
  };

  const endComing = (/** @type {ThroughwayError} */ error) => {
    const file = coming;
    coming = undefined;
    file?.fail(error);
  };

  const onOffer = (/** @type {any} */ { offer: n, name: title, size, type }) => {
    if (coming || typeof title !== "string" || !Number.isSafeInteger(size) || size < 0) return say({ reject: n });
    /** @type {any} */
    const file = { n, size, type: String(type), got: 0, parts: [] };
    const [whole, resolve, fail] = promise();
    file.fail = fail;
    coming = file;
    const accept = async (/** @type {FileOptions} */ { progress } = {}) => {
      if (coming !== file || file.resolve) throw canceled();
      Object.assign(file, { progress, resolve });
      say({ accept: n });
      onChunk(new ArrayBuffer(0));
      return whole;
    };
    const reject = () => {
      if (coming !== file) return;
      say({ reject: n });
      endComing(canceled());
    };
    // As a name without a path or anything that can't be seen.
    onFile({ name: title.replace(/[\p{C}/\\]/gu, "_").slice(-255), size, type: file.type, whole, accept, reject });
  };

  const onChunk = (/** @type {ArrayBuffer} */ chunk) => {
    const file = coming;
    if (!file?.resolve) return;
    file.got += chunk.byteLength;
    if (file.got > file.size) {
      say({ reject: file.n });
      return endComing(new ThroughwayError("failed", "the file is larger than announced"));
    }
    file.parts.push(chunk);
    if (file.parts.length > FOLD_CHUNKS) file.parts = [new Blob(file.parts)];
    if (file.got === file.size) {
      coming = undefined;
      say({ done: file.n });
      file.resolve(new Blob(file.parts, file));
    }
    // The last thing, as it is not ours and may fail.
    file.progress?.(file.got);
  };

  const close = () => {
    going?.fail(notConnected(name));
    endComing(notConnected(name));
  };

  channel.binaryType = "arraybuffer";
  channel.onclose = close;
  channel.onmessage = ({ data }) => {
    if (typeof data !== "string") return onChunk(data);
    const { offer, cancel, accept, done, reject } = parse(data);
    if (offer) onOffer(parse(data));
    else if (cancel) cancel === coming?.n && endComing(canceled());
    else if (!going) return;
    else if (accept === going.n) going.accept();
    else if (done === going.n) going.done();
    else if (reject === going.n) going.fail(new ThroughwayError("declined", `${name} declined the file`));
  };

  return {
    close,
    /** @param {Blob} file @param {FileOptions} options @returns {Promise<void>} */
    send: (file, options) => {
      const sent = queue.then(() => transfer(file, options));
      queue = sent.catch(() => {});
      return sent;
    },
  };
}

/**
 * Reads the way packets travel from `RTCPeerConnection.getStats()`.
 * @param {RTCStatsReport} report
 * @returns {Path|undefined} nothing before a pair is selected
 */
export function readPath(report) {
  /** @type {any[]} */
  const all = [...report.values()];
  const selected = all.find(({ selectedCandidatePairId }) => selectedCandidatePairId);
  // While Firefox changes over, that one is missing: it marks the pair itself, too, and for long has done nothing else.
  const pair = report.get(selected?.selectedCandidatePairId) ?? all.find(({ selected }) => selected);
  const { candidateType: local, relayProtocol, protocol } = report.get(pair?.localCandidateId) ?? {};
  const { candidateType: remote } = report.get(pair?.remoteCandidateId) ?? {};
  if (!local || !remote) return undefined;
  const seconds = pair.currentRoundTripTime;
  return {
    relayed: [local, remote].includes("relay"),
    protocol: relayProtocol ?? protocol,
    local,
    remote,
    rtt: seconds && Math.round(seconds * 1000),
  };
}

/** @returns {(milliseconds?: number, task?: () => void) => void} one timer at a time; without a task it stops */
function timer() {
  /** @type {ReturnType<typeof setTimeout>|undefined} */ let running;
  return (milliseconds, task) => {
    clearTimeout(running);
    if (task) running = setTimeout(task, milliseconds);
  };
}

/** @returns {[Promise<any>, (value?: any) => void, (error: ThroughwayError) => void]} one that others settle, or nobody */
function promise() {
  /** @type {any} */ let resolve;
  /** @type {any} */ let reject;
  const made = new Promise((...both) => ([resolve, reject] = both));
  made.catch(() => {});
  return [made, resolve, reject];
}

/** @param {string} text @returns {any} an object, empty if it is none */
function parse(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

/** @param {number} tries @returns {number} milliseconds */
function retryAfter(tries) {
  const MAX_RETRY_MS = 30_000;
  return Math.min(RETRY_MS * 1.5 ** tries, MAX_RETRY_MS);
}

/** Waits while the channel is behind. @param {RTCDataChannel} [channel] */
async function drained(channel) {
  if (channel?.readyState !== "open" || channel.bufferedAmount <= BUFFER_BYTES) return;
  await new Promise((resolve) => {
    for (const type of ["bufferedamountlow", "close"]) channel.addEventListener(type, resolve, { once: true });
  });
}

/** @param {string} text */
function checkText(text) {
  if (new Blob([text]).size <= MAX_TEXT) return;
  throw new ThroughwayError("too-long", "a message has 16 KiB at most");
}

/** @param {string} name */
function notConnected(name) {
  return new ThroughwayError("not-connected", `there is no connection to ${name}`);
}

/** @param {string} reason @param {string} name */
function loginRefusal(reason, name) {
  const texts = {
    "name-taken": `the name ${name} is taken`,
    "bad-name": "a name needs 1 to 64 bytes and no invisible characters",
    full: "the server is full",
    rate: "too many sign-ins: wait a few seconds",
  };
  return new ThroughwayError(String(reason), texts[reason] ?? "the server did not accept this sign-in");
}

/** @param {URL} url */
function unreachable({ host }) {
  const { host: here, origin } = globalThis.location ?? {};
  const foreign = here && here !== host ? `, or does not allow pages of ${origin}` : "";
  return new ThroughwayError("unreachable", `the server at ${host} could not be reached${foreign}`);
}
