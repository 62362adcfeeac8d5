// What happens, in words: errors, progress, and what a degree means.

const number = (value, digits = 0) =>
  value.toLocaleString(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });
const percent = (part) => `${Math.round(part * 100)} %`;
const MEGA = 1_000_000;

export const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;
// rounded up: nothing is said to have what the limit is, and yet to be too large
const millions = (count) => (Math.ceil(count / (MEGA / 10)) / 10).toLocaleString();
export const megabytes = (bytes) => `${millions(bytes)} MB`;
export const megapixels = (pixels) => `${millions(pixels)} megapixels`;
export const decimal = (value) => number(value, 2);

export function duration(seconds) {
  if (seconds < 90) return plural(Math.max(Math.round(seconds), 1), "second", "seconds");
  if (seconds < 5400) return plural(Math.round(seconds / 60), "minute", "minutes");
  return plural(Math.round(seconds / 3600), "hour", "hours");
}

const TITLES = {
  unreachable: ["The service cannot be reached", "Check the connection, or ask whoever runs it."],
  offline: ["You are offline", "It goes on when the connection is back."],
  key_missing: ["A key is needed", "This service takes photos only with an API key it knows."],
  key_wrong: ["The service does not know this key", "Ask whoever runs it for one."],
  job_not_found: ["The service no longer knows this job", "It was erased, or its time was over."],
  result_expired: ["The picture has expired", "The service erased it. Make it again to get it."],
  upload_too_large: ["The file is too large"],
  request_too_large: ["The file is too large"],
  request_too_slow: ["The upload took too long", "Try again on a faster connection, or with a smaller file."],
  too_many_uploads: ["Too many photos are being uploaded just now"],
  too_many_pixels: ["The picture is too large"],
  empty_upload: ["The file is empty"],
  not_a_picture: ["This is not a picture the service reads"],
  broken_picture: ["The picture is broken"],
  invalid_parameter: ["An option is not as the service wants it"],
  queue_full: ["The queue is full"],
  too_many_jobs: ["Too many jobs are under way already"],
  store_unavailable: ["The service is not able to take photos just now"],
};
const STATUSES = {
  401: ["A key is needed", "This service takes photos only with an API key it knows."],
  403: ["This is not allowed"],
  404: ["The service does not know this"],
  410: ["The picture has expired", "The service erased it. Make it again to get it."],
  413: ["The picture is too large"],
  415: ["This is not a picture the service reads"],
  422: ["An option is not as the service wants it"],
  429: ["Too many requests"],
  500: ["Something in the service went wrong", "It is not your photo. Try again, or tell whoever runs it."],
  502: ["The service cannot be reached", "The gateway before it does not get through."],
  503: ["The service is not able to take photos just now"],
  504: ["The service takes too long to answer"],
};

export const sentence = (text) =>
  text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".") : "";

/** A problem as a title and a sentence. */
export function problemWords(problem) {
  const [title, otherwise = ""] = TITLES[problem.code] ??
    STATUSES[problem.status] ?? [problem.title || "This did not work", `The service says ${problem.code}.`];
  // of keys the service speaks to programs
  return { title, detail: (problem.status === 401 ? "" : sentence(problem.detail)) || otherwise };
}

/** What a run is doing. */
export function runWords(run, readiness) {
  const { job } = run;
  if (run.pausedUntil) {
    const seconds = Math.max(Math.ceil((run.pausedUntil - Date.now()) / 1000), 0);
    return `${problemWords(run.problem).title}. Trying again in ${plural(seconds, "second", "seconds")}`;
  }
  if (run.stopping) return "Canceling";
  if (run.state === "waiting") return "Waiting for its turn";
  if (run.state === "uploading") return run.sent < 1 ? `Uploading, ${percent(run.sent)}` : "Uploaded, the service is looking at it";
  if (run.trouble) return "The connection broke off. The job goes on; trying again to reach it";
  if (run.state === "fetching") return "Fetching the picture";
  if (job?.status === "queued") return queueWords(job.queue, readiness);
  return progressWords(job?.progress);
}

function queueWords(queue, readiness) {
  const place = !queue ? "In the queue" : queue.position === 1 ? "Next in the queue" : `Number ${queue.position} in the queue`;
  if (readiness === "no_worker") return `${place}. No worker is ready yet; the job waits for one`;
  return queue?.eta_seconds ? `${place}, starts in about ${duration(queue.eta_seconds)}` : place;
}

function progressWords(progress) {
  if (!progress?.faces) return "Looking for faces";
  const { face, faces, step, steps } = progress;
  return `${faces > 1 ? `Face ${face} of ${faces}, step` : "Step"} ${step} of ${steps}`;
}

/** How far a run is, 0 to 1, or null while nobody knows. */
export function runFraction(run) {
  if (run.pausedUntil || run.stopping) return null;
  if (run.state === "uploading") return run.sent < 1 ? run.sent : null;
  return run.job?.status === "running" && run.job.progress ? run.job.progress.fraction : null;
}

export function degreeWords(d) {
  if (d > 1.5) return "Above 1.5 faces stop being faces.";
  if (d > 1.3) return "Farther than recommended; faces may look odd.";
  if (d >= 1.2) return "Recommended: another person, still believable.";
  if (d >= 0.8) return "Some resemblance to the person may stay.";
  return "Close to the original: the person may be recognized.";
}
