// Wires the page: which photo, which run of it is on the stage, and what each button does.

import { key } from "./key.js";
import { kind, offer, parameters, rolled, setSeed } from "./options.js";
import { onFile, onPaste, readPhoto, showSamples } from "./photo.js";
import { showResult } from "./result.js";
import { Run } from "./run.js";
import { Problem, readConfig } from "./service.js";
import { showStage } from "./stage.js";
import { addRow, addSingle, mark } from "./tray.js";
import { duration, megabytes, megapixels, problemWords, runWords, sentence } from "./words.js";

const byId = (id) => document.getElementById(id);
const STRIP_DEGREES = [0.25, 0.5, 0.75, 1, 1.25, 1.5];
const STRIP_SEEDS = 5;
const FOLLOWED = 3; // browsers open six connections to a host; each followed job holds one
const CHECK_SECONDS = 15;
const STATE_WORDS = {
  ready: "Ready",
  no_worker: "No worker is ready",
  no_store: "Not able to take photos",
  unreachable: "Not reachable",
};

let config = null;
let photo = null;
let source = null;
let run = null;
let problem = null;
let announced = "";
const runs = [];

function render() {
  const focused = document.activeElement;
  const active = runs.some((one) => one.active);
  showStage(run?.photo ?? photo, run, config?.readiness);
  byId("samples").hidden = Boolean(photo) || !config;
  byId("go").hidden = active;
  byId("stop").hidden = !active;
  for (const strip of ["strip-d", "strip-seed"]) byId(strip).disabled = active;
  showTrouble(run?.problem && !run.pausedUntil ? run.problem : problem);
  showResult(run, config?.model?.warnings ?? [], setSeed);
  showDownload();
  mark(run);
  byId("erase-all").hidden = !runs.some((one) => one.job && one.state !== "erased");
  byId("intro").hidden = Boolean(photo);
  if (focused.disabled || !focused.checkVisibility()) moveFocus(focused);
  announce();
}

function showDownload() {
  const link = byId("download");
  if (!run?.picture) {
    link.removeAttribute("href");
    return;
  }
  const stem = run.photo.name.replace(/\.\w{1,5}$/, "");
  const suffix = run.job.result.media_type.replace("image/", "").replace("jpeg", "jpg");
  link.href = run.picture.url;
  link.download = `${stem} ${run.kind === "swap" ? "swapped" : "anonymized"}.${suffix}`;
}

/** What had the focus is gone: the next best gets it, so that the keyboard does not begin at the top. */
function moveFocus(gone) {
  const ways = byId("options").contains(gone) ? ["stop", "go"] : ["photo-change", "photo-file"];
  byId(ways.find((id) => byId(id).checkVisibility())).focus({ preventScroll: true });
}

function showTrouble(trouble) {
  byId("trouble").hidden = !trouble;
  if (!trouble) return;
  const { title, detail } = problemWords(trouble);
  byId("trouble-title").textContent = `${title}.`;
  byId("trouble-words").textContent = detail;
  byId("trouble-again").hidden = trouble !== run?.problem;
}

/** Tell those who cannot see the stage; not each step. */
function announce() {
  let words = "";
  if (run?.active) words = runWords(run, config?.readiness).replace(/\d+ of (\d+)$/, "of $1").replace(/\d+ %/, "");
  else if (run?.picture) words = "Done. The compare slider shows before and after.";
  else if (run?.state === "canceled") words = "Canceled.";
  if (words !== announced && !run?.pausedUntil) {
    announced = words;
    byId("live").textContent = words;
  }
}

async function checkService() {
  try {
    config = await readConfig();
    offer(config);
    if (config.needs_key) key.need();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  }
  const readiness = config ? config.readiness : "unreachable";
  byId("state").dataset.readiness = readiness;
  byId("state-words").textContent = STATE_WORDS[readiness];
  const warnings = config?.model?.warnings ?? [];
  byId("notice").hidden = !warnings.length;
  byId("notice").textContent = warnings.map(sentence).join(" ");
}

async function take(reading, name, done) {
  problem = null;
  try {
    done(await readPhoto(await reading, name, config));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    return error;
  } finally {
    render();
  }
  return null;
}

async function takePhoto(reading, name) {
  problem = await take(reading, name, (taken) => {
    photo = taken;
    run = null;
  });
  render();
}

async function takeSource(reading, name) {
  const wrong = byId("source-wrong");
  const found = await take(reading, name, (taken) => {
    source = taken;
    byId("source-name").textContent = name;
    byId("source-preview").hidden = !taken.width;
    if (taken.width) byId("source-preview").src = taken.url;
  });
  wrong.hidden = !found;
  wrong.textContent = found ? Object.values(problemWords(found)).join(". ") : "";
}

