// @ts-check
/**
 * Throughway's client: sign in, call a member by name, exchange text and media. One module, no dependencies.
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
 * @property {string|URL} [url] the server, by default the one that this module came from
 * @property {RTCIceTransportPolicy} [iceTransportPolicy] "relay" keeps to the relay
 * @property {AbortSignal} [signal] signs out and closes everything
 *
 * @typedef {object} CallOptions
 * @property {boolean} [chat] whether to open the text channel, by default true; both sides must
 * @property {MediaStream} [media] what to send of audio and video
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
 * @typedef {object} Link what a call needs of its signal
 * @property {string} me
 * @property {(frame: Frame) => boolean} send false while the server is out of reach
 * @property {() => RTCConfiguration} configuration
 * @property {(call: Call) => void} ended
 */

/** The longest text of one chat message, in bytes of UTF-8. */
export const MAX_TEXT = 16 * 1024;

/** Seconds before each attempt to reconnect, each jittered; the last one repeats. */
const BACK_OFF = [0.3, 1.2, 2.7, 4.8, 7];
/** Our own name can seem taken for as long as the server takes to notice a dead connection (45 s). */
const NAME_TAKEN_TRIES = 11;
const SIGN_IN_MS = 10_000;
const DISCONNECTED_MS = 4_000;
const RETRY_MS = 2_000;
const PATH_MS = 2_000;
/** How long a call may stay in each state before it is given up. */
const PATIENCE_MS = { calling: 60_000, connecting: 30_000, reconnecting: 60_000 };
/** Beyond this much unsent text `send` waits, until it is down to a quarter. */
const BUFFER_BYTES = 256 * 1024;
/** What strangers can make us keep: calls that ring at once, candidates that wait for their description. */
const MAX_RINGING = 16;
const MAX_WAITING = 256;

const receive = Symbol("receive");
const online = Symbol("online");
const offline = Symbol("offline");
const refused = Symbol("refused");
const end = Symbol("end");
const replacedBy = Symbol("replacedBy");
const reconfigure = Symbol("reconfigure");

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
  /** @param {string} name @param {(options: CallOptions) => Call} accept @param {() => void} reject */
  constructor(name, accept, reject) {
    super("call");
    /** Who calls. */
    this.name = name;
    this.accept = (/** @type {CallOptions} */ options = {}) => accept(options);
    this.reject = reject;
  }
}

/**
 * A member's connection to the server. Survives interruptions by signing in again; live calls go on meanwhile.
 *
 * Events: `call` ({@link IncomingCall}), `missed` (name), `state` (state, reason), `error` (error).
 */
