// The options panel: what it shows, and the parameters it gives.

import { degreeWords, decimal } from "./words.js";

const byId = (id) => document.getElementById(id);
const form = byId("options");
const MAX_SEED = 2n ** 63n - 1n;
const KIND_WORDS = {
  anonymize: "Each face becomes somebody who does not exist.",
  swap: "The faces get the identity of the largest face in another picture.",
};
const GO = { anonymize: "Anonymize", swap: "Swap" };
const OPTIONAL = ["steps", "guidance_scale", "sampler", "faces", "format"];

export const kind = () => form.elements.kind.value;

/** A seed that fits into a caption; the service takes up to 2^63 - 1. */
export const rolled = () => String(crypto.getRandomValues(new Uint32Array(1))[0] % 100_000_000);

function checkSeed() {
  const text = form.seed.value.trim();
  const fits = text === "" || (/^\d{1,19}$/.test(text) && BigInt(text) <= MAX_SEED);
  form.seed.setCustomValidity(fits ? "" : `A seed is a whole number from 0 to ${MAX_SEED}.`);
}

export function setSeed(seed) {
  form.seed.value = seed;
  checkSeed();
}

/** Return the parameters, or null where the person has to mend one; the browser then says which. */
export function parameters() {
  checkSeed();
  if (!form.checkValidity()) {
    if (byId("more").querySelector(":invalid")) byId("more").open = true;
    form.reportValidity();
    return null;
  }
  const chosen = Object.fromEntries(OPTIONAL.map((name) => [name, form.elements[name].value]));
  chosen.seed = form.seed.value.trim();
  if (kind() === "anonymize") chosen.d = form.d.value;
  return chosen;
}

function showKind() {
  const chosen = kind();
  byId("kind-words").textContent = KIND_WORDS[chosen];
  byId("go").textContent = GO[chosen];
  byId("degree-field").hidden = byId("strip-d").hidden = chosen === "swap";
  byId("source-field").hidden = chosen === "anonymize";
}

function showDegree() {
  const d = Number(form.d.value);
  const words = degreeWords(d);
  byId("d-shown").value = decimal(d);
  byId("d-words").textContent = words;
  byId("d-words").classList.toggle("warned", d > 1.5);
  form.d.setAttribute("aria-valuetext", `${decimal(d)}. ${words}`);
}

const add = (select, names) => select.append(...names.map((name) => new Option(name, name)));

/** Show what this service offers, and what its model is best used with. */
export function offer(config) {
  if (form.sampler.options.length === 1) {
    add(form.sampler, config.samplers);
    add(form.elements.format, config.formats);
  }
  const defaults = config.model?.defaults;
  if (!defaults) return;
  if (!form.d.dataset.moved) form.d.value = defaults.d;
  form.steps.placeholder = defaults.steps;
  form.guidance_scale.placeholder = defaults.guidance_scale;
  form.sampler.options[0].text = `Default (${defaults.sampler})`;
  showDegree();
}

form.addEventListener("change", showKind);
form.seed.addEventListener("input", checkSeed);
form.d.addEventListener("input", () => {
  form.d.dataset.moved = "yes";
  showDegree();
});
byId("roll").addEventListener("click", () => setSeed(rolled()));
form.steps.placeholder = "Default";
form.guidance_scale.placeholder = "Default";
showKind();
showDegree();
