// One job from its upload to its picture. Tells listeners of each change; `stage.js` and `tray.js` show it.

import { Problem, cancel, delay, ended, erase, follow, pause, readResult, submit } from "./service.js";

const UNREACHED = 4; // so often a service that does not answer at all is tried again
const ACTIVE = new Set(["waiting", "uploading", "following", "fetching"]);

/** Random bytes as text; `randomUUID` is missing where the page comes over plain HTTP. */
const token = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export class Run extends EventTarget {
  #aborting = new AbortController();
  #idempotencyKey = token();

  /** `order` is {kind, photo, source, parameters, label?}; `photo` and `source` as `photo.js` makes them. */
  constructor(order) {
    super();
    const { kind, photo, source, parameters } = order;
    Object.assign(this, {
      order,
      kind,
      photo,
      source,
      parameters,
      state: "waiting",
      sent: 0,
      job: null,
      problem: null,
      pausedUntil: null,
      trouble: false,
      stopping: false,
      picture: null,
    });
  }

  get active() {
    return ACTIVE.has(this.state);
  }

  get label() {
    const { d, seed } = this.parameters;
    return this.order.label ?? (this.kind === "swap" ? `seed ${seed}` : `d ${d}\nseed ${seed}`);
  }

  /** Upload, and queue the job. False where that came to nothing. */
  async submit() {
    if (!this.active) return false;
    return this.#attempt(async () => {
      this.#change({ state: "uploading" });
      this.#change({ job: await this.#persist(() => this.#send()), state: "following" });
      if (this.stopping) await this.#cancel();
    });
  }

  /** Follow the job to its end and fetch its picture. */
  async finish() {
    await this.#attempt(async () => {
      if (!ended(this.job)) {
        await follow(this.job.id, {
          signal: this.#aborting.signal,
          onJob: (job) => this.#change({ job, trouble: false }),
          onTrouble: () => this.#change({ trouble: true }),
        });
      }
      if (this.job.status === "failed") throw new Problem(this.job.error);
      if (this.job.status === "canceled") {
        this.#change({ state: "canceled", stopping: false });
        return;
      }
      this.#change({ state: "fetching", stopping: false });
      const blob = await this.#persist(() => readResult(this.job.id));
      if (this.state === "erased") return;
      this.#change({ picture: { blob, url: URL.createObjectURL(blob) }, state: "succeeded" });
    });
  }

  /** Stop it wherever it is. A job that the service may have got already is not left behind. */
  async stop() {
    if (!this.active || this.stopping) return;
    if (this.state === "waiting") {
      this.#change({ state: "canceled" });
      return;
    }
    this.#change({ stopping: true });
    if (this.job) await this.#attempt(() => this.#cancel());
    else if (this.sent < 1 || this.pausedUntil) this.#aborting.abort();
  }

  /** Erase it at the service and here. Throws the problem where the service does not answer. */
  async erase() {
    if (this.job) await erase(this.job.id);
    this.#aborting.abort();
    if (this.picture) URL.revokeObjectURL(this.picture.url);
    this.#change({ state: "erased", picture: null, problem: null });
  }

  #send() {
    return submit(this.kind, this.#fields(), {
      idempotencyKey: this.#idempotencyKey,
      signal: this.#aborting.signal,
      onUpload: (sent) => this.#change({ sent }),
    });
  }

  async #cancel() {
    this.#change({ job: await this.#persist(() => cancel(this.job.id)) });
  }

  /** Do it again as long as the service says that it may work later, or is not reached for a while. */
  async #persist(work) {
    for (let unreached = 0; ; ) {
      try {
        return await work();
      } catch (problem) {
        unreached += problem.code === "unreachable" ? 1 : 0; // whoever is offline knows it, and can wait
        const unwanted = this.stopping && !this.job;
        if (!problem.passing || unreached > UNREACHED || unwanted) throw problem;
        await this.#countDown(problem);
      }
    }
  }

  async #countDown(problem) {
    this.#change({ problem, pausedUntil: Date.now() + delay(problem) * 1000 });
    while (this.pausedUntil > Date.now()) {
      await pause(Math.min(1, (this.pausedUntil - Date.now()) / 1000), this.#aborting.signal);
      this.#change({});
    }
    this.#change({ problem: null, pausedUntil: null, sent: 0 });
  }

  #fields() {
    const fields = new FormData();
    for (const [name, value] of Object.entries(this.parameters)) if (value !== "") fields.append(name, value);
    const pictures = this.kind === "swap" ? { source: this.source, driving: this.photo } : { image: this.photo };
    // the service ignores names; this one says nothing of the person
    for (const [name, { blob }] of Object.entries(pictures)) fields.append(name, blob, "photo");
    return fields;
  }

  async #attempt(work) {
    try {
      await work();
    } catch (problem) {
      if (this.state === "erased") return false;
      const stopped = problem?.name === "AbortError" || (this.stopping && !this.job);
      if (!stopped && !(problem instanceof Problem)) throw problem;
      this.#change({
        state: stopped ? "canceled" : "failed",
        problem: stopped ? null : problem,
        pausedUntil: null,
        stopping: false,
      });
      return false;
    }
    return true;
  }

  #change(changes) {
    Object.assign(this, changes);
    this.dispatchEvent(new Event("change"));
  }
}
