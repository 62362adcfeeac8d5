// Every request to the service: with the API key where one is needed, and with its errors as `Problem`s.
// Links are made from the page's own address, so that any root path works.

import { key } from "./key.js";

const root = new URL(".", document.baseURI);
export const address = (path) => new URL(path, root).href;

const PASSING = new Set([0, 429, 502, 503, 504]);
const RETRY_SECONDS = 3;

/** An error of the service (RFC 9457), or of the way to it (status 0). */
export class Problem extends Error {
  constructor({ status = 0, code = "unreachable", title = "", detail = "", errors = [], retryAfter = null }) {
    super(detail || code);
    Object.assign(this, { status, code, title, detail, errors, retryAfter });
  }

  /** Whether the same request may succeed a little later. */
  get passing() {
    return PASSING.has(this.status);
  }
}

const unreachable = () => new Problem({ code: navigator.onLine ? "unreachable" : "offline" });

function problemOf(status, header, text) {
  let body = {};
  try {
    body = JSON.parse(text) ?? {};
  } catch {
    // a gateway's own error page: its status has to do
  }
  const retryAfter = Number.parseInt(header("Retry-After"), 10);
  return new Problem({
    status,
    code: typeof body.code === "string" ? body.code : `http_${status}`,
    detail: typeof body.detail === "string" ? body.detail : "",
    errors: Array.isArray(body.errors) ? body.errors : [],
    retryAfter: Number.isNaN(retryAfter) ? null : retryAfter,
  });
}

/** Run `attempt`, and again with the key that the person gives, as long as the service answers 401. */
async function withKey(attempt) {
  for (;;) {
    if (key.needed && !key.value) await key.ask(new Problem({ status: 401, code: "key_missing" }));
    const used = key.value;
    try {
      return await attempt();
    } catch (problem) {
      if (problem.status !== 401) throw problem;
      if (key.value === used) await key.ask(problem);
    }
  }
}

const authorization = () => (key.value ? { Authorization: `Bearer ${key.value}` } : {});

async function ask(path, { method = "GET", headers = {}, signal } = {}) {
  let response;
  try {
    response = await fetch(address(path), {
      method,
      headers: { ...authorization(), ...headers },
      signal,
      cache: "no-store",
    });
  } catch (error) {
    throw error.name === "AbortError" ? error : unreachable();
  }
  if (response.ok) return response;
  throw problemOf(response.status, (name) => response.headers.get(name), await response.text());
}

/** Wait; an abort ends it with an error. */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1000);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** The seconds to wait before a request is sent again. */
export const delay = (problem) => Math.max(problem.retryAfter ?? RETRY_SECONDS, 1);

// Seeds go up to 2^63 - 1, JavaScript's numbers are exact to 2^53: seeds stay text.
const jobOf = (text) => JSON.parse(text.replace(/"seed":\s*(\d+)/g, '"seed":"$1"'));

export const ended = (job) => !["queued", "running"].includes(job.status);

/** What the page must know of the service; needs no key. */
export const readConfig = async () => (await ask("page/config.json")).json();

/** A sample as a blob. */
export const readSample = async (url) => (await ask(url)).blob();

/** Submit a job and return it. `onUpload` hears the part of the body that is sent, 0 to 1. */
export function submit(kind, fields, { idempotencyKey, onUpload, signal }) {
  return withKey(
    () =>
      new Promise((resolve, reject) => {
        const request = new XMLHttpRequest(); // fetch does not tell how much of an upload is sent
        const stop = () => request.abort();
        signal.addEventListener("abort", stop, { once: true });
        request.open("POST", address(kind));
        for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
        request.setRequestHeader("Idempotency-Key", idempotencyKey);
        request.upload.onprogress = ({ loaded, total }) => onUpload(total ? loaded / total : 0);
        request.onloadend = () => {
          signal.removeEventListener("abort", stop);
          if (signal.aborted) reject(signal.reason);
          else if (!request.status) reject(unreachable());
          else if (request.status < 300) resolve(jobOf(request.responseText));
          else reject(problemOf(request.status, (name) => request.getResponseHeader(name), request.responseText));
        };
        request.send(fields);
      }),
  );
}

/** Hear of each change of a job until it has ended; a broken stream is taken up again. */
export async function follow(id, { onJob, onTrouble, signal }) {
  for (;;) {
    try {
      const response = await withKey(() => ask(`jobs/${id}/events`, { signal }));
      for await (const { event, data } of eventsOf(response.body, signal)) {
        if (event === "deleted") throw new Problem({ status: 404, code: "job_not_found" });
        const job = jobOf(data);
        onJob(job);
        if (ended(job)) return;
      }
      await pause(1, signal);
    } catch (problem) {
      if (!(problem instanceof Problem && problem.passing)) throw problem;
      onTrouble(problem);
      await pause(delay(problem), signal);
    }
  }
}

/** The events of a `text/event-stream`; EventSource cannot send an API key. */
async function* eventsOf(body, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch {
      if (signal.aborted) throw signal.reason;
      throw unreachable();
    }
    if (part.done) return;
    const blocks = (text + part.value).split(/\r?\n\r?\n/);
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/).map((line) => line.match(/^(\w+): ?(.*)$/) ?? []);
      const values = (name) => lines.filter((line) => line[1] === name).map((line) => line[2]);
      const data = values("data");
      if (data.length) yield { event: values("event")[0] ?? "message", data: data.join("\n") };
    }
  }
}

/** The finished picture. */
export const readResult = async (id) => (await withKey(() => ask(`jobs/${id}/result`))).blob();

/** Cancel a job; returns it as it then stands. */
export const cancel = async (id) =>
  jobOf(await (await withKey(() => ask(`jobs/${id}/cancel`, { method: "POST" }))).text());

/** Erase a job with every byte of it; one that is gone already is as good. */
export async function erase(id) {
  try {
    await withKey(() => ask(`jobs/${id}`, { method: "DELETE" }));
  } catch (problem) {
    if (problem.status !== 404) throw problem;
  }
}
