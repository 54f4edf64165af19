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
 *
 * @typedef {object} Link what a call or a room needs of its signal
 * @property {(frame: Frame) => boolean} send false when too much waits to be sent already
 * @property {() => RTCConfiguration} configuration
 * @property {(name: string) => boolean} yields whether we do when both offer, as far as the names tell
 * @property {(call: Call, code: string) => void} ended
 * @property {() => void} probe asks whether the server is still there
 */

/** The longest text of one chat message, in bytes of UTF-8. */
export const MAX_TEXT = 16 * 1024;

/** Seconds before each attempt to reconnect, each jittered; the last one repeats. */
const BACK_OFF = [0.3, 1.2, 2.7, 4.8, 7];
/** Our own name can seem taken for as long as the server takes to notice a dead connection (45 s). */
const NAME_TAKEN_TRIES = 11;
const SIGN_IN_MS = 10_000;
/** How often the server is asked whether it is there: while it owes us a receipt, and else. */
const BUSY_MS = 1_000;
const IDLE_MS = 20_000;
/** How long it may take to answer that. */
const PONG_MS = 5_000;
/** When the server wants to hear what has arrived: after so many frames, so much of them, so long. */
const ACK_FRAMES = 16;
const ACK_LENGTH = 64 * 1024;
const ACK_MS = 5_000;
/** What waits for the server's receipt; it bounds what it keeps for us alike. */
const KEPT_FRAMES = 256;
const KEPT_LENGTH = 256 * 1024;
/** Well within the server's rate: one frame in so many milliseconds, and so many at once. */
const FRAME_MS = 25;
const BURST = 150;
const DISCONNECTED_MS = 4_000;
const RETRY_MS = 2_000;
const ANSWER_MS = 8_000;
const MAX_RETRY_MS = 30_000;
const PATH_MS = 2_000;
/**
 * How long a call may stay in each state before it is given up. The server says that the other side is gone 75 s after
 * its last sign of life; until then it may come back.
 */
const PATIENCE_MS = { calling: 60_000, connecting: 30_000, reconnecting: 90_000 };
/** A timer that is so late was asleep with its machine. */
const LATE_MS = 3_000;
/** Beyond this much unsent data a channel is waited for, until it is down to a quarter. */
const BUFFER_BYTES = 256 * 1024;
const CHUNK_BYTES = 16 * 1024;
/** So many chunks of a file that comes in are handed to the browser, which can put them on disk. */
const FOLD_CHUNKS = 512;
/** What strangers can make us keep: calls that ring at once, candidates that wait, calls of one room. */
const MAX_RINGING = 16;
const MAX_WAITING = 256;
const MAX_MESH = 32;

const receive = Symbol();
const online = Symbol();
const refused = Symbol();
const end = Symbol();
const replacedBy = Symbol();
const reconfigure = Symbol();
const enter = Symbol();
const entered = Symbol();
const failed = Symbol();
const came = Symbol();
const left = Symbol();
const take = Symbol();
const freed = Symbol();
const holds = Symbol();

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
  /** @param {string} name @param {boolean} media @param {(options?: CallOptions) => Call} accept @param {() => void} reject */
  constructor(name, media, accept, reject) {
    super("call");
    /** Who calls. */
    this.name = name;
    /** Whether they mean to talk or be seen. */
    this.media = media;
    this.accept = accept;
    this.reject = reject;
  }
}

/** Someone wants to send a file. Nothing of it is on its way before `accept`, which gives it once it is whole. */
export class IncomingFile extends Event {
  /** Its kind, in place of the event's: a field of its own, as an event's is read-only. @type {string} */
  type;

  /**
   * @param {{name: string, size: number, type: string}} file as the other side describes it
   * @param {(options?: FileOptions) => Promise<Blob>} accept @param {() => void} reject also ends it halfway
   */
  constructor({ name, size, type }, accept, reject) {
    super("file");
    this.name = name;
    this.size = size;
    this.type = type;
    this.accept = accept;
    this.reject = reject;
  }
}

/**
 * A member's connection to the server. Survives interruptions: it takes its session up again, or signs in anew; calls go
 * on meanwhile.
 *
 * Events: `call` ({@link IncomingCall}), `missed` (name), `state` (state, reason, error), `error` (error).
 */