export class Signal extends EventTarget {
  #options;
  #url;
  /** @type {WebSocket|undefined} */ #socket;
  /** @type {Map<string, Call>} */ #calls = new Map();
  /** @type {Map<string, {frames: Frame[], accept: (options: CallOptions) => Call}>} */ #ringing = new Map();
  #tries = 0;
  #onlineSince = 0;
  /** @type {ReturnType<typeof setTimeout>|undefined} */ #refresh;
  #wake = () => {};
  #abort = () => this.close();
  #online = () => {
    this.#wake();
    for (const call of this.#calls.values()) call[online]();
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
    globalThis.addEventListener?.("online", this.#online);
  }

  /**
   * Calls a member. The call's events tell how it goes; calling someone who is ringing us takes their call.
   * @param {string} name
   * @param {CallOptions} [options]
   * @returns {Call}
   */
  call(name, options = {}) {
    if (this.state !== "online") throw new ThroughwayError("offline", "there is no connection to the server right now");
    if (name === this.name) throw new ThroughwayError("self", "that is your own name");
    if (this.#calls.has(name)) throw new ThroughwayError("busy", `you are in a call with ${name} already`);
    const ringing = this.#ringing.get(name);
    return ringing ? ringing.accept(options) : this.#begin(name, options);
  }

  /** Hangs up every call and signs out. */
  close() {
    this.#finish();
  }

  /** @param {ThroughwayError} [error] why, unless we want it ourselves */
  #finish(error) {
    if (this.state === "closed") return;
    for (const call of this.#calls.values()) call.hangUp();
    for (const name of [...this.#ringing.keys()]) this.#miss(name);
    this.#setState("closed", error);
    this.#wake();
    clearTimeout(this.#refresh);
    this.#options.signal?.removeEventListener("abort", this.#abort);
    globalThis.removeEventListener?.("online", this.#online);
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
      socket.onopen = () => {
        refusal = new ThroughwayError("unreachable", "the server closed the connection before it answered the sign-in");
        socket.send(JSON.stringify({ type: "login", name: this.#options.name }));
      };
      socket.onmessage = ({ data }) => {
        const frame = parse(data);
        if (!frame || this.state === "closed") return;
        if (signedIn) return this.#onFrame(frame);
        if (frame.type === "error") refusal = serverError(frame);
        if (frame.type !== "login") return;
        if (frame.success !== true) {
          refusal = new ThroughwayError(String(frame.reason), loginRefusal(frame.reason, this.#options.name));
          return socket.close(1000);
        }
        signedIn = true;
        clearTimeout(deadline);
        if (typeof frame.name === "string") this.name = frame.name;
        this.#onlineSince = performance.now();
        this.#applyIce(frame);
        this.#setState("online");
        resolve();
      };
      socket.onclose = ({ code }) => {
        clearTimeout(deadline);
        if (!signedIn) return reject(code === 1012 || code === 1013 ? serverClosed(code) : refusal);
        if (this.#socket === socket) this.#onLost(code);
      };
    });
  }

  /** @param {number} code */
  #onLost(code) {
    if (this.state === "closed") return;
    clearTimeout(this.#refresh);
    const why = serverClosed(code);
    if (code >= 4000 && code <= 4009) return this.#finish(why);
    for (const name of [...this.#ringing.keys()]) this.#miss(name);
    for (const call of this.#calls.values()) call[offline](why);
    if (performance.now() - this.#onlineSince > SIGN_IN_MS) this.#tries = 0;
    this.#setState("reconnecting", why);
    void this.#reconnect(code === 1012);
  }

  /** @param {boolean} restarted */
  async #reconnect(restarted) {
    while (this.state === "reconnecting") {
      const seconds = BACK_OFF[Math.min(this.#tries, BACK_OFF.length - 1)] * (0.75 + Math.random() / 2);
      this.#tries += 1;
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, seconds * 1000);
        this.#wake = () => (clearTimeout(timer), resolve(undefined));
      });
      if (this.state !== "reconnecting") return;
      try {
        await this.#signIn();
        for (const call of this.#calls.values()) call[online](restarted);
        return;
      } catch (error) {
        const final = ["bad-name", "auth"].includes(error.code) || (error.code === "name-taken" && this.#tries > NAME_TAKEN_TRIES);
        if (final) return this.#finish(error);
      }
    }
  }

  /** @param {Frame} frame */
  #onFrame(frame) {
    if (frame.type === "ice") return this.#applyIce(frame);
    if (frame.type === "error") return this.#onError(frame);
    const { name } = frame;
    if (typeof name !== "string") return;
    const call = this.#calls.get(name);
    switch (frame.type) {
      case "offer":
        if (!call) return this.#ring(name, frame);
        if (!call[replacedBy](frame)) return call[receive](frame);
        call[end]("ended", `${name} called anew`);
        return this.#ring(name, frame);
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
        if (call) call[end](...(call.state === "calling" ? ["declined", `${name} declined`] : ["ended", `${name} hung up`]));
        return this.#miss(name);
    }
  }

  /** @param {Frame} frame */
  #onError(frame) {
    const error = serverError(frame);
    const call = this.#calls.get(frame.name);
    if (call && frame.code === "unknown-member") return call[refused](error);
    // Asking for fresh servers is a courtesy that not every server knows.
    if (frame.code !== "unknown-command") this.dispatchEvent(event("error", { error }));
  }

  /** @param {string} name @param {Frame} offer */
  #ring(name, offer) {
    const earlier = this.#ringing.get(name);
    if (earlier) return void (earlier.frames = [offer]);
    if (this.#ringing.size >= MAX_RINGING) return void this.#send({ type: "leave", name });
    const answer = () => {
      const found = this.#ringing.get(name);
      if (found !== ringing) throw new ThroughwayError("gone", `${name} has hung up`);
      this.#ringing.delete(name);
    };
    const accept = (/** @type {CallOptions} */ options) => {
      answer();
      const call = this.#begin(name, options, ringing.frames[0].offer);
      for (const frame of ringing.frames) call[receive](frame);
      return call;
    };
    const reject = () => (answer(), void this.#send({ type: "leave", name }));
    const ringing = { frames: [offer], accept };
    this.#ringing.set(name, ringing);
    this.dispatchEvent(new IncomingCall(name, accept, reject));
  }

  /** @param {string} name */
  #miss(name) {
    if (this.#ringing.delete(name)) this.dispatchEvent(event("missed", { name }));
  }

  /** @param {string} name @param {CallOptions} options @param {any} [offer] */
  #begin(name, options, offer) {
    const link = {
      me: this.name,
      send: (/** @type {Frame} */ frame) => this.#send(frame),
      configuration: () => this.#configuration(),
      ended: (/** @type {Call} */ call) => void (this.#calls.get(name) === call && this.#calls.delete(name)),
    };
    const call = new Call(link, name, options, offer);
    this.#calls.set(name, call);
    return call;
  }

  /** @returns {RTCConfiguration} */
  #configuration() {
    const { iceTransportPolicy = "all" } = this.#options;
    return { iceServers: this.iceServers, iceTransportPolicy, bundlePolicy: "max-bundle" };
  }

  /** @param {Frame} frame with fresh servers, which count for live calls from their next ICE restart on */
  #applyIce({ iceServers, iceTtl }) {
    if (Array.isArray(iceServers)) this.iceServers = iceServers;
    for (const call of this.#calls.values()) call[reconfigure]();
    clearTimeout(this.#refresh);
    if (iceTtl > 0) this.#refresh = setTimeout(() => this.#send({ type: "ice" }), Math.min(iceTtl * 700, 2 ** 31 - 1));
  }

  /** @param {Frame} frame */
  #send(frame) {
    if (this.state !== "online" || this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  /** @param {Signal["state"]} state @param {ThroughwayError} [error] */
  #setState(state, error) {
    this.state = state;
    this.dispatchEvent(event("state", { state, reason: error?.message ?? "", error }));
  }
}

/**
 * A call with one member. Made by {@link Signal#call} and {@link IncomingCall#accept}.
 *
 * Events: `state` (state), `open` (text can be sent), `message` (text), `track` (track, streams), `path` (path),
 * `closed` (code, reason).
 */
export class Call extends EventTarget {
  #link;
  #options;
  #pc;
  /** Tells this call's frames from those of an earlier one with the same member. @type {string|undefined} */ #id;
  /** @type {RTCDataChannel|undefined} */ #channel;
  /** @type {RTCIceCandidateInit[]} */ #candidates = [];
  /** @type {Map<string, RTCPeerConnectionIceErrorEvent>} */ #iceErrors = new Map();
  /** @type {Set<string>} */ #gathered = new Set();
  /** One thing at a time: what comes in and what we start ourselves. */ #work = Promise.resolve();
  #sending = Promise.resolve();
  /** Whether the other side misses a frame of ours, as the server was out of reach. */ #unsent = false;
  /** @type {ReturnType<typeof setTimeout>|undefined} */ #patience;
  /** @type {ReturnType<typeof setTimeout>|undefined} */ #retry;
  /** @type {ReturnType<typeof setInterval>|undefined} */ #watch;

  /** Who is on the other side. */
  name;
  /** @type {"calling"|"connecting"|"connected"|"reconnecting"|"closed"} */
  state;
  /** @type {Path|undefined} */
  path;

  /** @param {Link} link @param {string} name @param {CallOptions} options @param {any} [offer] when they call us */
  constructor(link, name, options, offer) {
    super();
    this.#link = link;
    this.#options = options;
    this.name = name;
    const caller = offer === undefined;
    this.#id = caller ? newId() : offer?.call;
    this.state = caller ? "calling" : "connecting";
    this.#pc = this.#connection();
    this.#wait(PATIENCE_MS[this.state]);
    if (caller) this.#attach();
  }

  /** The connection underneath, to look at or to add tracks to. */
  get connection() {
    return this.#pc;
  }

  /**
   * Sends text, after what was sent before; waits while the connection is behind.
   * @param {string} text at most {@link MAX_TEXT} bytes
   */
  async send(text) {
    if (new TextEncoder().encode(text).length > MAX_TEXT) {
      throw new ThroughwayError("too-long", `a message can have ${MAX_TEXT / 1024} KiB at most`);
    }
    const sent = this.#sending.then(() => this.#deliver(text));
    this.#sending = sent.catch(() => {});
    return sent;
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

  /** Signaling works again, or the network changed. @param {boolean} [relayGone] with the server that restarted */
  [online](relayGone = false) {
    this.#do(async () => {
      const behind = this.#unsent || (relayGone && this.path?.relayed);
      this.#unsent = false;
      await this.#withdrawOffer();
      if (behind || this.#pc.connectionState !== "connected") this.#restart();
    });
  }

  /** @param {ThroughwayError} why */
  [offline](why) {
    if (this.state === "calling") this[end]("offline", why.message);
  }

  /** The server does not know the other side: never was here, or has not come back yet. @param {ThroughwayError} error */
  [refused](error) {
    if (this.state === "calling") return this[end](error.code, error.message);
    this.#unsent = true;
    // If they come back first, their offer finds the way free.
    this.#do(() => this.#withdrawOffer());
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this[online](), RETRY_MS);
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
    this.#link.ended(this);
    this.#setState("closed");
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
  }

  /** @param {string} text */
  async #deliver(text) {
    const channel = this.#channel;
    if (channel?.readyState === "open" && channel.bufferedAmount > BUFFER_BYTES) {
      await new Promise((resolve) => {
        channel.addEventListener("bufferedamountlow", resolve, { once: true });
        channel.addEventListener("close", resolve, { once: true });
      });
    }
    if (channel?.readyState !== "open") throw new ThroughwayError("not-connected", `there is no connection to ${this.name} yet`);
    channel.send(text);
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
    this.#describe();
  }

  /** @param {Frame} frame */
  async #handle(frame) {
    const body = frame[frame.type];
    if (typeof body !== "object" || body === null) return;
    if (frame.type === "offer") return this.#onOffer(body);
    if (body.call !== undefined && body.call !== this.#id) return;
    if (frame.type === "candidate") return this.#onCandidate(body);
    if (this.#pc.signalingState !== "have-local-offer") return;
    await this.#describedBy(body);
  }

  /** Both offered at once: the side whose name comes first gives way, its offer is rolled back. @param {any} offer */
  async #onOffer(offer) {
    const polite = this.#link.me < this.name;
    if (this.#pc.signalingState !== "stable" && !polite) return;
    if (this.state === "calling") this.#yield(offer);
    const first = !this.#pc.remoteDescription;
    await this.#describedBy(offer);
    this.#unsent = false;
    if (first) this.#attach();
    await this.#pc.setLocalDescription();
    this.#describe();
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

  #describe() {
    const description = this.#pc.localDescription;
    if (description) this.#tell(description.type, { type: description.type, sdp: description.sdp });
  }

  /** @param {string} type @param {object} body */
  #tell(type, body) {
    const sent = this.#link.send({ type, name: this.name, [type]: { ...body, call: this.#id } });
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
      if (this.state === "connected") {
        this.#setState("reconnecting");
        this.#wait(PATIENCE_MS.reconnecting);
      }
      const patience = connectionState === "failed" ? 0 : DISCONNECTED_MS;
      this.#retry = setTimeout(() => this.#restart(), patience);
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
    this.#patience = setTimeout(() => {
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

/** @param {string} type @param {object} [fields] */
function event(type, fields) {
  return Object.assign(new Event(type), fields);
}

/** @param {unknown} data @returns {Frame|undefined} */
function parse(data) {
  try {
    const frame = JSON.parse(String(data));
    return typeof frame?.type === "string" ? frame : undefined;
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