/** Return the orders' common part, or null where something is missing; then it is said. */
function order() {
  const chosen = parameters();
  if (!chosen) return null;
  if (!photo) problem = new Problem({ code: "none", title: "Choose a photo first", detail: "Or take a sample." });
  else if (kind() === "swap" && !source) {
    problem = new Problem({ code: "none", title: "Choose whose face it shall be", detail: "A second picture gives it." });
  } else {
    problem = null;
    chosen.seed ||= rolled(); // so that every run says from its start which one it has
    return { kind: kind(), photo, source: kind() === "swap" ? source : null, parameters: chosen };
  }
  render();
  return null;
}

function startOne(common) {
  const one = new Run(common);
  addSingle(common.kind === "swap" ? "Swapped" : "Anonymized", common.photo, one, open);
  start([one]);
}

function startStrip(name, values, title) {
  const common = order();
  if (!common) return;
  const strip = values.map(
    (value) => new Run({ ...common, parameters: { ...common.parameters, [name]: String(value) }, label: `${name} ${value}` }),
  );
  addRow(title(common), common.photo, strip, open);
  start(strip);
}

async function start(started) {
  for (const one of started) {
    runs.push(one);
    one.addEventListener("change", render);
  }
  open(started[0]);
  byId("stage").scrollIntoView({ block: "nearest" });
  for (const one of started) if (await one.submit()) following(() => one.finish());
}

/** Return a function that does so much at a time, and what comes in the meantime later. */
function limited(free) {
  const waiting = [];
  return async (work) => {
    if (free > 0) free -= 1;
    else await new Promise((resolve) => waiting.push(resolve));
    try {
      await work();
    } finally {
      if (waiting.length) waiting.shift()();
      else free += 1;
    }
  };
}

const following = limited(FOLLOWED);

function open(chosen) {
  run = chosen;
  problem = null;
  render();
}

async function eraseRuns(erased) {
  problem = null;
  try {
    await Promise.all(erased.map((one) => one.erase()));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    problem = error;
  }
  render();
}

function onFiles() {
  onFile(byId("photo-file"), byId("stage"), (file) => takePhoto(file, file.name));
  onFile(byId("source-file"), byId("source-field"), (file) => takeSource(file, file.name));
  onPaste((file) => takePhoto(file, "pasted"));
  // a picture that misses its place must not replace the page
  for (const kindOf of ["dragover", "drop"]) document.addEventListener(kindOf, (event) => event.preventDefault());
}

function onButtons() {
  byId("options").addEventListener("submit", (event) => {
    event.preventDefault();
    const common = order();
    if (common) startOne(common);
  });
  byId("stop").addEventListener("click", () => runs.forEach((one) => one.stop()));
  byId("strip-d").addEventListener("click", () =>
    startStrip("d", STRIP_DEGREES, ({ parameters: { seed } }) => `Several d, seed ${seed}`),
  );
  byId("strip-seed").addEventListener("click", () => {
    const first = Number(rolled());
    const seeds = Array.from({ length: STRIP_SEEDS }, (_, index) => first + index);
    startStrip("seed", seeds, ({ kind: what, parameters: { d } }) =>
      what === "swap" ? "Swapped with several seeds" : `Several seeds, d ${d}`,
    );
  });
  byId("trouble-again").addEventListener("click", () => startOne(run.order));
  byId("erase").addEventListener("click", () => eraseRuns([run]));
  byId("erase-all").addEventListener("click", () => eraseRuns(runs));
  byId("photo-change").addEventListener("click", () => {
    photo = run = problem = null;
    render();
    byId("photo-file").focus();
  });
}

function offerSamples() {
  showSamples(byId("photo-samples"), config.samples, takePhoto);
  showSamples(byId("source-samples"), config.samples, takeSource);
  const limits = `up to ${megabytes(config.max_upload_bytes)} and ${megapixels(config.max_pixels)}`;
  byId("photo-limits").textContent = `JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP ${limits}`;
  byId("photo-file").accept = byId("source-file").accept = config.accepted.join();
  byId("keep").textContent =
    "Photos are erased at the service when their job has ended, results after " +
    `${duration(config.result_seconds)}. This page keeps nothing once it is closed.`;
}

async function begin() {
  onButtons();
  while (!config) {
    await checkService();
    if (!config) await new Promise((resolve) => setTimeout(resolve, 3000));
  }
  offerSamples();
  onFiles();
  render();
  setInterval(() => {
    if (!document.hidden) checkService();
  }, CHECK_SECONDS * 1000);
}

render();
begin();