export class Signal extends EventTarget {
  #options;
  #url;
  /** @type {WebSocket|undefined} */ #socket;
  /** @type {Map<string, Call>} */ #calls = new Map();
  /** @type {Map<string, Room>} */ #rooms = new Map();
  /** Calls that wait to be accepted: by a person, or by a room that is about to learn who is there. */
  /** @type {Map<string, {frames: Frame[], room?: string, accept: (options?: CallOptions) => Call}>} */ #ringing = new Map();
  /** By what the session can be taken up again. @type {string|undefined} */ #secret;
  /** The last frame of the server's, and what of them it hasn't been told of. */
  #seq = 0;
  #heardFrames = 0;
  #heardLength = 0;
  /** Our last frame, and those that the server may not have, of which so many went out on this connection. */
  #id = 0;
  /** @type {{id: number, text: string}[]} */ #kept = [];
  #keptLength = 0;
  #sent = 0;
  /** Whom our last frames were for, by number; what is said of them later has that alone. Capped by KEPT_FRAMES. */
  /** @type {Map<number, string>} */ #targets = new Map();
  /** Until when our rate is used up. */ #spent = 0;
  #tries = 0;
  #onlineSince = 0;
  /** @type {Record<string, ReturnType<typeof setTimeout>|undefined>} */ #timers = {};
  #wake = () => {};
  #abort = () => this.close();
  #onAwake = () => {
    if (globalThis.document?.visibilityState !== "hidden") this.#probe();
  };
  #onNetwork = () => {
    this.#probe();
    if (this.state === "online") for (const call of this.#calls.values()) call[online](true);
  };
  #link = {
    send: (/** @type {Frame} */ frame) => this.#send(frame),
    configuration: () => this.#configuration(),
    yields: (/** @type {string} */ name) => this.name < name,
    probe: () => this.#probe(),
    ended: (/** @type {Call} */ call, /** @type {string} */ code) => this.#onEnded(call, code),
    meet: (/** @type {Room} */ room, /** @type {string} */ name, /** @type {CallOptions} */ options) =>
      this.#meet(room, name, options),
    shared: (/** @type {Call} */ call) => this.#isShared(call),
    parted: (/** @type {Room} */ room) => void this.#rooms.delete(room.name),
  };

  /** This member's name, as the server keeps it. */
  name;
  /** @type {"connecting"|"online"|"reconnecting"|"closed"} */
  state = "connecting";
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
      await signal.#signIn();
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
    this.#url = new URL(options.url ?? "/ws", import.meta.url);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    this.name = options.name;
    options.signal?.addEventListener("abort", this.#abort);
    globalThis.addEventListener?.("online", this.#onNetwork);
    globalThis.document?.addEventListener("visibilitychange", this.#onAwake);
  }

  /**
   * Calls a member. The call's events tell how it goes; calling someone who is ringing us takes their call.
   * @param {string} name
   * @param {CallOptions} [options]
   * @returns {Call}
   */
  call(name, options = {}) {
    name = name.normalize();
    this.#mustBeOnline();
    if (name === this.name) throw new ThroughwayError("self", "that is your own name");
    if (this.#calls.has(name)) throw new ThroughwayError("busy", `you are in a call with ${name} already`);
    return this.#ringing.get(name)?.accept(options) ?? this.#begin(name, options);
  }

  /**
   * Comes into a room, and calls everybody there; who comes later calls us.
   * @param {string} name
   * @param {CallOptions} [options]
   * @returns {Promise<Room>}
   * @throws {ThroughwayError} "offline", "busy", "forbidden", "rate"
   */
  async join(name, options = {}) {
    name = name.normalize();
    this.#mustBeOnline();
    if (this.#rooms.has(name)) throw new ThroughwayError("busy", "you are in this room already");
    const room = new Room(this.#link, name, options);
    this.#rooms.set(name, room);
    return room[enter]();
  }

  /** Hangs up every call and signs out. */
  close() {
    this.#finish();
  }

  #mustBeOnline() {
    if (this.state !== "online") throw new ThroughwayError("offline", "there is no connection to the server right now");
  }

  /** @param {ThroughwayError} [error] why, unless we want it ourselves */
  #finish(error) {
    if (this.state === "closed") return;
    for (const room of this.#rooms.values()) room[end](error);
    for (const call of this.#calls.values()) call.hangUp();
    for (const name of [...this.#ringing.keys()]) this.#miss(name);
    if (this.state === "online") this.#say({ type: "bye" });
    this.#setState("closed", error);
    this.#wake();
    this.#stopTimers();
    this.#options.signal?.removeEventListener("abort", this.#abort);
    globalThis.removeEventListener?.("online", this.#onNetwork);
    globalThis.document?.removeEventListener("visibilitychange", this.#onAwake);
    this.#socket?.close(1000);
  }

  /** @returns {Promise<void>} settled by the login's answer */
  #signIn() {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(this.#url);
      this.#socket = socket;
      let signedIn = false;
      let refusal = new ThroughwayError("unreachable", unreachable(this.#url));
      const deadline = setTimeout(() => socket.close(), SIGN_IN_MS);
      const login = () => {
        const { name, token } = this.#options;
        this.#say({ type: "login", v: 2, name, token, resume: this.#secret, seq: this.#secret && this.#seq });
      };
      socket.onopen = () => {
        refusal = new ThroughwayError("unreachable", "the server closed the connection before it answered the sign-in");
        login();
      };
      socket.onmessage = ({ data }) => {
        const frame = parse(data);
        if (typeof frame?.type !== "string" || this.state === "closed" || this.#socket !== socket) return;
        if (signedIn) return this.#hear(frame, data.length);
        if (frame.type === "error") refusal = serverError(frame);
        if (frame.type !== "login") return;
        if (frame.success === true) {
          signedIn = true;
          clearTimeout(deadline);
          this.#welcome(frame);
          return resolve();
        }
        if (this.#secret && frame.resume === false) {
          this.#secret = undefined;
          return login();
        }
        refusal = new ThroughwayError(String(frame.reason), loginRefusal(frame.reason, this.#options.name));
        socket.close(1000);
      };
      socket.onclose = ({ code }) => {
        clearTimeout(deadline);
        if (!signedIn) return reject(code === 1012 || code === 1013 ? serverClosed(code) : refusal);
        if (this.#socket === socket) this.#onLost(code);
      };
    });
  }

  /** @param {Frame} frame the reply to a login that went well */
  #welcome(frame) {
    const fresh = this.#secret === undefined;
    this.#secret = frame.resume;
    if (typeof frame.name === "string") this.name = frame.name;
    if (fresh) this.#seq = 0;
    this.#heardFrames = this.#heardLength = this.#sent = 0;
    this.#onReceipt(fresh ? this.#id : frame.id);
    this.#onlineSince = performance.now();
    this.#applyIce(frame);
    this.#setState("online");
    this.#flush();
    this.#beat();
    for (const call of this.#calls.values()) call[online](false, fresh);
    if (!fresh) return;
    for (const name of [...this.#ringing.keys()]) this.#miss(name);
    for (const room of this.#rooms.values()) void room[enter](true);
  }

  /** @param {number} code */
  #onLost(code) {
    if (this.state === "closed") return;
    this.#stopTimers();
    const why = serverClosed(code);
    if (code >= 4000 && code <= 4009) return this.#finish(why);
    if (performance.now() - this.#onlineSince > SIGN_IN_MS) this.#tries = 0;
    this.#setState("reconnecting", why);
    void this.#reconnect();
  }

  async #reconnect() {
    while (this.state === "reconnecting") {
      const seconds = BACK_OFF[Math.min(this.#tries, BACK_OFF.length - 1)] * (0.75 + Math.random() / 2);
      this.#tries += 1;
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, seconds * 1000);
        this.#wake = () => (clearTimeout(timer), resolve(undefined));
      });
      if (this.state !== "reconnecting") return;
      try {
        return await this.#signIn();
      } catch (error) {
        const final = ["bad-name", "auth"].includes(error.code) || (error.code === "name-taken" && this.#tries > NAME_TAKEN_TRIES);
        if (final) return this.#finish(error);
      }
    }
  }

  /** Every frame with a number comes once, in order, and is acknowledged. @param {Frame} frame @param {number} length */
  #hear(frame, length) {
    if (frame.seq !== undefined) {
      if (frame.seq <= this.#seq) return;
      this.#seq = frame.seq;
      this.#heardLength += length;
      this.#heardFrames += 1;
      if (this.#heardFrames === 1) this.#after("ack", ACK_MS, () => this.#acknowledge());
      if (this.#heardFrames >= ACK_FRAMES || this.#heardLength >= ACK_LENGTH) this.#acknowledge();
    }
    this.#onFrame(frame);
  }

  #acknowledge() {
    this.#heardFrames = this.#heardLength = 0;
    clearTimeout(this.#timers.ack);
    this.#say({ type: "ack", seq: this.#seq });
  }

  /** What the server has of ours by now. @param {unknown} id */
  #onReceipt(id) {
    while (this.#kept[0]?.id <= Number(id)) {
      this.#keptLength -= /** @type {{text: string}} */ (this.#kept.shift()).text.length;
      this.#sent = Math.max(0, this.#sent - 1);
    }
  }

  /** @param {Frame} frame */
  #onFrame(frame) {
    const { name } = frame;
    const call = this.#calls.get(name);
    const room = this.#rooms.get(frame.room);
    switch (frame.type) {
      case "pong":
        clearTimeout(this.#timers.pong);
        this.#timers.pong = undefined;
        this.#onReceipt(frame.id);
        return this.#beat();
      case "ice":
        return this.#applyIce(frame);
      case "error":
        return this.#onError(frame);
      case "join":
        if (Array.isArray(frame.members)) room?.[entered](frame.members);
        return this.#answerHeld(frame.room);
      case "presence":
        if (frame.missed) for (const known of this.#rooms.values()) void known[enter]();
        else if (frame.joined) room?.[came](frame.joined);
        else room?.[left](frame.left);
        return;
      case "offer":
        return this.#onOffer(frame, call);
      case "answer":
        // To a call that we gave up meanwhile: say so again, or the other side waits for us.
        if (!call) this.#send({ type: "leave", name });
        return call?.[receive](frame);
      case "candidate": {
        const frames = this.#ringing.get(name)?.frames;
        if (frames && frames.length < MAX_WAITING) frames.push(frame);
        return call?.[receive](frame);
      }
      case "leave":
        call?.[end](...(call.state === "calling" ? ["declined", `${name} declined`] : ["ended", `${name} hung up`]));
        this.#miss(name);
    }
  }

  /** @param {Frame} frame @param {Call} [call] */
  #onOffer(frame, call) {
    const { name, offer } = frame;
    if (typeof name !== "string") return;
    if (call && !call[replacedBy](frame)) return call[receive](frame);
    // Of a call that is over here: it must not ring again.
    if (offer?.n > 1) return void this.#send({ type: "leave", name });
    call?.[end]("ended", `${name} called anew`);
    const room = offer?.room;
    this.#ring(name, frame, room);
    if (room !== undefined && !this.#rooms.get(room)?.[holds]()) this.#answerHeld(room);
  }

  /** Decides on the calls that a room's members began, once the room knows who they are. @param {string} name */
  #answerHeld(name) {
    const room = this.#rooms.get(name);
    for (const [caller, held] of this.#ringing) {
      if (held.room !== name) continue;
      if (room?.[holds](caller)) room[take](held.accept(room.options));
      else {
        this.#ringing.delete(caller);
        this.#send({ type: "leave", name: caller });
      }
    }
  }

  /** @param {Frame} frame */
  #onError(frame) {
    const error = serverError(frame);
    const name = frame.name ?? this.#targets.get(frame.id);
    for (const room of this.#rooms.values()) if (room[failed](frame.id, error)) return;
    const lost = ["unknown-member", "undelivered"].includes(error.code);
    if (lost || error.code === "rate") this.#calls.get(name)?.[refused](error);
    // Of a call that is over nobody wants to know.
    if (!lost || !name) this.dispatchEvent(event("error", { error }));
  }

  /** @param {string} name @param {Frame} offer @param {string} [room] */
  #ring(name, offer, room) {
    const earlier = this.#ringing.get(name);
    if (earlier && earlier.room === room) return void (earlier.frames = [offer]);
    this.#miss(name);
    if (this.#ringing.size >= MAX_RINGING) return void this.#send({ type: "leave", name });
    const answer = () => {
      const found = this.#ringing.get(name);
      if (found !== ringing) throw new ThroughwayError("gone", `${name} has hung up`);
      this.#ringing.delete(name);
    };
    const accept = (/** @type {CallOptions} */ options = {}) => {
      answer();
      const call = this.#begin(name, options, room, ringing.frames[0].offer);
      for (const frame of ringing.frames) call[receive](frame);
      return call;
    };
    const reject = () => (answer(), void this.#send({ type: "leave", name }));
    const ringing = { frames: [offer], room, accept };
    this.#ringing.set(name, ringing);
    const media = /^m=(audio|video)/m.test(offer.offer?.sdp);
    if (room === undefined) this.dispatchEvent(new IncomingCall(name, media, accept, reject));
  }

  /** @param {string} name */
  #miss(name) {
    const missed = this.#ringing.get(name);
    this.#ringing.delete(name);
    if (missed && missed.room === undefined) this.dispatchEvent(event("missed", { name }));
  }

  /** @param {string} name @param {CallOptions} options @param {string} [room] @param {any} [offer] */
  #begin(name, options, room, offer) {
    const call = new Call(this.#link, name, options, room, offer);
    this.#calls.set(name, call);
    return call;
  }

  /** Has a room's member be in a call with us: there is at most one. @param {Room} room @param {string} name @param {CallOptions} options */
  #meet(room, name, options) {
    const call = this.#calls.get(name);
    if (!call) room[take](this.#ringing.get(name)?.accept(options) ?? this.#begin(name, options, room.name));
    else if (this.#isShared(call)) room[take](call);
  }

  /** Whether it is the call of a room. @param {Call} call */
  #isShared(call) {
    return [...this.#rooms.values()].some((room) => room.calls.get(call.name) === call);
  }

  /** @param {Call} call @param {string} code */
  #onEnded(call, code) {
    if (this.#calls.get(call.name) === call) this.#calls.delete(call.name);
    for (const room of this.#rooms.values()) room[freed](call, code);
  }

  /** @returns {RTCConfiguration} */
  #configuration() {
    const { iceTransportPolicy = "all" } = this.#options;
    return { iceServers: this.iceServers, iceTransportPolicy, bundlePolicy: "max-bundle" };
  }

  /** @param {Frame} frame with fresh servers, which count for live calls from their next ICE restart on */
  #applyIce({ iceServers }) {
    if (Array.isArray(iceServers)) this.iceServers = iceServers;
    for (const call of this.#calls.values()) call[reconfigure]();
  }

  /** Sends a frame exactly once, however often the connection breaks meanwhile. @param {Frame} frame @returns {number} its number */
  #send(frame) {
    const id = this.#id + 1;
    const text = JSON.stringify({ ...frame, id });
    const full = this.#kept.length >= KEPT_FRAMES || this.#keptLength + text.length > KEPT_LENGTH;
    if (full || this.state === "closed") return 0;
    this.#id = id;
    this.#kept.push({ id, text });
    this.#keptLength += text.length;
    this.#targets.set(id, frame.name);
    this.#targets.delete(id - KEPT_FRAMES);
    this.#flush();
    if (this.#kept.length === 1) this.#beat();
    return id;
  }

  /** Sends what this connection hasn't carried yet, at our rate. */
  #flush() {
    while (this.state === "online" && this.#sent < this.#kept.length) {
      const now = performance.now();
      this.#spent = Math.max(this.#spent, now - BURST * FRAME_MS);
      if (this.#spent > now) return this.#after("flush", FRAME_MS, () => this.#flush());
      this.#spent += FRAME_MS;
      this.#put(this.#kept[this.#sent].text);
      this.#sent += 1;
    }
  }

  /** Says what needs no receipt. @param {Frame} frame */
  #say(frame) {
    this.#put(JSON.stringify(frame));
  }

  /** @param {string} text */
  #put(text) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(text);
  }

  #beat() {
    this.#after("beat", this.#kept.length > 0 ? BUSY_MS : IDLE_MS, () => this.#probe());
  }

  /** Asks whether the server is there, or tries to get there at once. */
  #probe() {
    if (this.state !== "online") return this.#wake();
    if (this.#timers.pong !== undefined) return;
    this.#say({ type: "ping" });
    this.#after("pong", PONG_MS, () => {
      const dead = this.#socket;
      this.#socket = undefined;
      dead?.close();
      this.#onLost(1006);
    });
  }

  /** @param {string} name @param {number} milliseconds @param {() => void} task */
  #after(name, milliseconds, task) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = setTimeout(task, milliseconds);
  }

  #stopTimers() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#timers = {};
  }

  /** @param {Signal["state"]} state @param {ThroughwayError} [error] */
  #setState(state, error) {
    this.state = state;
    this.dispatchEvent(event("state", { state, reason: error?.message ?? "", error }));
  }
}

/**
 * Everybody in a room, each in a call with everybody else. Made by {@link Signal#join}.
 *
 * Events: `joined` (name), `left` (name), `call` (call), `message` (name, text), `closed` (reason, error).
 */
export class Room extends EventTarget {
  #link;
  /**
   * Who else is here, as many as the server lets in: whether it is on us to call them, as we came later; whether they
   * have yet to come back, after the server restarted; how often calling them has failed.
   * @type {Map<string, {ours: boolean, absent?: boolean, tries: number, timer?: ReturnType<typeof setTimeout>}>}
   */
  #members = new Map();
  /** The number of the question who is here, while it has no answer. */ #asked = 0;
  #inside = false;
  #fresh = false;
  #resolve = (/** @type {Room} */ _) => {};
  #reject = (/** @type {ThroughwayError} */ _) => {};
  /** @type {ReturnType<typeof setTimeout>|undefined} */ #retry;

  name;
  /** @type {CallOptions} */
  options;
  /** @type {Map<string, Call>} */
  calls = new Map();

  /** @param {any} link @param {string} name @param {CallOptions} options */
  constructor(link, name, options) {
    super();
    this.#link = link;
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
    return sent.filter(({ status }) => status === "fulfilled").length;
  }

  /** What we send from now on, to those who are here and those who come. @param {MediaStream} [stream] */
  async setMedia(stream) {
    this.options.media = stream;
    await Promise.all([...this.calls.values()].map((call) => call.setMedia(stream)));
  }

  /** Leaves the room, and hangs up the calls that are for no other room as well. */
  leave() {
    if (!this.#inside) return;
    this.#link.send({ type: "part", room: this.name });
    this[end]();
  }

  /** Asks who is here, and comes in by that. @param {boolean} [fresh] the server may not know all of us yet */
  [enter](fresh = false) {
    this.#fresh ||= fresh;
    clearTimeout(this.#retry);
    this.#asked = this.#link.send({ type: "join", room: this.name });
    if (!this.#asked) this.#retry = setTimeout(() => this[enter](), RETRY_MS);
    return new Promise((resolve, reject) => {
      if (this.#inside) return resolve(this);
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** @param {string[]} names all that are here */
  [entered](names) {
    const first = !this.#inside;
    this.#asked = 0;
    this.#inside = true;
    for (const [name, member] of [...this.#members]) {
      if (names.includes(name)) continue;
      if (this.#fresh && this.calls.has(name)) member.absent = true;
      else this[left](name);
    }
    for (const name of names) this.#add(name, this.#fresh || first || !this.#members.has(name), first);
    this.#fresh = false;
    this.#resolve(this);
  }

  /** @param {number} id @param {ThroughwayError} error @returns {boolean} whether it is about this room */
  [failed](id, error) {
    if (id === undefined || id !== this.#asked) return false;
    if (this.#inside && error.code === "rate") this.#retry = setTimeout(() => this[enter](), RETRY_MS);
    else this[end](error);
    return true;
  }

  /** @param {string} name who came after us */
  [came](name) {
    this.#add(name, false);
  }

  /** @param {string} name */
  [left](name) {
    const member = this.#members.get(name);
    if (!member) return;
    clearTimeout(member.timer);
    this.#members.delete(name);
    const call = this.calls.get(name);
    this.calls.delete(name);
    if (call && !this.#link.shared(call)) call[end]("ended", `${name} left the room`);
    this.dispatchEvent(event("left", { name }));
  }

  /** Whether this member may call us here; without a name, whether we are about to learn who may. @param {string} [name] */
  [holds](name) {
    return name === undefined ? this.#asked > 0 : this.#members.has(name) && this.calls.size < MAX_MESH;
  }

  /** @param {Call} call which is the one with this member from here on */
  [take](call) {
    const { name } = call;
    if (this.calls.get(name) === call) return;
    this.calls.set(name, call);
    call.addEventListener("message", (/** @type {any} */ { text }) => this.dispatchEvent(event("message", { name, text })));
    call.addEventListener("open", () => {
      const member = this.#members.get(name);
      if (member) member.tries = 0;
    });
    this.dispatchEvent(event("call", { call }));
  }

  /** A call with somebody is over. @param {Call} call @param {string} code */
  [freed](call, code) {
    const { name } = call;
    const ours = this.calls.get(name) === call;
    if (ours) this.calls.delete(name);
    const member = this.#members.get(name);
    if (member?.absent) return this[left](name);
    if (!member?.ours || (ours && code === "hung-up")) return;
    member.timer = setTimeout(() => this.#meet(name), retryAfter(member.tries));
    member.tries += 1;
  }

  /** @param {ThroughwayError} [error] why, unless we want it ourselves */
  [end](error) {
    clearTimeout(this.#retry);
    this.#link.parted(this);
    this.#reject(error ?? new ThroughwayError("closed", "the room was left"));
    for (const { timer } of this.#members.values()) clearTimeout(timer);
    this.#members.clear();
    for (const call of this.calls.values()) if (!this.#link.shared(call)) call.hangUp();
    this.calls.clear();
    this.dispatchEvent(event("closed", { reason: error?.message ?? "", error }));
  }

  /** @param {string} name @param {boolean} ours @param {boolean} [silent] */
  #add(name, ours, silent) {
    const known = this.#members.get(name);
    clearTimeout(known?.timer);
    this.#members.set(name, { ours, tries: 0 });
    if (!known && !silent) this.dispatchEvent(event("joined", { name }));
    if (ours) this.#meet(name);
  }

  /** @param {string} name */
  #meet(name) {
    if (!this.calls.has(name) && this.calls.size < MAX_MESH) this.#link.meet(this, name, this.options);
  }
}

/**
 * A call with one member. Made by {@link Signal#call}, {@link IncomingCall#accept} and {@link Room}.
 *
 * Events: `state` (state), `open` (text can be sent), `message` (text), `file` ({@link IncomingFile}),
 * `track` (track, streams), `path` (path), `closed` (code, reason).
 */
export class Call extends EventTarget {
  #link;
  #options;
  #room;
  #pc;
  /** Tells this call's frames from those of an earlier one with the same member. @type {string|undefined} */ #id;
  /** How many times we have offered, which the answers repeat. */ #n = 0;
  #attached = false;
  /** @type {RTCDataChannel|undefined} */ #channel;
  /** @type {Files|undefined} */ #files;
  /** @type {RTCIceCandidateInit[]} */ #candidates = [];
  /** @type {Map<string, RTCPeerConnectionIceErrorEvent>} */ #iceErrors = new Map();
  /** @type {Set<string>} */ #gathered = new Set();
  /** One thing at a time: what comes in and what we start ourselves. */ #work = Promise.resolve();
  #sending = Promise.resolve();
  /** Whether the other side misses a frame of ours. */ #unsent = false;
  #tries = 0;
  /** @type {ReturnType<typeof setTimeout>|undefined} */ #patience;
  /** @type {ReturnType<typeof setTimeout>|undefined} */ #retry;
  /** @type {ReturnType<typeof setInterval>|undefined} */ #watch;

  /** Who is on the other side. */
  name;
  /** @type {"calling"|"connecting"|"connected"|"reconnecting"|"closed"} */
  state;
  /** @type {Path|undefined} */
  path;

  /**
   * @param {Link} link @param {string} name @param {CallOptions} options @param {string} [room] which it is for
   * @param {any} [offer] when they call us
   */
  constructor(link, name, options, room, offer) {
    super();
    this.#link = link;
    this.#options = { ...options };
    this.#room = room;
    this.name = name;
    const caller = offer === undefined;
    this.#id = caller ? newId() : offer?.call;
    this.state = caller ? "calling" : "connecting";
    this.#pc = this.#connection();
    this.#wait(PATIENCE_MS[this.state]);
    if (caller) this.#attach();
  }

  /** The connection underneath, to look at. */
  get connection() {
    return this.#pc;
  }

  /**
   * Sends text, after what was sent before; waits while the connection is behind.
   * @param {string} text at most {@link MAX_TEXT} bytes
   */
  async send(text) {
    checkText(text);
    const sent = this.#sending.then(async () => {
      await drained(this.#channel);
      if (this.#channel?.readyState !== "open") throw notConnected(this.name);
      this.#channel.send(text);
    });
    this.#sending = sent.catch(() => {});
    return sent;
  }

  /**
   * Sends a file, after those before it, once the other side has accepted it.
   * @param {Blob & {name?: string}} file
   * @param {FileOptions} [options]
   * @returns {Promise<void>} settled when the other side has all of it
   * @throws {ThroughwayError} "declined", "canceled", "not-connected", "failed"
   */
  async sendFile(file, options = {}) {
    if (!this.#files) throw notConnected(this.name);
    return this.#files.send(file, options);
  }

  /**
   * What we send from now on. Tracks are swapped where there are some of their kind, and negotiated otherwise.
   * @param {MediaStream} [stream]
   */
  async setMedia(stream) {
    this.#options.media = stream;
    await new Promise((resolve, reject) => {
      this.#do(async () => {
        if (this.#attached) await this.#applyMedia().then(resolve, reject);
      });
      this.#do(async () => resolve(undefined));
    });
  }

  /** Ends the call, or gives up calling. */
  hangUp() {
    if (this.state === "closed") return;
    this.#link.send({ type: "leave", name: this.name });
    this[end]("hung-up", "you hung up");
  }

  /** @param {Frame} frame */
  [receive](frame) {
    this.#do(() => this.#handle(frame));
  }

  /** Whether an offer begins another call: the other side has lost this one. @param {Frame} frame */
  [replacedBy]({ offer }) {
    return this.state !== "calling" && offer?.call !== undefined && offer.call !== this.#id;
  }

  /**
   * Signaling works again, or the network changed.
   * @param {boolean} changed whether the way there may be another one
   * @param {boolean} [fresh] whether what was under way is lost, with the relay of a server that restarted
   */
  [online](changed, fresh = false) {
    if (fresh && this.state === "calling") return this[end]("offline", "the connection to the server was lost");
    this.#do(async () => {
      const { connectionState, signalingState } = this.#pc;
      const lost = fresh && (this.path?.relayed || signalingState !== "stable");
      if (!changed && !lost && !this.#unsent && connectionState === "connected") return;
      this.#unsent = false;
      await this.#withdrawOffer();
      this.#restart();
    });
  }

  /** The other side doesn't get what we say: never was here, or has not come back yet. @param {ThroughwayError} error */
  [refused](error) {
    if (this.state === "calling" && error.code !== "rate") return this[end](error.code, error.message);
    this.#unsent = true;
    // If they come back first, their offer finds the way free.
    this.#do(() => this.#withdrawOffer());
    this.#again(0);
  }

  [reconfigure]() {
    this.#pc.setConfiguration(this.#link.configuration());
  }

  /** @param {string} code @param {string} reason */
  [end](code, reason) {
    if (this.state === "closed") return;
    clearTimeout(this.#patience);
    clearTimeout(this.#retry);
    clearInterval(this.#watch);
    this.#pc.close();
    this.#files?.close();
    this.#setState("closed");
    this.#link.ended(this, code);
    this.dispatchEvent(event("closed", { code, reason }));
  }

  #connection() {
    const pc = new RTCPeerConnection(this.#link.configuration());
    pc.onnegotiationneeded = () => this.#do(() => this.#offer(pc));
    pc.onicecandidate = ({ candidate }) => {
      if (pc !== this.#pc) return;
      if (candidate) this.#gathered.add(candidate.type ?? "");
      else this.#checkGathered();
      // The last one is passed on as the empty candidate that ends them (RFC 8838, section 13).
      const init = candidate ? candidate.toJSON() : { candidate: "", sdpMLineIndex: 0 };
      this.#tell("candidate", init);
    };
    pc.onicecandidateerror = (problem) => {
      this.#iceErrors.set(problem.url, problem);
      if (problem.errorCode === 701 || this.path) return;
      // A refusal: gathering itself ends only once every other interface has timed out.
      clearTimeout(this.#retry);
      this.#retry = setTimeout(() => this.#checkGathered(), RETRY_MS);
    };
    pc.onconnectionstatechange = () => this.#onConnectionState();
    pc.ontrack = ({ track, streams }) => this.dispatchEvent(event("track", { track, streams }));
    return pc;
  }

  /** Adds what we send; on the called side after their offer, which then needs no second one. */
  #attach() {
    const { chat = true, media } = this.#options;
    this.#attached = true;
    for (const track of media?.getTracks() ?? []) this.#pc.addTrack(track, /** @type {MediaStream} */ (media));
    if (!chat) return;
    const channel = this.#pc.createDataChannel("chat", { negotiated: true, id: 0 });
    channel.bufferedAmountLowThreshold = BUFFER_BYTES / 4;
    channel.onopen = () => this.dispatchEvent(event("open"));
    channel.onmessage = ({ data }) => {
      if (typeof data === "string") this.dispatchEvent(event("message", { text: data }));
    };
    channel.onclose = () => this[end]("ended", `${this.name} hung up`);
    this.#channel = channel;
    const files = this.#pc.createDataChannel("file", { negotiated: true, id: 1 });
    this.#files = new Files(files, this.name, (file) => this.dispatchEvent(file));
  }

  async #applyMedia() {
    const { media } = this.#options;
    const left = new Set(media?.getTracks());
    const open = this.#pc.getTransceivers().filter(({ direction }) => direction !== "stopped");
    const idle = open.filter(({ sender: { track } }) => !track || !left.delete(track));
    for (const transceiver of idle) {
      const { sender, receiver, direction } = transceiver;
      const next = [...left].find(({ kind }) => kind === receiver.track.kind);
      if (next) {
        left.delete(next);
        await sender.replaceTrack(next);
        if (direction.startsWith("send")) continue;
        sender.setStreams?.(/** @type {MediaStream} */ (media));
        transceiver.direction = direction === "recvonly" ? "sendrecv" : "sendonly";
      } else if (sender.track) {
        this.#pc.removeTrack(sender);
      }
    }
    for (const track of left) this.#pc.addTrack(track, /** @type {MediaStream} */ (media));
  }

  /** @param {() => Promise<void>} task */
  #do(task) {
    this.#work = this.#work.then(async () => {
      if (this.state === "closed") return;
      try {
        await task();
      } catch (error) {
        if (this.state === "closed") return;
        this.#link.send({ type: "leave", name: this.name });
        this[end]("failed", `the two browsers could not agree: ${error.message}`);
      }
    });
  }

  /** @param {RTCPeerConnection} pc */
  async #offer(pc) {
    // Not stable: the event comes again once it is. Not ours any more: `#yield` put another in its place.
    if (pc !== this.#pc || pc.signalingState !== "stable") return;
    await pc.setLocalDescription();
    this.#n += 1;
    this.#describe(this.#n);
  }

  /** @param {Frame} frame */
  async #handle(frame) {
    const body = frame[frame.type];
    if (typeof body !== "object" || body === null) return;
    if (frame.type === "offer") return this.#onOffer(body, frame.polite ?? this.#link.yields(this.name));
    if (body.call !== undefined && body.call !== this.#id) return;
    if (frame.type === "candidate") return this.#onCandidate(body);
    // Of an offer that was withdrawn since: another answer follows.
    if (this.#pc.signalingState !== "have-local-offer" || (body.n ?? this.#n) !== this.#n) return;
    await this.#describedBy(body);
  }

  /** Both offered at once: the side that gives way has its offer rolled back. @param {any} offer @param {boolean} polite */
  async #onOffer(offer, polite) {
    if (this.#pc.signalingState !== "stable" && !polite) return;
    if (this.state === "calling") this.#yield(offer);
    const first = !this.#pc.remoteDescription;
    await this.#describedBy(offer);
    this.#unsent = false;
    if (first) this.#attach();
    await this.#pc.setLocalDescription();
    this.#describe(offer.n);
  }

  /**
   * Their call becomes this one, with a connection of its own: Chromium can gather nothing more for good
   * once a first offer was rolled back while it gathered.
   * @param {any} offer
   */
  #yield(offer) {
    if (this.#channel) this.#channel.onclose = null;
    this.#pc.close();
    this.#pc = this.#connection();
    this.#gathered.clear();
    this.#iceErrors.clear();
    this.#id = offer.call;
  }

  /** @param {RTCSessionDescriptionInit} description */
  async #describedBy({ type, sdp }) {
    await this.#pc.setRemoteDescription({ type, sdp });
    if (this.state === "calling") this.#setState("connecting");
    this.#tries = 0;
    for (const candidate of this.#candidates.splice(0)) await this.#onCandidate(candidate);
  }

  /** @param {RTCIceCandidateInit} candidate */
  async #onCandidate(candidate) {
    if (!this.#pc.remoteDescription) {
      if (this.#candidates.length < MAX_WAITING) this.#candidates.push(candidate);
      return;
    }
    // One that this browser can't use (another generation's, an unknown transport) costs nothing but itself.
    await this.#pc.addIceCandidate(candidate).catch(() => {});
  }

  /** @param {number} [n] which of the offers it is, or answers */
  #describe(n) {
    const description = this.#pc.localDescription;
    if (description) this.#tell(description.type, { type: description.type, sdp: description.sdp, n });
  }

  /** @param {string} type @param {object} body */
  #tell(type, body) {
    const sent = this.#link.send({ type, name: this.name, [type]: { ...body, call: this.#id, room: this.#room } });
    if (!sent) this.#unsent = true;
  }

  /** An offer that may never have arrived must not stand in the way of theirs. */
  async #withdrawOffer() {
    if (this.#pc.signalingState === "have-local-offer" && this.#pc.remoteDescription) {
      await this.#pc.setLocalDescription({ type: "rollback" });
    }
  }

  #restart() {
    if (this.state === "closed" || !this.#pc.remoteDescription) return;
    this.#iceErrors.clear();
    this.#gathered.clear();
    this[reconfigure]();
    this.#pc.restartIce();
    this.#again(ANSWER_MS);
  }

  /** Looks again later, each time later, until it is answered. @param {number} least */
  #again(least) {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this[online](this.#pc.signalingState !== "stable"), least + retryAfter(this.#tries));
    this.#tries += 1;
  }

  #onConnectionState() {
    const { connectionState } = this.#pc;
    clearTimeout(this.#retry);
    if (connectionState === "connected") {
      clearTimeout(this.#patience);
      this.#setState("connected");
      clearInterval(this.#watch);
      this.#watch = setInterval(() => void this.#look(), PATH_MS);
      void this.#look();
    } else if (connectionState === "failed" || connectionState === "disconnected") {
      clearInterval(this.#watch);
      this.#link.probe();
      if (this.state === "connected") {
        this.#setState("reconnecting");
        this.#wait(PATIENCE_MS.reconnecting);
      }
      const patience = connectionState === "failed" ? 0 : DISCONNECTED_MS;
      this.#retry = setTimeout(() => this[online](false), patience);
    }
  }

  /** With the relay alone there is nothing to wait for once it has given nothing but errors. */
  #checkGathered() {
    const relayOnly = this.#link.configuration().iceTransportPolicy === "relay";
    if (!relayOnly || this.state === "closed" || this.path || this.#gathered.size > 0 || this.#iceErrors.size === 0) return;
    this.#link.send({ type: "leave", name: this.name });
    this[end]("no-path", this.#whyNoPath());
  }

  /** @param {number} milliseconds */
  #wait(milliseconds) {
    clearTimeout(this.#patience);
    const due = Date.now() + milliseconds;
    this.#patience = setTimeout(() => {
      // Nobody was awake to see whether it gets better.
      if (Date.now() > due + LATE_MS) return this.#wait(PATIENCE_MS.connecting);
      const unanswered = this.state === "calling";
      this.#link.send({ type: "leave", name: this.name });
      if (unanswered) this[end]("no-answer", `${this.name} did not answer`);
      else this[end]("no-path", this.#whyNoPath());
    }, milliseconds);
  }

  #whyNoPath() {
    const problems = [...this.#iceErrors.values()].filter(({ url }) => url.startsWith("turn"));
    // 701 only says that some interface could not reach it; an answer from the relay says more.
    const problem = problems.find(({ errorCode }) => errorCode !== 701) ?? problems[0];
    if (this.#gathered.has("relay") || !problem) return "no path: no packet got through, neither directly nor by the relay";
    if (problem.errorCode === 701) return `no path: the relay ${problem.url} could not be reached`;
    return `no path: the relay ${problem.url} answered ${problem.errorCode} ${problem.errorText}`.trimEnd();
  }

  async #look() {
    const path = readPath(await this.#pc.getStats());
    if (!path || this.state !== "connected" || JSON.stringify(path) === JSON.stringify(this.path)) return;
    this.path = path;
    this.dispatchEvent(event("path", { path }));
  }

  /** @param {Call["state"]} state */
  #setState(state) {
    if (this.state === state || this.state === "closed") return;
    if (state === "connecting") this.#wait(PATIENCE_MS.connecting);
    this.state = state;
    this.dispatchEvent(event("state", { state }));
  }
}

/** The files of one call: one at a time each way, announced by JSON texts, their bytes in binary messages. */
class Files {
  #channel;
  #name;
  #offered;
  #count = 0;
  #queue = Promise.resolve();
  /** @type {{n: number, accept: () => void, done: () => void, fail: (error: ThroughwayError) => void}|undefined} */ #outgoing;
  /** @type {{n: number, size: number, got: number, parts: BlobPart[], [key: string]: any}|undefined} */ #incoming;

  /** @param {RTCDataChannel} channel @param {string} name @param {(file: IncomingFile) => void} offered */
  constructor(channel, name, offered) {
    this.#channel = channel;
    this.#name = name;
    this.#offered = offered;
    channel.binaryType = "arraybuffer";
    channel.bufferedAmountLowThreshold = BUFFER_BYTES / 4;
    channel.onmessage = ({ data }) => (typeof data === "string" ? this.#onText(data) : this.#onChunk(data));
    channel.onclose = () => this.close();
  }

  close() {
    this.#outgoing?.fail(notConnected(this.#name));
    this.#endIncoming(notConnected(this.#name));
  }

  /** @param {Blob & {name?: string}} file @param {FileOptions} options @returns {Promise<void>} */
  send(file, options) {
    const sent = this.#queue.then(() => this.#send(file, options));
    this.#queue = sent.catch(() => {});
    return sent;
  }

  /** @param {Blob & {name?: string}} file @param {FileOptions} options */
  async #send(file, { signal, progress }) {
    const canceled = () => new ThroughwayError("canceled", "the file was canceled");
    if (signal?.aborted) throw canceled();
    if (this.#channel.readyState !== "open") throw notConnected(this.#name);
    const n = (this.#count += 1);
    const [accepted, accept] = promise();
    const [done, finish] = promise();
    const [failure, , fail] = promise();
    this.#outgoing = { n, accept, done: finish, fail };
    const abort = () => fail(canceled());
    signal?.addEventListener("abort", abort);
    try {
      this.#say({ offer: n, name: file.name ?? "file", size: file.size, type: file.type });
      await Promise.race([accepted, failure]);
      for (let sent = 0; sent < file.size; ) {
        const block = await Promise.race([file.slice(sent, sent + BUFFER_BYTES).arrayBuffer(), failure]);
        for (let at = 0; at < block.byteLength; at += CHUNK_BYTES) {
          await Promise.race([drained(this.#channel), failure]);
          this.#channel.send(block.slice(at, at + CHUNK_BYTES));
          progress?.(Math.min(sent + at + CHUNK_BYTES, file.size));
        }
        sent += block.byteLength;
      }
      await Promise.race([done, failure]);
    } catch (error) {
      this.#say({ cancel: n });
      throw error instanceof ThroughwayError ? error : new ThroughwayError("failed", `the file could not be read: ${error.message}`);
    } finally {
      this.#outgoing = undefined;
      signal?.removeEventListener("abort", abort);
    }
  }

  /** @param {object} message */
  #say(message) {
    if (this.#channel.readyState === "open") this.#channel.send(JSON.stringify(message));
  }

  /** @param {string} text */
  #onText(text) {
    const message = parse(text) ?? {};
    const out = this.#outgoing;
    if (message.offer !== undefined) this.#onOffer(message);
    else if (message.cancel !== undefined && message.cancel === this.#incoming?.n) {
      this.#endIncoming(new ThroughwayError("canceled", `${this.#name} canceled the file`));
    } else if (!out) return;
    else if (message.accept === out.n) out.accept();
    else if (message.done === out.n) out.done();
    else if (message.reject === out.n) out.fail(new ThroughwayError("declined", `${this.#name} declined the file`));
  }

  /** @param {any} message */
  #onOffer({ offer: n, name, size, type }) {
    if (this.#incoming || typeof name !== "string" || !Number.isSafeInteger(size) || size < 0) return this.#say({ reject: n });
    /** @type {any} */
    const file = { n, size, got: 0, parts: [], type: String(type) };
    this.#incoming = file;
    const accept = async (/** @type {FileOptions} */ { progress } = {}) => {
      if (this.#incoming !== file || file.resolve) throw new ThroughwayError("canceled", `${this.#name} canceled the file`);
      const [whole, resolve, fail] = promise();
      Object.assign(file, { progress, resolve, fail });
      this.#say({ accept: n });
      this.#onChunk(new ArrayBuffer(0));
      return whole;
    };
    const reject = () => {
      if (this.#incoming !== file) return;
      this.#say({ reject: n });
      this.#endIncoming(new ThroughwayError("canceled", "you canceled the file"));
    };
    this.#offered(new IncomingFile({ name: plainName(name), size, type: file.type }, accept, reject));
  }

  /** @param {ArrayBuffer} chunk */
  #onChunk(chunk) {
    const file = this.#incoming;
    if (!file?.resolve) return;
    file.got += chunk.byteLength;
    if (file.got > file.size) {
      this.#say({ reject: file.n });
      return this.#endIncoming(new ThroughwayError("failed", `${this.#name} sent more than the file`));
    }
    file.parts.push(chunk);
    if (file.parts.length > FOLD_CHUNKS) file.parts = [new Blob(file.parts)];
    file.progress?.(file.got);
    if (file.got < file.size) return;
    this.#incoming = undefined;
    this.#say({ done: file.n });
    file.resolve(new Blob(file.parts, { type: file.type }));
  }

  /** @param {ThroughwayError} error */
  #endIncoming(error) {
    const file = this.#incoming;
    this.#incoming = undefined;
    file?.fail?.(error);
  }
}

/**
 * Reads the way packets travel from `RTCPeerConnection.getStats()`.
 * @param {RTCStatsReport} report
 * @returns {Path|undefined} nothing before a pair is selected
 */
export function readPath(report) {
  /** @type {any[]} */
  const all = [...report.values()];
  const selected = all.find(({ type, selectedCandidatePairId }) => type === "transport" && selectedCandidatePairId);
  // Firefox has long had no transport statistics; it marks the pair itself.
  const pair = report.get(selected?.selectedCandidatePairId) ?? all.find(({ type, selected }) => type === "candidate-pair" && selected);
  const local = report.get(pair?.localCandidateId);
  const remote = report.get(pair?.remoteCandidateId);
  if (!local || !remote) return undefined;
  const relayed = local.candidateType === "relay" || remote.candidateType === "relay";
  const protocol = (local.candidateType === "relay" && local.relayProtocol) || local.protocol;
  const { currentRoundTripTime: seconds } = pair;
  const rtt = seconds === undefined ? undefined : Math.round(seconds * 1000);
  return { relayed, protocol, local: local.candidateType, remote: remote.candidateType, rtt };
}

/** @param {string} text */
function checkText(text) {
  if (new TextEncoder().encode(text).length <= MAX_TEXT) return;
  throw new ThroughwayError("too-long", `a message can have ${MAX_TEXT / 1024} KiB at most`);
}

/** @param {string} name */
function notConnected(name) {
  return new ThroughwayError("not-connected", `there is no connection to ${name}`);
}

/** Waits while the channel is behind. @param {RTCDataChannel} [channel] */
async function drained(channel) {
  if (channel?.readyState !== "open" || channel.bufferedAmount <= BUFFER_BYTES) return;
  await new Promise((resolve) => {
    channel.addEventListener("bufferedamountlow", resolve, { once: true });
    channel.addEventListener("close", resolve, { once: true });
  });
}

/** @returns {[Promise<any>, (value?: any) => void, (error: ThroughwayError) => void]} one that others settle, or nobody */
function promise() {
  /** @type {any} */ let resolve;
  /** @type {any} */ let reject;
  const made = new Promise((...both) => ([resolve, reject] = both));
  made.catch(() => {});
  return [made, resolve, reject];
}

/** What a stranger calls a file, as a name without a path or anything that can't be seen. @param {string} name */
function plainName(name) {
  const plain = name.replace(/[\p{C}/\\]/gu, "_").slice(-255).replace(/^\.+/, "");
  return plain || "file";
}

/** @param {number} tries @returns {number} milliseconds */
function retryAfter(tries) {
  return Math.min(RETRY_MS * 1.5 ** tries, MAX_RETRY_MS);
}

/** @param {string} type @param {object} [fields] */
function event(type, fields) {
  return Object.assign(new Event(type), fields);
}

/** @param {unknown} data @returns {any} */
function parse(data) {
  try {
    return JSON.parse(String(data)) ?? undefined;
  } catch {
    return undefined;
  }
}

/** `crypto.randomUUID` wants a secure context, which plain http to an address is not. */
function newId() {
  return Array.from(crypto.getRandomValues(new Uint32Array(2)), (word) => word.toString(36)).join("");
}

/** @param {Frame} frame */
function serverError({ code, message, name }) {
  const text = code === "unknown-member" ? `no member called ${name} is here` : `the server says: ${message ?? code}`;
  return new ThroughwayError(String(code), text);
}

/** @param {number} code */
function serverClosed(code) {
  const texts = {
    1012: "the server is restarting",
    1013: "the server has no room right now",
    4000: "the server's operator ended this session",
    4001: "the server no longer accepts this sign-in",
    4002: "this session was continued elsewhere",
    4008: "this connection was too slow to keep up",
    4009: "the server gave the name to someone else",
  };
  return new ThroughwayError(`closed-${code}`, texts[code] ?? "the connection to the server was lost");
}

/** @param {string} reason @param {string} name */
function loginRefusal(reason, name) {
  const texts = {
    "name-taken": `the name ${name} is taken`,
    "bad-name": "this name cannot be used: it needs 1 to 64 bytes and no invisible characters",
    auth: "the server did not accept this sign-in",
    full: "the server is full",
    rate: "too many sign-ins at once: wait a few seconds",
  };
  return texts[reason] ?? `the server refused the sign-in: ${reason}`;
}

/** @param {URL} url */
function unreachable(url) {
  const origin = globalThis.location?.origin;
  const foreign = origin && new URL(origin).host !== url.host ? `, or does not allow pages of ${origin}` : "";
  return `the server at ${url.host} could not be reached${foreign}`;
}
